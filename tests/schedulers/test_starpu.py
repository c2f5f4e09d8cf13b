import pytest

from schedulers import StarPUScheduler


def test_starpus_defaults_are_left_to_starpu() -> None:
    assert not StarPUScheduler(name="dmdas").weighs_energy
    assert StarPUScheduler(name="dmdas", gamma_us_per_j=1e5).weighs_energy
    assert StarPUScheduler(name="modular-heft", idle_w=40.0).weighs_energy


@pytest.mark.parametrize("name", ["eager", "lws", "dm", "heteroprio", "modular-eager"])
def test_a_policy_that_never_asks_for_joules_takes_no_weight(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} never asks for joules"):
        StarPUScheduler(name=name, gamma_us_per_j=1e5)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="gamma_us_per_j must be 0 or more"):
        StarPUScheduler(name="dmdas", gamma_us_per_j=bad)
