from __future__ import annotations

import io

from rich.console import Console

from experiments.bar import Bar


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, color_system=None), out


def test_text_in_square_brackets_is_shown_as_it_is() -> None:
    where, out = console(terminal=True)
    bar = Bar(where, counted=True)
    bar.start("tile [16]", "starting", total=4)
    bar.show("tile [red]32", "conv2d[dw] 12 us", 3, 4)
    bar.stop()
    assert "tile [16]" in out.getvalue()
    last = out.getvalue().split("starting")[-1]
    assert "tile [red]32" in last
    assert "3/4 conv2d[dw] 12 us" in last


def test_nothing_is_written_where_there_is_no_terminal() -> None:
    where, out = console(terminal=False)
    bar = Bar(where)
    bar.start("epoch 1/2")
    assert not bar.shown
    bar.show("epoch 1/2", "500 images/s", 1, 2)
    bar.stop()
    assert out.getvalue() == ""


def test_it_is_shown_between_start_and_stop_only() -> None:
    bar = Bar(console(terminal=True)[0])
    assert not bar.shown
    bar.start("starting")
    assert bar.shown
    bar.stop()
    assert not bar.shown
