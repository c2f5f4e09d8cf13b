from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.progress import TrialDisplay, epoch_table, joules, quality_words, show_end
from experiments.supervisor import Outcome

STARTED = {
    "event": "started",
    "simulated": False,
    "workers": 2,
    "starpu": "1.4.10",
    "energy": "joules from assumed watts (estimated)",
    "images_per_epoch": 1000,
}


def row(**changes: Any) -> dict[str, Any]:
    known = {"epoch": 1, "images": 1000, "seconds": 2.0, "loss": 0.5, "accuracy": 0.875, "gross_j": 1234.5}
    return known | {"net_j": 200.0, "bound_j": 1.5, "quality": "measured", "resolvable": True} | changes


def shown(events: list[dict[str, Any]], *, terminal: bool, epochs: int = 2) -> tuple[str, TrialDisplay]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with TrialDisplay(console, "eager", epochs) as display:
        for event in events:
            display.take(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), display


def test_a_pipe_gets_plain_lines() -> None:
    batch = {"event": "batch", "epoch": 1, "images": 500, "seconds": 1.0, "loss": 0.7, "watts": 40.0}
    text, display = shown([STARTED, batch, {"event": "epoch_end", **row()}], terminal=False)
    assert text.splitlines() == [
        "eager",
        "2 workers · StarPU 1.4.10 · joules from assumed watts (estimated)",
        "epoch 1/2: 1,234.5 J (measured), 2.000 s, 500 images/s, loss 0.5000, test accuracy 0.8750",
    ]
    assert display.epochs == [row()]


def test_a_terminal_shows_rate_loss_watts_and_the_time_that_is_left() -> None:
    batch = {"event": "batch", "epoch": 2, "images": 500, "seconds": 1.0, "loss": 0.7, "watts": 40.0}
    text, _ = shown(
        [STARTED, {"event": "epoch_end", **row()}, {"event": "epoch_start", "epoch": 2}, batch],
        terminal=True,
    )
    # 1,500 of 2,000 images took 3 s.
    assert "500 images/s · loss 0.7000 · 40.0 W · 1 s left" in text
    assert "epoch 2/2" in text


def test_without_a_counter_the_watts_are_those_of_the_last_epoch() -> None:
    batch = {"event": "batch", "epoch": 2, "images": 500, "seconds": 1.0, "loss": 0.7, "watts": None}
    text, _ = shown([STARTED, batch, {"event": "epoch_end", **row(gross_j=30.0)}, batch], terminal=True)
    assert "loss 0.7000 · 3 s left" in text
    assert "loss 0.7000 · 15.0 W in the last epoch · 1 s left" in text


def test_a_simulation_says_so_and_has_dashes_for_loss_and_accuracy() -> None:
    simulated = row(loss=None, accuracy=None, quality="simulated")
    text, display = shown(
        [STARTED | {"simulated": True}, {"event": "epoch_end", **simulated}], terminal=False
    )
    assert "simulated · 2 workers" in text
    assert "loss –, test accuracy –" in text
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show_end(console, display, Outcome("finished", None, None, None), Path("/runs/x"), [])
    assert isinstance(console.file, io.StringIO)
    end = console.file.getvalue()
    assert end.splitlines()[0].strip() == "simulated"
    assert "joules are simulated: simulated activity of the workers x assumed watts" in end
    assert end.splitlines()[-1] == "records: /runs/x"


def test_what_was_not_recorded_is_a_dash_in_the_table_never_a_zero() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(epoch_table([row(gross_j=None, net_j=None, bound_j=None)], simulated=False))
    assert isinstance(console.file, io.StringIO)
    cells = [cell.strip() for cell in console.file.getvalue().splitlines()[-2].split("│")[1:-1]]
    assert cells == ["1", "–", "–", "–", "2.000", "500", "0.5000", "0.8750"]


def test_a_block_of_epochs_tells_its_joules_once_with_the_epochs_that_share_them() -> None:
    block = {
        "epoch": 1,
        "last_epoch": 2,
        "gross_j": 60.0,
        "net_j": 20.0,
        "bound_j": 0.5,
        "quality": "measured",
    }
    rows = [row(epoch=epoch, gross_j=None, net_j=None, bound_j=None, quality=None) for epoch in (1, 2)]
    events = [{"event": "window", "window": "epoch", "resolvable": False, **block}]
    text, display = shown(
        [STARTED, *events, *({"event": "epoch_end", **own} for own in rows)], terminal=False
    )
    told = [line.split(", 2.000")[0] for line in text.splitlines()[2:]]
    assert told == [
        "epoch 1/2: joules with epochs 1 to 2",
        "epoch 2/2: 60.0 J over epochs 1 to 2 (measured)",
    ]
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(epoch_table(display.epochs, display.blocks, simulated=False))
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:5]] for line in lines]
    assert cells == [["1", "–", "–", "–"], ["2 (1 to 2)", "60.0", "20.0", "0.500"]]
    assert quality_words(display.blocks)[-1].startswith("not resolvable in epochs 1 to 2:")


def test_epochs_too_short_for_the_counter_are_named() -> None:
    words = quality_words([row(), row(epoch=2, resolvable=False)])
    assert words == [
        "measured: read from hardware counters or sensors",
        "not resolvable in epochs 2: shorter than three periods of the counter",
    ]


def test_joules_keep_three_digits() -> None:
    assert [joules(value) for value in (None, 0.01234, 6.789, 30.0, 123.45)] == [
        "–",
        "0.0123",
        "6.79",
        "30.0",
        "123.5",
    ]
