"""The search for settings, with stand-ins for its trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import run, search
from tests.experiments.conftest import stand_in

SPACE = "search.space={scheduler: [eager, lws, edp], batch_size: {low: 16, high: 256, log: true}}"


def took(config: dict[str, Any]) -> tuple[float, float]:
    """Large mini-batches are fast and hot; eager takes twice the joules of the others, and as long."""
    batch = config["batch_size"]
    return batch * (2.0 if config["choices"]["scheduler"] == "eager" else 1.0), 1.0 / batch


class Trials:
    """Stand-ins for runs: what they take is known, and one of them is cut off."""

    def __init__(self, folder: Path, cut_at: int | None = None) -> None:
        self.folder, self.cut_at = folder, cut_at
        self.settings: list[tuple[str, int]] = []

    def run(self, config: dict[str, Any], _folder: Path) -> tuple[Path, str | None]:
        if self.cut_at == len(self.settings):
            raise KeyboardInterrupt
        self.settings.append((config["choices"]["scheduler"], config["batch_size"]))
        joules, seconds = took(config)
        run_dir = self.folder / "stand-in" / str(len(self.settings))
        run_dir.mkdir(parents=True, exist_ok=True)
        summary = {"joules_per_epoch": joules, "seconds_per_epoch": seconds, "energy_quality": "simulated"}
        (run_dir / "summary.json").write_text(json.dumps(summary))
        return run_dir, None


@pytest.fixture
def base(tmp_path: Path) -> dict[str, Any]:
    """What the overrides of `tried` compose to: composing takes longer than all else here."""
    return search.composed(["platform=cpu8_gpu2"])


def tried(
    monkeypatch: pytest.MonkeyPatch,
    base: dict[str, Any],
    folder: Path,
    *arguments: str,
    cut_at: int | None = None,
) -> tuple[Trials, int]:
    trials = Trials(folder, cut_at)

    def composed(overrides: list[str]) -> dict[str, Any]:
        given = dict(override.split("=", 1) for override in overrides)
        choices = base["choices"] | {key: given[key] for key in ("scheduler",) if key in given}
        batch = int(given.get("batch_size", 64))
        return {**base, "output": str(folder), "choices": choices, "batch_size": batch}

    monkeypatch.setattr(search, "composed", composed)
    monkeypatch.setattr(search, "_recorded_run", trials.run)
    own = ["platform=cpu8_gpu2", f"output={folder}", SPACE, "search.population=4", *arguments]
    return trials, search.main(own)


@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_the_front_is_what_no_other_trial_beats_in_both(
    monkeypatch: pytest.MonkeyPatch, base: dict[str, Any], tmp_path: Path, sampler: str
) -> None:
    trials, status = tried(monkeypatch, base, tmp_path, "search.trials=24", f"search.sampler={sampler}")
    assert (status, len(trials.settings)) == (0, 24)
    points = json.loads((tmp_path / "search/search.json").read_text())["points"]
    values = [(point["joules_per_epoch"], point["seconds_per_epoch"]) for point in points]
    for point, (joules, seconds) in zip(points, values, strict=True):
        beaten = any(j <= joules and s <= seconds and (j, s) != (joules, seconds) for j, s in values)
        repeated = (joules, seconds) in values[: point["number"]]
        assert point["front"] == (not beaten and not repeated)


@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch, base: dict[str, Any], tmp_path: Path, sampler: str
) -> None:
    own = ("search.trials=16", f"search.sampler={sampler}")
    whole, _ = tried(monkeypatch, base, tmp_path / "whole", *own)
    again, _ = tried(monkeypatch, base, tmp_path / "again", *own)
    assert again.settings == whole.settings, "the seed decides"
    with pytest.raises(KeyboardInterrupt):
        tried(monkeypatch, base, tmp_path / "cut", *own, cut_at=9)
    rest, status = tried(monkeypatch, base, tmp_path / "cut", *own)
    assert status == 0
    assert rest.settings == whole.settings[9:]
    other, _ = tried(monkeypatch, base, tmp_path / "other", *own, "search.seed=1")
    assert other.settings != whole.settings
    more, _ = tried(monkeypatch, base, tmp_path / "cut", "search.trials=18", own[1])
    assert len(more.settings) == 2


def test_every_trial_is_a_run_like_any_other_and_one_that_crashes_is_not_on_the_front(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "TRIAL_COMMAND", stand_in("by_seed", tmp_path)[:-1])
    space = "search.space={seed: [0, 1, 4]}"
    assert search.main(["platform=cpu8_gpu2", f"output={tmp_path}", space, "search.trials=8"]) == 0
    points = json.loads((tmp_path / "search/search.json").read_text())["points"]
    assert len(points) == 8
    found = {path.parent: json.loads(path.read_text()) for path in tmp_path.glob("search/*/summary.json")}
    assert {str(path) for path in found} == {point["run"] for point in points}
    assert len(found) == len({point["settings"]["seed"] for point in points}), "a simulation is not run twice"
    for point in points:
        crashed = point["settings"]["seed"] == 1
        assert (point["error"] == "killed by SIGSEGV") == crashed
        assert (point["joules_per_epoch"] is None) == crashed
        assert not (crashed and point["front"])
    assert "seed=1: failed: killed by SIGSEGV" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["search.foo=1"], "error: unknown key 'search.foo'; there are: space, trials"),
        (["search.trials=0"], "error: search.trials=0: must be a whole number, at least 1"),
        (["search.sampler=grid"], "error: search.sampler=grid: must be one of nsga2, tpe"),
        (["search.space={}"], "error: search.space={}: must be values by key"),
        (["search.space={tile: 8}"], "error: search.space.tile=8: must be a list of values, or"),
        (
            ["search.space={tile: {low: 9, high: 8}}"],
            "error: search.space.tile={'low': 9, 'high': 8}: must be",
        ),
        (["search.space={scheduler: [foo]}"], "error: unknown scheduler 'foo'; there are: "),
        (["search.space={tiles: [8]}"], "error: unknown key 'tiles'; there are: "),
        (["platform=foo"], "error: unknown platform 'foo'; there are: "),
        (["seed=-1"], "error: seed=-1: must be"),
    ],
)
def test_a_search_that_cannot_be_says_so(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(["platform=cpu8_gpu2", f"output={tmp_path}", *arguments]) == 2
    assert capsys.readouterr().err.startswith(line)
