import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy.integral import PowerIntegral


def test_steady_power_is_watts_times_seconds() -> None:
    integral = PowerIntegral()
    counts_uj = [integral.add(t_ns, 12_500_000) for t_ns in range(0, 10**10 + 1, 10**8)]
    assert (counts_uj[0], counts_uj[-1]) == (0, 125_000_000)


def test_power_that_rises_steadily_is_the_area_below_it() -> None:
    integral = PowerIntegral()
    # p(t) = 3 t W: 3 / 2 T^2 J.
    for tenth in range(101):
        counted_uj = integral.add(tenth * 10**8, 300_000 * tenth)
    assert counted_uj == 150_000_000


def test_a_swing_between_samples_is_off_by_no_more_than_half_a_step_times_the_change() -> None:
    integral = PowerIntegral()
    # 10 W until 0.55 s, 50 W from then on; seen every 0.1 s.
    for tenth in range(11):
        counted_uj = integral.add(tenth * 10**8, 10_000_000 if tenth * 0.1 < 0.55 else 50_000_000)
    assert abs(counted_uj - (10 * 0.55 + 50 * 0.45) * 1e6) <= 0.1 / 2 * 40 * 1e6


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)), min_size=1, max_size=60),
    st.integers(0, 2**60),
)
def test_no_rounding_adds_up(steps: list[tuple[int, int]], start_ns: int) -> None:
    integral = PowerIntegral()
    t_ns, exact, last_uw = start_ns, 0, 0
    integral.add(t_ns, 0)
    for step_ns, power_uw in steps:
        t_ns += step_ns
        exact += step_ns * (last_uw + power_uw)
        last_uw = power_uw
        counted_uj = integral.add(t_ns, power_uw)
    assert 0 <= exact / 2e9 - counted_uj < 1 + exact * 1e-15


def test_a_sample_from_before_the_last_is_refused() -> None:
    integral = PowerIntegral()
    integral.add(10, 1)
    with pytest.raises(ValueError, match="9 ns comes after one at 10 ns"):
        integral.add(9, 1)
