"""The figures: texts that do not overlap, units, qualities, and what is drawn."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import Run, load_runs
from experiments.reporting import courses, measures, statistics, watts
from experiments.reporting.figures import (
    accuracy_joules,
    codelets,
    energy_time,
    gantt,
    joules_per_epoch,
    power_trace,
)
from experiments.reporting.figures.style import COLOURS, Draw, Size, as_data_uri, colour, drawn, marker, save
from tests.experiments.synthetic_runs import CHANNELS, write_run

SCHEDULERS = (
    "eager",
    "lws",
    "prio",
    "ws",
    "dmda",
    "dmdas",
    "heteroprio",
    "eager_energy",
    "hetero_energy",
    "edp",
)


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Draw]:
    """Every figure of ten variants with five runs each, three of them at a time almost the same; some of a long run."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    for seed in range(5):
        for place, scheduler in enumerate(SCHEDULERS):
            seconds = (0.09 + 0.004 * (place // 3) + 0.001 * generator.random(3)).tolist()
            joules = (2.4 + 0.05 * (place // 3) + 0.01 * generator.random(3)).tolist()
            write_run(folder, scheduler, seed=seed, seconds=seconds, joules=joules, accuracies=(0.6, 0.8, 0.85),
                      tasks=False, power=False)  # fmt: skip
    epochs = 60
    long = Run.load(
        write_run(
            folder / "long", seconds=(0.5,) * epochs, joules=(9.0,) * epochs, accuracies=(0.5,) * epochs
        )
    )
    runs = load_runs(folder / "20*")
    frame = measures.measured(runs)
    variants = statistics.medians(frame, seed=0, resamples=200)
    blocks, labels = courses.blocks(runs, frame), list(variants["label"])
    columns = [name for name in variants if str(name).startswith(("seconds_per_epoch", "joules_per_epoch"))]
    far, far_runs = variants.copy(), frame.copy()
    for table in (far, far_runs):
        slow = table["label"] == "edp"
        own = [name for name in columns if name in table]
        table.loc[slow, own] = 60 * table.loc[slow, own]
        table["label"] += " (dataset.train_size=640, energy.rate_hz=10000, learning_rate=0.02)"
    long_names = blocks.assign(
        label=blocks["label"] + " (dataset.train_size=640, energy.rate_hz=10000, learning_rate=0.02)"
    )
    course = courses.accuracy_by_joules(runs, blocks, courses.representatives(frame))
    return {
        "energy_time": partial(energy_time.draw, variants, frame),
        "energy_time_far": partial(energy_time.draw, far, far_runs),
        "joules_per_epoch": partial(joules_per_epoch.draw, blocks, labels),
        "joules_of_one_epoch": partial(joules_per_epoch.draw, blocks[blocks["epoch"] == 1], labels),
        "joules_of_long_names": partial(joules_per_epoch.draw, long_names, list(far["label"])),
        "one_epoch_of_long_names": partial(
            joules_per_epoch.draw, long_names[long_names["epoch"] == 1], list(far["label"])
        ),
        "accuracy_joules": partial(accuracy_joules.draw, course, labels, 0.85),
        "power_trace": partial(power_trace.draw, long),
        "gantt": partial(gantt.draw, long),
        "codelets": partial(codelets.draw, long),
    }


NAMES = (
    "energy_time",
    "energy_time_far",
    "joules_per_epoch",
    "joules_of_one_epoch",
    "joules_of_long_names",
    "one_epoch_of_long_names",
    "accuracy_joules",
    "power_trace",
    "gantt",
    "codelets",
)


def texts(figure: Figure) -> list[Text]:
    """Every text that can be seen."""
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden: list[Text] = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            hidden += [
                label
                for tick in ticks
                for label in (tick.label1, tick.label2)
                if not (tick.get_visible() and low - slack <= tick.get_loc() <= high + slack)
            ]
    return [text for text in found if not any(text is other for other in hidden)]


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("name", NAMES)
def test_no_text_covers_another_or_is_cut_off(draws: dict[str, Draw], name: str, size: Size) -> None:
    figure = drawn(draws[name], size)
    figure.draw_without_rendering()
    # Not the annotation's own extent, which holds the line that leads to it.
    boxes = {text: Text.get_window_extent(text) for text in texts(figure)}
    assert len(boxes) > 5
    for one, other in combinations(boxes, 2):
        a, b = boxes[one], boxes[other]
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert not (wide > 0.5 and high > 0.5), f"{one.get_text()!r} and {other.get_text()!r}"
    for text, box in boxes.items():
        inside = (
            box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        )
        assert inside, f"{text.get_text()!r} is cut off"


UNITS = (
    "(s)",
    "(ms)",
    "(s, measured)",
    "(J, estimated)",
    "(W, estimated)",
    "(W,\nestimated)",
    "(share of images)",
)
COUNTED = ("epoch", "worker", "codelet", "")
"""Axes of names and numbers, which have no unit; the shared one of the Gantt chart says nothing."""


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_has_its_unit_and_every_figure_its_quality(draws: dict[str, Draw], name: str) -> None:
    figure = drawn(draws[name], "wide")
    for axes in figure.axes:
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert label in COUNTED or label.endswith(UNITS), label
    said = figure.get_supxlabel()
    assert "estimated: real activity" in said or "Times are measured." in said


def test_variants_are_told_apart_by_colour_and_marker() -> None:
    assert len({(colour(place), marker(place)) for place in range(72)}) == 72


def test_colours_differ_in_brightness_or_hue_for_readers_without_red_and_green() -> None:
    """Their distances after simulated deuteranopia (Machado et al. 2009, severity 1) stay clear of zero."""
    deutan = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    rgb = np.array([[int(tone[at : at + 2], 16) / 255 for at in (1, 3, 5)] for tone in COLOURS])
    seen = np.clip(rgb**2.2 @ deutan.T, 0, 1) ** (1 / 2.2)
    for one, other in combinations(range(len(COLOURS)), 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.12, (COLOURS[one], COLOURS[other])


def test_a_figure_is_written_as_png_and_pdf_and_has_the_same_bytes_again(
    draws: dict[str, Draw], tmp_path: Path
) -> None:
    png, pdf = save(draws["codelets"], tmp_path / "x")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    again = save(draws["codelets"], tmp_path / "y")
    assert [path.read_bytes() for path in again] == [png.read_bytes(), pdf.read_bytes()]
    assert as_data_uri(draws["codelets"], "narrow") == as_data_uri(draws["codelets"], "narrow")


def test_watts_add_up_over_channels_and_epochs(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, seconds=(2.0, 1.0), joules=(60.0, 10.0)))
    channels, total = watts.total_steps(run)
    assert set(channels) == set(CHANNELS)
    assert np.sum(np.diff(total.edges_s) * total.watts) == pytest.approx(70.0)
    assert total.watts[:10] == pytest.approx(30.0)
    assert total.watts[-10:] == pytest.approx(10.0)


def test_watts_have_a_gap_where_a_reading_is_missing_or_a_channel_paused() -> None:
    power = pd.DataFrame(
        {
            "channel": "cpu",
            "time_s": [1.0, 2.0, 3.0, 9.0, 10.0],
            "joules": [np.nan, 5.0, np.nan, 7.0, 7.0],
            "watts": [np.nan, 5.0, np.nan, 7.0, 7.0],
        }
    )
    steps = watts.channel_steps(power, "cpu")
    at = np.array([1.5, 2.5, 5.0, 8.5, 9.5])
    found = steps.watts[np.searchsorted(steps.edges_s, at) - 1]
    assert np.array_equal(found, [5.0, np.nan, np.nan, 7.0, 7.0], equal_nan=True)


def test_the_idle_watts_are_those_of_the_channels_that_count(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, seconds=(2.0, 2.0), joules=(60.0, 60.0)))
    assert watts.idle_watts(run) is None, "nobody measured the idle machine"
    run.windows["idle_j"] = np.where(run.windows["channel"] == CHANNELS[0], 30.0, 2.0)
    assert watts.idle_watts(run) == 16.0


def test_a_long_epoch_is_shown_by_its_first_tasks() -> None:
    tasks = pd.DataFrame({"window": "epoch", "epoch": [1, 2, 2, 2], "start_s": [0.0, 3.0, 1.0, 2.0]})
    shown, words = gantt.stretch(tasks, 2)
    assert shown["start_s"].tolist() == [1.0, 2.0]
    assert words == "The first 2 of the 3 tasks of epoch 2."
    assert gantt.stretch(tasks, 3)[1] == "Epoch 2, 3 tasks."


def test_busy_time_is_summed_by_worker_or_by_kind_of_worker() -> None:
    tasks = pd.DataFrame(
        {
            "window": ["epoch", "epoch", "epoch", "evaluation"],
            "codelet": ["relu", "conv2d", "conv2d", "conv2d"],
            "worker": [0, 0, 1, 0],
            "start_s": [0.0, 1.0, 0.0, 5.0],
            "end_s": [1.0, 1.5, 4.0, 9.0],
        }
    )
    seconds, counts = codelets.by_place(tasks, ["CPU 0", "CUDA 0.0 (Tesla V100 15.7 GiB)"])
    assert seconds.to_dict("index") == {
        "conv2d": {"CPU 0": 0.5, "CUDA 0.0": 4.0},
        "relu": {"CPU 0": 1.0, "CUDA 0.0": 0.0},
    }
    assert counts.to_dict() == {"conv2d": 2, "relu": 1}
    many, _ = codelets.by_place(tasks, [f"CPU {n}" for n in range(20)])
    assert many.to_dict("index") == {"conv2d": {"CPU workers": 4.5}, "relu": {"CPU workers": 1.0}}


def test_values_that_differ_tenfold_have_a_logarithmic_axis(draws: dict[str, Draw]) -> None:
    scales = {
        name: drawn(draws[name], "wide").axes[0].get_xscale() for name in ("energy_time", "energy_time_far")
    }
    assert scales == {"energy_time": "linear", "energy_time_far": "log"}
