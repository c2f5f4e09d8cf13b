"""`scripts/allow-rapl` on a folder in place of /, with commands that only root may run replaced by a record of them."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.energy.powercap import laptop

SCRIPT = Path(__file__).parents[2] / "scripts" / "allow-rapl"
RECORDED = ("chgrp", "groupadd", "groupdel", "udevadm", "usermod")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root folder with RAPL's zones as the kernel leaves them, and no group `rapl`."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/group").write_text("root:x:0:\n")
    for counter in laptop(root / "sys/class/powercap").glob("*/energy_uj"):
        counter.chmod(0o400)
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in RECORDED:
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/record"\n')
        (commands / name).chmod(0o755)
    return root


def run(root: Path, *arguments: str, code: int = 0) -> str:
    environment = {"PATH": f"{root.parent / 'commands'}:{os.environ['PATH']}"}
    ended = subprocess.run(
        [SCRIPT, "--root", str(root), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def record(root: Path) -> list[str]:
    path = root.parent / "record"
    return path.read_text().splitlines() if path.exists() else []


def modes(root: Path) -> set[str]:
    return {stat.filemode(path.stat().st_mode) for path in (root / "sys/class/powercap").glob("*/energy_uj")}


def test_a_group_may_read_the_counters_now_and_after_a_boot_and_nobody_else(machine: Path) -> None:
    run(machine, "--user", "ada")
    assert modes(machine) == {"-r--r-----"}
    done = record(machine)
    assert done[:2] == [
        f"groupadd --system --prefix {machine} rapl",
        f"usermod --prefix {machine} --append --groups rapl ada",
    ]
    assert sorted(done[2:]) == sorted(
        f"chgrp rapl {counter}" for counter in (machine / "sys/class/powercap").glob("*/energy_uj")
    )
    rule = (machine / "etc/udev/rules.d/60-rapl.rules").read_text()
    assert 'SUBSYSTEM=="powercap"' in rule
    assert "chgrp rapl %S%p/energy_uj && chmod 0440 %S%p/energy_uj" in rule


def test_undo_leaves_the_machine_as_it_was(machine: Path) -> None:
    run(machine, "--user", "ada")
    (machine / "etc/group").write_text("root:x:0:\nrapl:x:999:ada\n")
    (machine.parent / "record").unlink()
    run(machine, "--undo")
    assert modes(machine) == {"-r--------"}
    assert not (machine / "etc/udev/rules.d/60-rapl.rules").exists()
    done = record(machine)
    assert done[-1] == f"groupdel --prefix {machine} rapl"
    assert {line.split()[1] for line in done[:-1]} == {"0"}


def test_undo_keeps_a_group_that_was_there_for_something_else(machine: Path) -> None:
    (machine / "etc/group").write_text("staff:x:50:\n")
    run(machine, "--group", "staff")
    run(machine, "--undo", "--group", "staff")
    assert not [line for line in record(machine) if line.startswith(("groupadd", "groupdel"))]


@pytest.mark.parametrize("arguments", [["--user", "ada"], ["--undo"]])
def test_a_dry_run_prints_the_commands_and_runs_none(machine: Path, arguments: list[str]) -> None:
    shown = run(machine, "--dry-run", *arguments)
    assert "chgrp" in shown
    assert "60-rapl.rules" in shown
    assert record(machine) == []
    assert modes(machine) == {"-r--------"}
    assert not (machine / "etc/udev").exists()


def test_a_second_call_changes_nothing_more(machine: Path) -> None:
    run(machine)
    before = (machine / "etc/udev/rules.d/60-rapl.rules").read_text()
    run(machine)
    assert (machine / "etc/udev/rules.d/60-rapl.rules").read_text() == before
    assert modes(machine) == {"-r--r-----"}
    run(machine, "--undo")
    run(machine, "--undo")


def test_a_machine_without_counters_is_told_so_and_left_alone(tmp_path: Path, machine: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert "there are no counters" in run(tmp_path / "bare", code=1)
    assert record(machine) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grop", "x"], "unknown option --grop"),
        (["--group"], "--group needs a value"),
        (["--group", "a b; rm"], "is no name of a group"),
        (["--user", "$(id)"], "is no name of a user"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_done(
    machine: Path, arguments: list[str], told: str
) -> None:
    assert told in run(machine, *arguments, code=1)
    assert record(machine) == []
    assert modes(machine) == {"-r--------"}


def test_help_says_what_it_opens_and_what_else_could_be_done(machine: Path) -> None:
    shown = run(machine, "--help")
    for word in ("CVE-2020-8694", "--undo", "cap_perfmon", "perf_event_paranoid", "chmod a+r"):
        assert word in shown


def test_a_failing_command_stops_it(machine: Path) -> None:
    (machine.parent / "commands/usermod").write_text("#!/bin/sh\nexit 6\n")
    assert "failed: usermod" in run(machine, "--user", "nobody-such", code=1)
    assert modes(machine) == {"-r--------"}
