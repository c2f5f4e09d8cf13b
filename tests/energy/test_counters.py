import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import Channel, CounterTrack, Flag, Reading, energy_between

SECOND_NS = 1_000_000_000


def counter(wrap: int | None, unit_j: float = 1e-6, period_s: float = 0.001) -> Channel:
    return Channel("rapl:package-0", "package", True, unit_j, wrap, period_s)


def reading(t_s: float, raw: int) -> Reading:
    return Reading("rapl:package-0", round(t_s * SECOND_NS), raw)


BROKEN = None
units_j = st.sampled_from([1e-6, 1e-3, 2.0**-32, 6.103515625e-5])


@st.composite
def wrapping_counters(draw: st.DrawFn) -> tuple[Channel, int, list[int | None]]:
    """A counter of any range, where it starts, and what it counts between readings; None: one that fails."""
    unit_j = draw(units_j)
    wrap = round(draw(st.floats(1, 3e5)) / unit_j)
    # At 900 W a counter comes round after the time that the record allows between two readings at 1000 W.
    step = st.integers(0, wrap * 89 // 100)
    steps = draw(st.lists(st.one_of(step, step, step, st.just(BROKEN)), min_size=1, max_size=30))
    return counter(wrap, unit_j), draw(st.integers(0, wrap - 1)), steps


@given(wrapping_counters())
def test_any_readings_with_wraps_and_gaps_give_back_the_joules_that_made_them(
    made: tuple[Channel, int, list[int | None]],
) -> None:
    channel, truth, steps = made
    assert channel.wrap is not None
    track = CounterTrack(channel)
    track.add(reading(0, truth))
    marks = [(track.mark, 0)]
    t_s, counted = 0.0, 0
    for step in steps:
        t_s += (step or 0) * channel.unit_j / 900 + 1e-6
        if step is BROKEN:
            track.miss(round(t_s * SECOND_NS))
        else:
            truth, counted = truth + step, counted + step
            track.add(reading(t_s, truth % channel.wrap))
        marks.append((track.mark, counted))
    for first in range(len(marks)):
        for last in range(first, len(marks)):
            energy = energy_between(channel, marks[first][0], marks[last][0])
            if BROKEN in [0, *steps][first : last + 1]:
                assert energy.joules is None
            else:
                expected_j = (marks[last][1] - marks[first][1]) * channel.unit_j
                assert energy.joules == pytest.approx(expected_j, rel=1e-12)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 2**62),
)
def test_a_counter_that_starts_anew_loses_only_the_joules_around_that(
    steps: list[tuple[int, bool]], start: int
) -> None:
    track = CounterTrack(counter(None, unit_j=1e-3))
    shown, known = start, 0
    track.add(reading(0, start))
    found_j = 0.0
    for index, (step, anew) in enumerate(steps, 1):
        falls = anew and shown > 0
        shown = step % shown if falls else shown + step
        taken = track.add(reading(index, shown))
        assert (taken.flags == Flag.RESET, taken.joules is None) == (falls, falls)
        known += 0 if falls else step
        found_j += taken.joules or 0.0
    assert found_j == pytest.approx(known * 1e-3)


def test_a_count_that_no_record_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=str(2**63)):
        CounterTrack(counter(None)).add(reading(0, 2**63))


def test_a_counter_set_to_zero_far_from_its_range_is_a_reset_and_no_wrap() -> None:
    track = CounterTrack(counter(262_143_328_851))
    track.add(reading(0, 100_000_000_000))
    opened = track.mark
    step = track.add(reading(0.1, 5_000_000))
    assert (step.joules, step.flags) == (None, Flag.RESET)
    assert energy_between(track.channel, opened, track.mark).joules is None


def test_a_counter_that_leaps_ahead_shows_joules_that_nothing_drew() -> None:
    track = CounterTrack(counter(None, unit_j=1e-3))
    track.add(reading(0, 1000))
    step = track.add(reading(0.1, 10**15))
    assert (step.joules, step.flags) == (None, Flag.RESET)


def test_a_counter_that_repeats_itself_has_counted_nothing_and_is_no_gap() -> None:
    track = CounterTrack(counter(10**9))
    track.add(reading(0, 77))
    opened = track.mark
    assert [track.add(reading(t_s, 77)).joules for t_s in (0.1, 0.1, 0.2)] == [0.0, 0.0, 0.0]
    assert energy_between(track.channel, opened, track.mark).complete


def test_a_clock_that_steps_back_leaves_a_gap() -> None:
    track = CounterTrack(counter(10**9))
    track.add(reading(5, 100))
    step = track.add(reading(4, 200))
    assert (step.joules, step.watts, step.flags) == (None, None, Flag.LOST_COUNT)


def test_samples_of_power_too_far_apart_are_not_summed_up() -> None:
    channel = Channel("hwmon:VDD_IN", "board", True, 1e-6, None, 0.5, integrated=True, longest_gap_s=0.5)
    track = CounterTrack(channel)
    track.add(Reading(channel.name, 0, 0))
    assert track.add(Reading(channel.name, SECOND_NS // 10, 500_000)).joules == pytest.approx(0.5)
    late = track.add(Reading(channel.name, SECOND_NS, 5_000_000))
    assert (late.joules, late.flags) == (None, Flag.LOST_COUNT)


@given(
    steps=st.lists(st.one_of(st.none(), st.integers(0, 10**9 - 1)), max_size=40),
    first=st.integers(0, 39),
    last=st.integers(0, 39),
)
def test_a_window_has_joules_only_where_every_reading_in_it_is_there(
    steps: list[int | None], first: int, last: int
) -> None:
    track = CounterTrack(counter(10**9))
    truth = 0
    marks = []
    for index, step in enumerate([0, *steps]):
        if step is None:
            assert track.miss(index * 1_000_000).joules is None
        else:
            truth += step
            track.add(reading(index * 1e-3, truth % 10**9))
        marks.append((track.mark, truth))
    first, last = sorted((min(first, len(steps)), min(last, len(steps))))
    energy = energy_between(track.channel, marks[first][0], marks[last][0])
    if any(step is None for step in [0, *steps][first : last + 1]):
        assert energy.joules is None
        assert energy.bound_j is None
        assert not energy.complete
    else:
        assert energy.joules == pytest.approx((marks[last][1] - marks[first][1]) * 1e-6)
        assert energy.complete


def test_a_lost_reading_is_a_gap_not_a_zero() -> None:
    track = CounterTrack(counter(10**9))
    steps = [
        track.add(reading(0, 100)),
        track.miss(SECOND_NS // 10),
        track.add(reading(0.2, 300)),
        track.add(reading(0.3, 400)),
    ]
    assert [step.flags for step in steps] == [Flag.FIRST, Flag.GAP, Flag.GAP, Flag.OK]
    assert [step.raw for step in steps] == [100, None, 300, 400]
    assert [step.joules for step in steps] == [None, None, None, pytest.approx(100e-6)]


def test_a_counter_without_a_range_that_falls_was_reset() -> None:
    track = CounterTrack(counter(None))
    track.add(reading(0, 5000))
    opened = track.mark
    step = track.add(reading(1, 20))
    assert (step.joules, step.flags) == (None, Flag.RESET)
    assert energy_between(track.channel, opened, track.mark).joules is None
    after_reset = track.mark
    track.add(reading(2, 50))
    assert energy_between(track.channel, after_reset, track.mark).joules == pytest.approx(30e-6)


def test_readings_so_far_apart_that_two_wraps_fit_are_not_counted() -> None:
    # 1e9 counts of 1 uJ are 1000 J: at the assumed limit of 1000 W they pass within 1 s.
    track = CounterTrack(counter(10**9))
    track.add(reading(0, 0))
    assert track.add(reading(0.9, 10)).flags == Flag.OK
    late = track.add(reading(2.0, 20))
    assert (late.joules, late.flags) == (None, Flag.LOST_COUNT)


@pytest.mark.parametrize("raw", [-1, 1000, 10**30])
def test_a_value_that_the_counter_cannot_show_is_refused(raw: int) -> None:
    track = CounterTrack(counter(1000))
    track.add(reading(0, 999))
    with pytest.raises(ValueError, match=str(raw)):
        track.add(reading(0.1, raw))


def test_the_bound_is_what_flows_in_one_period_of_the_counter_and_one_count() -> None:
    channel = counter(None, unit_j=1e-3, period_s=0.1)
    track = CounterTrack(channel)
    track.add(reading(0, 0))
    opened = track.mark
    step = track.add(reading(10, 2_000_000))
    energy = energy_between(channel, opened, track.mark)
    assert energy.joules == pytest.approx(2000.0)
    assert step.watts == pytest.approx(200.0)
    assert energy.bound_j == pytest.approx(0.1 * 200.0 + 0.001)


@given(power_w=st.floats(1, 900), seconds=st.floats(0.31, 20), phase=st.floats(0, 0.0999))
def test_a_counter_that_is_updated_late_stays_within_the_bound(
    power_w: float, seconds: float, phase: float
) -> None:
    period_s = 0.1
    channel = counter(None, unit_j=1e-3, period_s=period_s)

    def shown_mj(t_s: float) -> int:
        updated_s = (t_s + phase) // period_s * period_s - phase
        return int((updated_s + 1) * power_w * 1000)

    track = CounterTrack(channel)
    track.add(reading(0, shown_mj(0)))
    opened = track.mark
    track.add(reading(seconds, shown_mj(seconds)))
    energy = energy_between(channel, opened, track.mark)
    assert energy.joules is not None
    assert energy.bound_j is not None
    # The bound takes the power from the joules that are in error themselves: one part in W / T more.
    assert abs(energy.joules - power_w * seconds) <= energy.bound_j / (1 - period_s / seconds) + 1e-3


@pytest.mark.parametrize(("seconds", "resolvable"), [(0.29, False), (0.31, True)])
def test_a_window_below_three_periods_is_not_resolvable(seconds: float, resolvable: bool) -> None:
    channel = counter(None, period_s=0.1)
    track = CounterTrack(channel)
    track.add(reading(0, 0))
    opened = track.mark
    track.add(reading(seconds, 100))
    assert energy_between(channel, opened, track.mark).resolvable is resolvable


def test_a_counter_that_stands_still_is_stale_and_not_a_zero() -> None:
    track = CounterTrack(counter(None))
    steps = [track.add(reading(at / 10, min(at, 3) * 100)) for at in range(12)]
    # It last moved at 0.3 s; a package draws power whatever runs, so from 0.8 s on nothing is known.
    assert [step.flags for step in steps[1:8]] == [Flag.OK] * 7
    assert [(step.flags, step.joules) for step in steps[8:]] == [(Flag.STALE, None)] * 4


def test_joules_are_known_again_from_the_reading_after_a_stale_counter_moved() -> None:
    track = CounterTrack(counter(None))
    for at in range(11):
        track.add(reading(at / 10, 100))
    stuck = track.mark
    moving = track.add(reading(1.1, 500))
    assert (moving.flags, moving.joules) == (Flag.STALE, None), "what it counted while it stood is not known"
    opened = track.mark
    assert track.add(reading(1.2, 800)).joules == pytest.approx(300e-6)
    assert energy_between(track.channel, stuck, track.mark).joules is None
    assert energy_between(track.channel, opened, track.mark).joules == pytest.approx(300e-6)


def test_a_counter_outside_the_total_may_stand_still() -> None:
    uncore = Channel("rapl:package-0", "uncore", False, 1e-6, None, 0.001)
    track = CounterTrack(uncore)
    for at in range(100):
        assert track.add(reading(float(at), 7)).flags in (Flag.FIRST, Flag.OK)


def test_a_coarse_counter_may_stand_still_for_as_long_as_a_count_takes() -> None:
    track = CounterTrack(counter(None, unit_j=1.0))
    flags = [track.add(reading(float(at), 7)).flags for at in range(12)]
    assert flags == [Flag.FIRST, *[Flag.OK] * 9, Flag.STALE, Flag.STALE]


def test_a_window_in_which_no_count_fell_is_not_resolvable() -> None:
    track = CounterTrack(counter(None))
    track.add(reading(0, 7))
    opened = track.mark
    track.add(reading(0.4, 7))
    assert not energy_between(track.channel, opened, track.mark).resolvable
