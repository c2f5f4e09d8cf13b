"""`scripts/setup` with stand-ins for what it calls: here it neither installs nor builds anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.conftest import program

# Answers the probe of an interpreter, makes a virtual environment of copies of itself, and logs the rest.
_PYTHON = """
case "$*" in
    -) echo "@VERSION@" ;;
    --version) echo "Python @VERSION@" ;;
    "-m venv .venv")
        mkdir -p .venv/bin && cp "$0" .venv/bin/python
        echo "venv $(basename "$0")" >>"$STANDIN/calls" ;;
    "-m pip "*) echo "pip ${*: -4}" >>"$STANDIN/calls"; [ ! -e "$STANDIN/pip-fails" ] ;;
    *) echo "python $*" >>"$STANDIN/calls" ;;
esac
"""
_DPKG_QUERY = """
status=0
for name in "${@:3}"; do
    if [ -e "$STANDIN/packages/$name" ]; then printf 'installed\\n'; else status=1; fi
done
exit $status
"""
_APT_GET = """
echo "apt-get $*" >>"$STANDIN/calls"
[ "$1" = install ] || exit 0
for name in "$@"; do
    [ ! -e "$STANDIN/unknown/$name" ] || exit 100
    touch "$STANDIN/packages/${name#--}"
    [ "$name" != python3 ] || mv "$STANDIN/python3" "$STANDIN/bin/python3"
done
"""
_SYSTEM_TOOLS = (
    *(
        "awk",
        "basename",
        "bash",
        "cat",
        "cp",
        "cut",
        "dirname",
        "env",
        "flock",
        "grep",
        "mkdir",
        "mv",
        "readlink",
    ),
    *("rm", "sha256sum", "touch"),
)
PACKAGES = ("libboost-dev", "libhwloc-dev", "libsimgrid-dev", "dataset-fashion-mnist")


class Machine:
    """A machine of stand-ins: its user, its installed packages, its interpreter."""

    def __init__(self, home: Path, checkout: Path) -> None:
        self.home = home
        self.checkout = checkout
        self.bin = home / "bin"
        for folder in ("packages", "unknown"):
            (home / folder).mkdir(parents=True)
        for name in PACKAGES:
            (home / "packages" / name).touch()
        for tool in ("gcc", "g++", "make", "pkg-config", "tar", "xz"):
            program(self.bin, tool, "exit 0")
        program(self.bin, "dpkg-query", _DPKG_QUERY)
        program(self.bin, "apt-get", _APT_GET)
        self.user(0)
        self.python("python3", "3.11 1 1 /usr/bin/python3.11")
        for name in ("pyproject.toml", "requirements.lock"):
            (checkout / name).write_text("as released\n", encoding="utf-8")

    def user(self, uid: int, *, sudo: bool = False) -> None:
        """Who runs the script, and whether sudo asks for no password."""
        program(self.bin, "id", f"echo {uid}")
        program(self.bin, "sudo", '[ "$1" = -n ] && exit 0; "$@"' if sudo else "exit 1")

    def python(self, name: str, probed: str) -> None:
        """An interpreter: its version, whether it has venv and headers, and where it is."""
        program(self.bin, name, _PYTHON.replace("@VERSION@", probed))

    def remove(self, *names: str) -> None:
        """Take installed packages away."""
        for name in names:
            (self.home / "packages" / name).unlink()

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as nobody would at a terminal."""
        path = f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHON"}
        return subprocess.run(
            [self.checkout / "scripts" / "setup"],
            env={**inherited, "STANDIN": str(self.home), "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def calls(self) -> list[str]:
        """What was called since the last time this was asked."""
        file = self.home / "calls"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.write_text("", encoding="utf-8")
        return lines


STARPU = "python scripts/get-starpu --quiet"
PIP = "pip --constraint requirements.lock --editable .[dev]"
BINDINGS = ("python -m energy.build", "python -m dahl.starpu.build")


@pytest.fixture
def machine(tmp_path: Path, checkout: Path) -> Machine:
    return Machine(tmp_path / "machine", checkout)


def test_a_fresh_checkout_gets_starpu_packages_and_bindings_and_a_second_call_installs_nothing(
    machine: Machine,
) -> None:
    assert machine.setup().returncode == 0
    assert machine.calls() == [STARPU, "venv python3", PIP, *BINDINGS]
    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.calls() == [STARPU, *BINDINGS]


@pytest.mark.parametrize("file", ["pyproject.toml", "requirements.lock"])
def test_changed_requirements_are_installed_into_the_virtual_environment_that_is_there(
    machine: Machine, file: str
) -> None:
    machine.setup()
    machine.calls()
    (machine.checkout / file).write_text("edited\n", encoding="utf-8")
    machine.setup()
    assert machine.calls() == [STARPU, PIP, *BINDINGS]


def test_a_virtual_environment_whose_packages_failed_is_made_afresh(machine: Machine) -> None:
    (machine.home / "pip-fails").touch()
    failed = machine.setup()
    assert failed.returncode == 1
    assert failed.stderr == "setup: the Python packages could not be installed; log: .cache/logs/pip.log\n"
    (machine.home / "pip-fails").unlink()
    machine.calls()
    assert machine.setup().returncode == 0
    assert machine.calls() == [STARPU, "venv python3", PIP, *BINDINGS]


def test_a_virtual_environment_is_made_afresh_in_a_moved_checkout(machine: Machine, tmp_path: Path) -> None:
    machine.setup()
    machine.calls()
    machine.checkout = machine.checkout.rename(tmp_path / "moved")
    machine.setup()
    assert "venv python3" in machine.calls()


def test_another_interpreter_that_is_asked_for_is_taken_and_then_kept(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    machine.python("python3.12", "3.12 1 1 /usr/bin/python3.12")
    machine.setup(PYTHON="python3.12")
    assert "venv python3.12" in machine.calls()
    machine.setup(PYTHON="python3.12")
    machine.setup()
    assert machine.calls() == [STARPU, *BINDINGS] * 2


def test_without_root_one_line_names_what_is_missing_and_nothing_is_called(machine: Machine) -> None:
    machine.user(1000)
    machine.remove("libsimgrid-dev", "libhwloc-dev")
    failed = machine.setup()
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr == (
        "setup: these system packages are missing: libhwloc-dev libsimgrid-dev;"
        " install them as root with: apt-get install libhwloc-dev libsimgrid-dev\n"
    )
    assert machine.calls() == []


@pytest.mark.parametrize(("uid", "prefix"), [(0, ""), (1000, "sudo ")])
def test_missing_packages_are_installed_and_each_command_is_shown(
    machine: Machine, uid: int, prefix: str
) -> None:
    machine.user(uid, sudo=True)
    machine.remove("libsimgrid-dev")
    machine.python("python3", "3.13 0 0 /usr/bin/python3.13")
    done = machine.setup()
    assert done.returncode == 0
    shown = [line for line in done.stdout.splitlines() if line.startswith("+")]
    install = "apt-get install --yes --no-install-recommends python3.13-venv python3.13-dev libsimgrid-dev"
    assert shown == [f"+ {prefix}apt-get update", f"+ {prefix}env DEBIAN_FRONTEND=noninteractive {install}"]
    assert machine.calls()[:3] == ["apt-get update", install, STARPU]


def test_a_package_that_apt_cannot_install_stops_the_setup(machine: Machine) -> None:
    machine.remove("libsimgrid-dev")
    (machine.home / "unknown" / "libsimgrid-dev").touch()
    failed = machine.setup()
    assert failed.returncode == 1
    assert failed.stderr.endswith("missing: libsimgrid-dev; apt-get could not install them, see above\n")
    assert STARPU not in machine.calls()


def test_a_data_set_that_the_release_does_not_have_is_tried_once_and_does_no_harm(machine: Machine) -> None:
    machine.remove("dataset-fashion-mnist")
    (machine.home / "unknown" / "dataset-fashion-mnist").touch()
    first = machine.setup()
    assert first.returncode == 0
    assert "dataset-fashion-mnist is not to be had here" in first.stdout
    machine.calls()
    assert machine.setup().returncode == 0
    assert machine.calls() == [STARPU, *BINDINGS]


def test_without_root_a_missing_data_set_package_is_only_told(machine: Machine) -> None:
    machine.user(1000)
    machine.remove("dataset-fashion-mnist")
    done = machine.setup()
    assert done.returncode == 0
    assert "there is no root to do it" in done.stdout
    assert machine.calls() == [STARPU, "venv python3", PIP, *BINDINGS]


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    machine.python("old", "3.9 1 1 /usr/bin/python3.9")
    failed = machine.setup(PYTHON="old")
    assert failed.returncode == 1
    assert failed.stderr == (
        "setup: Python 3.11 or later is needed, but old is 3.9; set PYTHON to another interpreter\n"
    )
    assert machine.calls() == []


def test_the_first_interpreter_that_is_new_enough_is_taken(machine: Machine) -> None:
    machine.python("python3", "3.10 1 1 /usr/bin/python3.10")
    machine.python("python3.13", "3.13 1 1 /opt/bin/python3.13")
    assert machine.setup().returncode == 0
    assert machine.calls()[1] == "venv python3.13"


def test_where_there_is_no_python_it_is_installed_first(machine: Machine) -> None:
    for name in _SYSTEM_TOOLS:
        (machine.bin / name).symlink_to(str(shutil.which(name)))
    (machine.bin / "python3").rename(machine.home / "python3")
    done = machine.setup(PATH=str(machine.bin))
    assert (done.returncode, done.stderr) == (0, "")
    install = "apt-get install --yes --no-install-recommends python3 python3-venv python3-dev"
    assert machine.calls() == ["apt-get update", install, STARPU, "venv python3", PIP, *BINDINGS]


def test_an_interpreter_outside_the_system_that_is_incomplete_is_refused(machine: Machine) -> None:
    machine.python("python3", "3.12 1 0 /opt/bin/python3.12")
    failed = machine.setup()
    assert failed.returncode == 1
    assert failed.stderr.startswith("setup: /opt/bin/python3.12 lacks ensurepip or Python.h;")


def test_a_failure_of_get_starpu_ends_the_setup_with_its_message(machine: Machine) -> None:
    text = (machine.bin / "python3").read_text(encoding="utf-8")
    failing = text.replace("    *)", "    *get-starpu*) echo 'get-starpu: no' >&2; exit 1 ;;\n    *)")
    (machine.bin / "python3").write_text(failing, encoding="utf-8")
    failed = machine.setup()
    assert (failed.returncode, failed.stderr) == (1, "get-starpu: no\n")
    assert machine.calls() == []


def test_a_given_starpu_needs_no_libraries_to_build_one(machine: Machine) -> None:
    machine.user(1000)
    machine.remove("libsimgrid-dev", "libhwloc-dev", "libboost-dev")
    for tool in ("g++", "tar", "xz"):
        (machine.bin / tool).unlink()
    done = machine.setup(STARPU_PREFIXES="/given")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.calls() == [STARPU, "venv python3", PIP, *BINDINGS]


def test_a_given_python_is_taken_as_it_is_and_nothing_is_installed(machine: Machine, tmp_path: Path) -> None:
    machine.remove("dataset-fashion-mnist", "libsimgrid-dev")
    program(tmp_path / "given" / "bin", "python", _PYTHON.replace("@VERSION@", "3.13"))
    done = machine.setup(STARPU_PREFIXES="/given", DAHL_VENV=str(tmp_path / "given"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls() == [STARPU, *BINDINGS]
    assert not (machine.checkout / ".venv").exists()


def test_a_given_python_that_is_not_there_is_named(machine: Machine, tmp_path: Path) -> None:
    failed = machine.setup(DAHL_VENV=str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr == (
        f"setup: DAHL_VENV is {tmp_path}, which has no bin/python; unset it to make .venv here\n"
    )
    assert machine.calls() == []


def test_more_optional_packages_can_be_asked_for(machine: Machine) -> None:
    (machine.home / "unknown" / "no-such").touch()
    done = machine.setup(OPTIONAL_PACKAGES="nix-bin no-such")
    assert done.returncode == 0
    assert "no-such is not to be had here; what needs it is skipped" in done.stdout
    calls = machine.calls()
    assert "apt-get install --yes --no-install-recommends nix-bin" in calls
    assert machine.setup(OPTIONAL_PACKAGES="nix-bin no-such").returncode == 0
    assert machine.calls() == [STARPU, *BINDINGS]
