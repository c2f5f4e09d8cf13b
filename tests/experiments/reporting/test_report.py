"""The command, its tables and its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import Run, load_runs, noise, report
from experiments.progress import NOTHING
from experiments.reporting import sections
from experiments.runs import Runs
from tests.experiments.synthetic_runs import write_run

QUICK = ("--resamples", "200")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on three variants, one of them PyTorch's, with a failed trial and a folder that is no run."""
    folder = tmp_path_factory.mktemp("runs") / "schedulers_on_host"
    for seed in range(5):
        for scheduler, joules in (("eager", 60.0), ("eager_energy", 48.0)):
            own = (joules + seed, joules - seed)
            write_run(folder, scheduler, seed=seed, joules=own, tasks=seed == 0)
        write_run(folder, "torch", seed=seed, tasks=False, power=False, changes={"framework": "torch"})
    write_run(folder, "dmda", status="failed", error="killed by <SIGSEGV> & co", seconds=(), joules=(),
              accuracies=(), tasks=False, power=False)  # fmt: skip
    (folder / "notes").mkdir()
    assert report.main([str(folder), str(folder / "notes"), *QUICK]) == 0
    return folder / "report"


class Page(HTMLParser):
    """What a page loads, its tags and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "srcset", "href", "data", "poster")
        ]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_holds_all_that_it_shows(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    page = Page(text)
    assert page.loaded, "there are figures"
    assert all(value.startswith("data:image/svg+xml;base64,") for value in page.loaded)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("img") == page.tags.count("source"), (
        "each figure is there for wide and narrow screens"
    )


def test_the_page_tells_of_every_variant_with_quality_framework_and_what_is_left_out(reported: Path) -> None:
    words = "\n".join(Page((reported / "report.html").read_text()).words)
    for said in (
        "eager_energy",
        "torch",
        "estimated: real activity of the workers x assumed watts",
        "95 % bootstrap interval of the median",
        "killed by <SIGSEGV> & co",
        "holds no summary.json: no folder of a run",
        "15 finished, 2 left out",
        "Against eager, eager_energy takes 20.0 % less energy and 0.0 % less time (medians of 5 pairs).",
    ):
        assert said in words, said


def test_tables_are_the_same_as_csv_and_as_parquet(reported: Path) -> None:
    for name in ("runs", "variants", "paired", "left_out"):
        csv, parquet = (
            pd.read_csv(reported / "tables" / f"{name}.csv"),
            pd.read_parquet(reported / "tables" / f"{name}.parquet"),
        )
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet) > 0
        for column in parquet.select_dtypes("float"):
            np.testing.assert_allclose(
                csv[column].to_numpy(float), parquet[column].to_numpy(float), rtol=1e-12
            )
    saved = pd.read_parquet(reported / "tables" / "paired.parquet").set_index("label").loc["eager_energy"]
    ratios = [np.mean([48 + s, 48 - s]) / np.mean([60 + s, 60 - s]) for s in range(5)]
    assert saved["energy_saved"] == pytest.approx(1 - np.median(ratios))


def test_every_figure_is_there_as_png_and_pdf(reported: Path) -> None:
    names = {path.name for path in (reported / "figures").iterdir()}
    expected = ["energy_time", "joules_per_epoch", "accuracy_joules"]
    expected += [f"run{n}_{kind}" for n in (1, 2) for kind in ("power", "gantt", "codelets")]
    assert names >= {"energy_time.png", "energy_time.pdf", "joules_per_epoch.png", "accuracy_joules.pdf"}
    assert {name.rpartition(".")[0] for name in names} <= set(expected)
    assert sum(name.endswith(".png") for name in names) == sum(name.endswith(".pdf") for name in names)


def compared(folder: Path, **asked: Any) -> tuple[Runs, report.Comparison]:
    """The tables, without any figure drawn."""
    runs = load_runs(folder)
    return runs, report.compare(runs, report.Asked(folder / "report", resamples=200, **asked))


def test_runs_without_tasks_are_looked_at_as_far_as_they_go(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, "torch", tasks=False, power=False, changes={"framework": "torch"})
    title, figures, absent = sections.closer(Run.load(run_dir), "torch", "")
    assert title == f"torch: {run_dir.name}"
    assert figures == ()
    assert absent == ("No power trace was recorded.", "No trace of tasks: PyTorch has none.")


def test_a_repeated_simulation_is_shown_without_an_interval(tmp_path: Path) -> None:
    for scheduler in ("eager", "lws"):
        for _ in range(6):
            write_run(
                tmp_path, scheduler, quality="simulated", simulated=True, platform="cpu8_gpu2", tasks=False
            )
    _, found = compared(tmp_path)
    assert found.variants["spread"].tolist() == ["exact", "exact"]
    assert found.variants["joules_per_epoch_low"].isna().all()
    table = sections.variants_table(found.variants)
    assert "Simulated without noise: a repeat has the same digits, so there is no spread." in table.notes
    assert not any("(" in cell for row in table.rows for cell in row)
    assert found.paired is not None
    assert found.paired["spread"].tolist() == ["exact"]


def test_mixed_qualities_are_refused_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "eager", quality="measured")
    write_run(tmp_path, "lws", quality="estimated")
    assert report.main([str(tmp_path), *QUICK]) == 2
    assert "of different qualities (1 measured, 1 estimated)" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    _, found = compared(tmp_path, mixed=True)
    table = sections.variants_table(found.variants)
    assert [row[table.heads.index("joules are")] for row in table.rows] == ["measured", "estimated"]
    assert found.paired is not None
    assert "Energy is estimated and measured." in sections.paired_table(found.paired).notes[1]


def test_several_settings_have_sections_and_files_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, "eager", tasks=False)
    write_run(tmp_path, "eager", quality="simulated", simulated=True, platform="cpu8_gpu2")
    first, second = report.sections_of(*compared(tmp_path), report.Asked(tmp_path, noise=tmp_path / "none"))
    assert first.title == "host · basic_cnn · synthetic"
    assert second.title == "cpu8_gpu2 · basic_cnn · synthetic"
    assert {figure.name[:2] for figure in first.figures} == {"1_"}
    assert {figure.name for _, figures, _ in second.closer for figure in figures} == {
        "2_run1_power",
        "2_run1_gantt",
        "2_run1_codelets",
    }


@pytest.mark.parametrize(
    ("folder", "said"),
    [("nowhere", "there is no such folder"), ("empty", "no run in there"), ("failed", "no trial finished"),
     ("old", "no trial finished")],
)  # fmt: skip
def test_folders_that_have_nothing_to_compare_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "failed", status="failed", error="NaN")
    write_run(tmp_path / "old", changes={"record_version": 0})
    assert report.main([str(tmp_path / folder)]) == 2
    shown = capsys.readouterr().err
    assert re.search(rf"^error: .*{said}", shown, re.MULTILINE), shown
    assert ("version 0 of the records" in shown) == (folder == "old")


def test_a_noise_floor_of_this_machine_stands_with_its_comparison(tmp_path: Path) -> None:
    """From values that are 10 J and 12 J, single runs differ by 2 of 10 in a quarter of all draws."""
    runs = load_runs(write_run(tmp_path / "trials").parent)
    found = report.compare(runs, report.Asked(tmp_path))
    by_folder = {str(run.path): run for run in runs}
    machine = noise.machine_of(runs[0].environment)
    what = {"model": "basic_cnn", "scheduler": "eager", "epochs": 2}
    floor = noise.NoiseFloor(machine, what, "estimated", 5, 0, {"joules_per_epoch": [10.0, 12.0]}, {})
    (said,) = report.noise_words([floor], found.runs, by_folder)
    assert "single runs that differ by less than 20 % in joules show nothing" in said
    (said,) = report.noise_words([], found.runs, by_folder)
    assert said.startswith("The noise floor of the machine is not known")
    simulated = found.runs.assign(simulated=True)
    assert report.noise_words([floor], simulated, by_folder) == []


def test_runs_that_other_work_disturbed_are_counted(tmp_path: Path) -> None:
    for disturbed in (True, False, None):
        write_run(tmp_path, "eager", changes={"disturbed": disturbed})
    _, found = compared(tmp_path)
    assert sections.disturbed_words(found.runs) == [
        "1 of 3 runs were disturbed by other work on the machine."
    ]
    assert sections.disturbed_words(found.runs[1:]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0593512, "0.05935"), (1234.567, "1235"), (123456.7, "123,457"), (12.0, "12.00"), (np.nan, NOTHING)],
)
def test_numbers_have_four_digits_that_count(value: float, text: str) -> None:
    assert sections.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+12.3 %"), (-0.0004, "-0.0 %"), (52.744, "+5,274 %"), (np.nan, NOTHING)]
)
def test_shares_are_percent_with_a_sign(value: float, text: str) -> None:
    assert sections.percent(value).replace("\u00a0", " ") == text


def test_a_difference_that_the_runs_do_not_show_is_called_so(tmp_path: Path) -> None:
    for seed, factor in enumerate((0.8, 0.9, 0.95, 1.1, 1.2)):
        write_run(tmp_path, "eager", seed=seed, tasks=False)
        write_run(tmp_path, "lws", seed=seed, joules=(60 * factor, 60 * factor), tasks=False)
    _, found = compared(tmp_path)
    said = sections.sentences(found.variants, found.paired)
    assert "Against eager, lws takes 5.0 % less energy and 0.0 % less time (medians of 5 pairs)." in said
    assert "The interval of that energy holds no change at all: the runs do not show a difference." in said


CHROMIUM: Any = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt install chromium)")
@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_page_fits_a_phone_and_a_desktop(reported: Path, tmp_path: Path, width_px: int) -> None:
    shot = tmp_path / "shot.png"
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}",
        f"--window-size={width_px},7000",
        f"--screenshot={shot}",
        f"file://{reported / 'report.html'}",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == width_px
    margin_px = 10
    assert (pixels[:, -margin_px:] == 255).all(), "nothing reaches over the right margin"
    assert (pixels[:, :margin_px] == 255).all()
    assert (pixels[:, margin_px:-margin_px] < 128).any(axis=1).sum() > 500, "there is something on it"
