"""Medians, intervals and paired comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from experiments import load_runs
from experiments.reporting import measures, statistics
from experiments.reporting.variants import parse_baseline
from experiments.runs import RunsError
from tests.experiments.synthetic_runs import write_run

RESAMPLES = 4_000


def spread(values: list[float], **how: Any) -> statistics.Spread:
    found = statistics.spread_of(
        values, **{"exact": False, "simulated": False, "seed": 0, "resamples": RESAMPLES, **how}
    )
    assert found is not None
    return found


def tables(folder: Path, baseline: str = "eager") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Variants and paired comparison, by label."""
    frame = measures.measured(load_runs(folder))
    variants = statistics.medians(frame, seed=0, resamples=RESAMPLES)
    paired = statistics.paired(frame, parse_baseline(baseline.split(",")), seed=0, resamples=RESAMPLES)
    return variants.set_index("label"), paired.set_index("label")


@pytest.mark.parametrize("count", [5, 9, 15])
def test_an_interval_ends_where_the_medians_of_resamples_do(count: int) -> None:
    """Of n different values the median of a resample is at most the j-th with a binomial's chance."""
    values = np.sort(np.random.default_rng(1).normal(size=count))
    at_most = binom.sf(count // 2, count, np.arange(1, count + 1) / count)
    low, high = values[np.searchsorted(at_most, 0.025)], values[np.searchsorted(at_most, 0.975)]
    found = spread(values.tolist(), resamples=20_000)
    assert found.kind == "interval"
    assert found.median == values[count // 2]
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = list(np.random.default_rng(2).normal(size=8))
    assert spread(values, seed=3) == spread(values, seed=3)


def test_of_few_values_the_range_is_shown_and_of_one_nothing() -> None:
    few = spread([3.0, 1.0, 2.0])
    assert (few.kind, few.median, few.low, few.high) == ("range", 2.0, 1.0, 3.0)
    one = spread([3.0])
    assert one.kind == "one"
    assert np.isnan([one.low, one.high]).all()


def test_what_is_not_known_is_left_out_and_nothing_known_is_no_number() -> None:
    assert spread([np.nan, 2.0, np.nan, 4.0]).median == 3.0
    assert statistics.spread_of([np.nan], exact=False, simulated=False, seed=0, resamples=10) is None


def test_repeats_of_an_exact_simulation_are_one_run_without_an_interval() -> None:
    found = spread([2.5] * 20, exact=True, simulated=True)
    assert (found.kind, found.count) == ("exact", 1)
    assert np.isnan([found.low, found.high]).all()
    differing = spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], exact=True, simulated=True)
    assert differing.kind == "range", "whatever makes them differ, it is no noise"


def test_a_noisy_simulation_has_an_interval_over_its_different_runs() -> None:
    found = spread([1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0], simulated=True)
    assert (found.kind, found.count) == ("interval", 5)


def test_noise_is_looked_up_in_the_configuration(tmp_path: Path) -> None:
    def exact(name: str, **config: Any) -> bool:
        write_run(tmp_path / name, quality="simulated", simulated=True, platform="node", **config)
        return bool(measures.is_exact(load_runs(tmp_path / name)[0]))

    assert exact("exact")
    assert not exact("estimates", estimates={"bias": {}, "noise": 0.3, "seed": 0})
    write_run(tmp_path / "host")
    assert not measures.is_exact(load_runs(tmp_path / "host")[0])


def test_runs_are_paired_by_seed_and_repeat(tmp_path: Path) -> None:
    for seed, base, own in ((0, 10.0, 9.0), (1, 20.0, 16.0), (2, 40.0, 20.0)):
        write_run(tmp_path, "eager", seed=seed, joules=(base,), seconds=(1.0,), accuracies=(0.5,))
        write_run(tmp_path, "lws", seed=seed, joules=(own,), seconds=(1.1,), accuracies=(0.5,))
    write_run(tmp_path, "lws", seed=7, joules=(1.0,), seconds=(1.0,), accuracies=(0.5,))
    _, paired = tables(tmp_path)
    row = paired.loc["lws"]
    assert (row["baseline"], row["pairs"], row["unpaired"], row["spread"]) == ("eager", 3, 1, "range")
    assert row["energy_saved"] == pytest.approx(0.2), "of 0.1, 0.2 and 0.5"
    assert (row["energy_saved_low"], row["energy_saved_high"]) == pytest.approx((0.1, 0.5))
    assert row["slowdown"] == pytest.approx(0.1)
    assert row["edp_change"] == pytest.approx(0.8 * 1.1 - 1)


def test_repeats_of_one_seed_are_paired_in_the_order_of_time(tmp_path: Path) -> None:
    for base, own in ((10.0, 5.0), (100.0, 50.0)):
        write_run(tmp_path, "eager", joules=(base,), seconds=(1.0,), accuracies=(0.5,))
        write_run(tmp_path, "lws", joules=(own,), seconds=(1.0,), accuracies=(0.5,))
    row = tables(tmp_path)[1].loc["lws"]
    assert (row["energy_saved_low"], row["energy_saved_high"]) == pytest.approx((0.5, 0.5))


def test_a_variant_is_set_against_the_baseline_of_the_same_batch_size(tmp_path: Path) -> None:
    for batch_size, joules in ((16, 10.0), (64, 4.0)):
        for scheduler, factor in (("eager", 1.0), ("lws", 0.5)):
            write_run(tmp_path, scheduler, joules=(factor * joules,), seconds=(1.0,), accuracies=(0.5,),
                      batch_size=batch_size)  # fmt: skip
    _, paired = tables(tmp_path)
    assert paired["baseline"].to_dict() == {
        "lws (batch_size=16)": "eager (batch_size=16)",
        "lws (batch_size=64)": "eager (batch_size=64)",
    }
    assert paired["energy_saved"].tolist() == pytest.approx([0.5, 0.5])
    _, one = tables(tmp_path, "scheduler=eager,batch_size=16")
    assert one["baseline"].unique().tolist() == ["eager (batch_size=16)"]
    assert len(one) == 3


def test_a_twin_in_pytorch_is_a_variant_and_can_be_the_baseline(tmp_path: Path) -> None:
    write_run(tmp_path, "eager", joules=(4.0,), seconds=(1.0,), accuracies=(0.5,))
    write_run(tmp_path, "torch", joules=(8.0,), seconds=(1.0,), accuracies=(0.5,), tasks=False,
              changes={"framework": "torch"})  # fmt: skip
    variants, paired = tables(tmp_path, "framework=torch")
    assert variants["framework"].to_dict() == {"eager": "starpu", "torch": "torch"}
    assert paired["baseline"].to_dict() == {"eager": "torch"}
    assert paired["energy_saved"].tolist() == pytest.approx([0.5])


def test_a_baseline_that_there_is_not_or_that_fits_several_is_an_error(tmp_path: Path) -> None:
    for tile in (16, 32):
        write_run(tmp_path, "eager", tile=tile)
    with pytest.raises(
        RunsError, match=r"no finished run is the baseline scheduler=dmda; there are: eager \(tile=16\)"
    ):
        tables(tmp_path, "dmda")
    write_run(tmp_path, "lws", tile=8)
    frame = measures.measured(load_runs(tmp_path))
    with pytest.raises(RunsError, match=r"fits several: .*; name another factor too, such as tile=16"):
        statistics.paired(frame.assign(factors=frame["factors"].map(lambda f: f[:1] if f[0][1] == "lws" else f)),
                          {"scheduler": "eager"}, seed=0, resamples=10)  # fmt: skip


def test_measures_follow_from_seconds_and_joules(tmp_path: Path) -> None:
    write_run(tmp_path, seconds=(2.0, 4.0), joules=(30.0, 90.0), accuracies=(0.5, 0.75))
    row = measures.measured(load_runs(tmp_path)).iloc[0]
    assert (row["seconds_per_epoch"], row["joules_per_epoch"]) == (3.0, 60.0)
    assert row["watts"] == 20.0
    assert row["edp_j_s"] == 180.0
    assert row["ed2p_j_s2"] == 540.0
    assert row["images_per_joule"] == pytest.approx(1200 / 120)
    assert (row["accuracy"], row["accuracy_asked"], row["joules_to_accuracy"]) == (0.75, 0.75, 120.0)


def test_energy_to_accuracy_ends_at_the_first_epoch_that_reaches_it(tmp_path: Path) -> None:
    write_run(tmp_path, "eager", seconds=(1.0,) * 3, joules=(10.0, 20.0, 40.0), accuracies=(0.5, 0.83, 0.86))
    write_run(tmp_path, "lws", seconds=(1.0,) * 3, joules=(10.0, 20.0, 40.0), accuracies=(0.4, 0.7, 0.81))
    frame = measures.measured(load_runs(tmp_path))
    assert frame["accuracy_asked"].tolist() == [0.81, 0.81], "the highest that both reach"
    assert frame["joules_to_accuracy"].tolist() == pytest.approx([30.0, 70.0])
    later = measures.measured(load_runs(tmp_path), accuracy=0.85)["joules_to_accuracy"]
    assert later.iloc[0] == pytest.approx(70.0)
    assert np.isnan(later.iloc[1]), "it was not reached"


def test_an_epoch_inside_a_block_counts_with_the_whole_block() -> None:
    epochs = pd.DataFrame({"epoch": [1, 2, 3, 4], "accuracy": [0.5, 0.6, 0.7, 0.8]})
    windows = pd.DataFrame(
        {
            "window": ["epoch", "epoch", "evaluation"],
            "epoch": [1, 3, 3],
            "last_epoch": [2, 4, 3],
            "in_total": pd.array([True, True, True], dtype="boolean"),
            "gross_j": [10.0, 30.0, 99.0],
        }
    )
    assert measures.joules_to(0.5, epochs, windows) == 10.0
    assert measures.joules_to(0.7, epochs, windows) == 40.0
    assert measures.joules_to(0.9, epochs, windows) is None
    assert measures.joules_to(0.7, epochs, windows.assign(gross_j=[10.0, np.nan, 1.0])) is None
    assert measures.joules_to(None, epochs, windows) is None


def test_joules_of_different_qualities_are_not_compared_by_chance(tmp_path: Path) -> None:
    write_run(tmp_path, "eager", quality="measured")
    write_run(tmp_path, "lws", quality="estimated")
    write_run(tmp_path, "lws", quality="simulated", simulated=True, platform="cpu8_gpu2")
    frame = measures.measured(load_runs(tmp_path))
    with pytest.raises(RunsError, match=r"host · .*\(1 measured, 1 estimated\).*--mixed"):
        measures.check_qualities(frame)
    measures.check_qualities(frame[frame["scheduler"] == "lws"])


def test_without_a_finished_trial_there_is_a_message(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"seconds": (), "joules": (), "accuracies": (), "tasks": False, "power": False}
    write_run(tmp_path, "eager", status="failed", error="killed by SIGSEGV", **nothing)
    write_run(tmp_path, "lws", status="failed", error="killed by SIGKILL", **nothing)
    write_run(tmp_path, "ws", status="running", **nothing)
    with pytest.raises(RunsError, match=r"no trial finished.*2 failed, 1 running.*killed by SIGSEGV"):
        measures.measured(load_runs(tmp_path))


def test_what_is_left_out_has_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path, "eager")
    write_run(tmp_path, "lws", status="failed", error="NaN")
    write_run(tmp_path, "ws", changes={"record_version": 0})
    write_run(tmp_path, "prio", status="running")
    out = measures.left_out(load_runs(tmp_path)).set_index("scheduler")["reason"]
    assert out["lws"] == "NaN"
    assert "version 0" in out["ws"]
    assert out["prio"] == "status: running"
    assert len(out) == 3


def test_variants_are_in_the_order_of_their_joules(tmp_path: Path) -> None:
    for scheduler, joules in (("eager", 30.0), ("lws", 10.0), ("ws", 20.0)):
        write_run(tmp_path, scheduler, joules=(joules,), seconds=(1.0,), accuracies=(0.5,))
    assert tables(tmp_path)[0].index.tolist() == ["lws", "ws", "eager"]


def test_the_front_is_what_no_other_variant_beats() -> None:
    frame = pd.DataFrame(
        {
            "label": list("abcde"),
            "seconds_per_epoch": [1, 2, 3, 4, 2.5],
            "joules_per_epoch": [9, 5, 6, 1, np.nan],
        }
    )
    assert statistics.front(frame)["label"].tolist() == ["a", "b", "d"]


def test_a_schedulers_parameter_is_a_factor_only_among_its_own_runs(tmp_path: Path) -> None:
    for weight in (0.5, 2.0):
        config = {"_target_": "schedulers.EagerEnergy", "wait_weight": weight}
        write_run(tmp_path, "eager_energy", scheduler_config=config)
    write_run(tmp_path, "eager")
    labels = measures.measured(load_runs(tmp_path))["label"].tolist()
    assert labels == ["eager_energy (wait_weight=0.5)", "eager_energy (wait_weight=2)", "eager"]
