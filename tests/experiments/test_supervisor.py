from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.supervisor import Outcome, log_tail, supervise
from tests.experiments.conftest import is_alive, stand_in, wait_for, when


@pytest.fixture
def ran(tmp_path: Path, environment: dict[str, str]) -> Any:
    """Supervises a stand-in; returns the outcome and the events."""

    def run(way: str, grace_s: float = 10.0) -> tuple[Outcome, list[dict[str, Any]]]:
        events: list[dict[str, Any]] = []
        outcome = supervise(
            stand_in(way, tmp_path), tmp_path, events.append, environment=environment, grace_s=grace_s
        )
        return outcome, events

    return run


def test_a_trial_that_finishes_hands_over_its_result(ran: Any) -> None:
    outcome, events = ran("finish")
    assert (outcome.status, outcome.error, outcome.stopped_by) == ("finished", None, None)
    assert outcome.result["weights_sha256"] == "ab" * 32
    assert [event["event"] for event in events] == [
        "started",
        "epoch_start",
        "batch",
        "epoch_end",
        "finished",
    ]


@pytest.mark.parametrize(
    ("way", "cause"),
    [
        ("segfault", "killed by SIGSEGV"),
        ("abort", "killed by SIGABRT"),
        ("exit_3", "exit status 3"),
        ("fail", "train-images.gz: ends after 12 bytes"),
        ("kill_itself", "killed by SIGKILL (out of memory, or a kill from outside)"),
        ("segfault_at_the_end", "killed by SIGSEGV after the last epoch, while it was shutting down"),
        (
            "leave_without_a_word",
            "exit status 0, but without a result: something in the trial ended the process early",
        ),
    ],
)
def test_a_trial_that_dies_is_a_failed_one_with_its_cause(ran: Any, way: str, cause: str) -> None:
    outcome, _ = ran(way)
    assert (outcome.status, outcome.error) == ("failed", cause)


def test_what_the_trial_printed_is_in_its_log(ran: Any, tmp_path: Path) -> None:
    ran("finish")
    assert sorted(log_tail(tmp_path)) == ["a line on stderr", "a line on stdout"]


def test_a_line_that_is_no_event_goes_to_the_log_and_a_torn_one_is_dropped(ran: Any, tmp_path: Path) -> None:
    outcome, events = ran("write_rubbish")
    assert [event["event"] for event in events] == ["started"]
    assert "supervisor: unreadable event: not json" in log_tail(tmp_path)
    assert outcome.error == "exit status 3"


def test_no_event_is_lost_in_a_flood(ran: Any) -> None:
    outcome, events = ran("flood")
    assert outcome.status == "finished"
    assert sum(event["event"] == "notice" for event in events) == 5000


def test_what_a_trial_started_ends_with_it(ran: Any, tmp_path: Path) -> None:
    started_s = time.monotonic()
    outcome, _ = ran("leave_a_child")
    assert outcome.status == "finished"
    assert time.monotonic() - started_s < 20, "it waited for the pipe that the grandchild holds"
    wait_for(lambda: not is_alive(int((tmp_path / "grandchild").read_text())))


def test_the_first_ctrl_c_lets_a_trial_end_by_itself(ran: Any, tmp_path: Path) -> None:
    when((tmp_path / "hanging").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome, _ = ran("stop_politely")
    assert (outcome.status, outcome.error) == ("interrupted", "interrupted by SIGINT")
    assert outcome.stopped_by == signal.SIGINT
    assert (tmp_path / "polite").exists()


def test_after_the_grace_period_comes_sigterm(ran: Any, tmp_path: Path) -> None:
    when((tmp_path / "hanging").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome, _ = ran("ignore_sigint", grace_s=0.3)
    assert outcome.error == "interrupted by SIGINT; did not stop within 0.3 s"
    assert (tmp_path / "sigint").read_text() == "once"


def test_a_trial_that_ignores_every_signal_is_killed(ran: Any, tmp_path: Path) -> None:
    when((tmp_path / "hanging").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome, _ = ran("ignore_everything", grace_s=0.3)
    assert outcome.error == "interrupted by SIGINT; did not stop within 0.3 s; killed"


def test_the_second_ctrl_c_kills_at_once(ran: Any, tmp_path: Path) -> None:
    when((tmp_path / "hanging").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    when((tmp_path / "sigint").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    started_s = time.monotonic()
    outcome, _ = ran("ignore_everything", grace_s=30)
    assert outcome.error == "interrupted by SIGINT; killed at once"
    assert time.monotonic() - started_s < 20


def test_sigterm_interrupts_as_ctrl_c_does(ran: Any, tmp_path: Path) -> None:
    when((tmp_path / "hanging").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome, _ = ran("stop_politely")
    assert (outcome.status, outcome.error) == ("interrupted", "interrupted by SIGTERM")
    assert (tmp_path / "polite").exists()


def test_signals_mean_afterwards_what_they_meant_before(ran: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ran("finish")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_trial_does_not_outlive_a_supervisor_that_was_killed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    script = (
        "import os, sys, pathlib; from experiments.supervisor import supervise; "
        "supervise(sys.argv[2:], pathlib.Path(sys.argv[1]), print, environment=os.environ)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *stand_in("hang", tmp_path)],
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as parent:
        wait_for((tmp_path / "hanging").exists)
        child = int((tmp_path / "pid").read_text())
        assert is_alive(child)
        parent.kill()
    wait_for(lambda: not is_alive(child))
