from __future__ import annotations

import json
import os
import sys
import threading

import pytest

from experiments.events import EventReader, EventWriter, report_stderr


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def read_now(fd: int) -> list[dict[str, object]]:
    return EventReader().feed(os.read(fd, 1 << 20))


def test_an_event_arrives_as_it_was_sent(pipe: tuple[int, int]) -> None:
    EventWriter(pipe[1]).emit("evaluated", epoch=1, loss=float("nan"), accuracy=0.5, words="ä")
    (event,) = read_now(pipe[0])
    assert {key: event[key] for key in ("event", "epoch", "loss", "accuracy", "words")} == {
        "event": "evaluated",
        "epoch": 1,
        "loss": None,
        "accuracy": 0.5,
        "words": "ä",
    }


def test_batches_that_come_too_fast_are_dropped(pipe: tuple[int, int]) -> None:
    events = EventWriter(pipe[1], min_batch_interval_s=60)
    for images in range(100):
        events.batch(images=images)
    assert [event["images"] for event in read_now(pipe[0])] == [0]


def test_a_full_pipe_holds_up_no_batch_and_loses_no_other_event(pipe: tuple[int, int]) -> None:
    events = EventWriter(pipe[1], min_batch_interval_s=0)
    for _ in range(10_000):
        events.batch(text="x" * 100)  # returns, although nobody reads
    received: list[bytes] = []

    def read() -> None:
        while not (b'"last"' in b"".join(received) and received[-1].endswith(b"\n")):
            received.append(os.read(pipe[0], 1 << 16))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    events.emit("last", text="y" * 200_000)  # more than the pipe holds: it waits
    thread.join(20)
    lines = b"".join(received).splitlines()
    assert json.loads(lines[-1])["text"] == "y" * 200_000
    assert all(json.loads(line)["event"] == "batch" for line in lines[:-1])


def test_an_event_that_comes_in_pieces_is_one_event() -> None:
    reader = EventReader()
    assert reader.feed(b'{"event": "ba') == []
    assert reader.feed(b'tch"}\n{"event"') == [{"event": "batch"}]


def test_what_goes_to_stderr_is_shown_and_logged(
    pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with report_stderr(EventWriter(pipe[1]), "loading"):
        sys.stderr.write("\r 12%|##   | 3.6M/30M")
    (event,) = read_now(pipe[0])
    assert (event["event"], event["message"]) == ("loading", "12%|##   | 3.6M/30M")
    assert "3.6M/30M" in capsys.readouterr().err
