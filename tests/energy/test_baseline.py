import json

import pytest

from energy import CounterEnergy, IdleBaseline, IdleWatts
from energy.baseline import drift_between, idle_watts

QUIET = IdleWatts(20.0, 0.01, 0.02)


@pytest.mark.parametrize(
    ("after", "drifted"),
    [
        (IdleWatts(20.9, 0.01, 0.02), False),
        (IdleWatts(21.1, 0.01, 0.02), True),
        (IdleWatts(18.9, 0.01, 0.02), True),
        (IdleWatts(24.0, 2.0, 0.02), False),
        (IdleWatts(24.0, 0.01, 5.0), False),
    ],
    ids=["within 5 %", "more than 5 % up", "more than 5 % down", "within three errors", "within the bounds"],
)
def test_a_baseline_has_drifted_beyond_5_percent_and_noise_and_bounds(
    after: IdleWatts, drifted: bool
) -> None:
    assert drift_between(QUIET, after).drifted is drifted


def test_the_paused_machine_is_what_net_takes_off_and_what_drift_compares() -> None:
    baseline = IdleBaseline(2.0, 1e9, awake={"a": IdleWatts(30.0, 0.0, 0.0)}, paused={"a": QUIET, "b": QUIET})
    assert baseline.watts == {"a": 20.0, "b": 20.0}
    drift = baseline.drift({"a": IdleWatts(30.0, 0.0, 0.0)})
    assert {channel: found.drifted for channel, found in drift.items()} == {"a": True}
    assert IdleBaseline.from_json(json.loads(json.dumps(baseline.to_json()))) == baseline


def test_a_baseline_is_the_mean_over_its_parts_with_their_spread() -> None:
    parts = [CounterEnergy(0.5, joules, 0.1, True, True) for joules in (9.0, 10.0, 11.0, 10.0)]
    found = idle_watts(parts)
    assert found is not None
    assert found.watts == pytest.approx(20.0)
    # Watts of 18, 20, 22, 20: deviation sqrt(8 / 3), over sqrt(4).
    assert found.error_w == pytest.approx((8 / 3) ** 0.5 / 2)
    assert found.bound_w == pytest.approx(0.1 / 2.0)


def test_a_missing_reading_leaves_no_baseline() -> None:
    assert (
        idle_watts([CounterEnergy(0.5, 9.0, 0.1, True, True), CounterEnergy(0.5, None, None, True, False)])
        is None
    )
