"""`scripts/get-starpu` as a command, on a stand-in for StarPU's sources that compiles in no time."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest

from tests.scripts.conftest import starpu_source


def get_starpu(checkout: Path, *arguments: str, source: Path | str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # The machine that runs the tests may have a toolkit.
        [sys.executable, checkout / "scripts" / "get-starpu", "--no-cuda", *arguments],
        env={**os.environ, "STARPU_SRC": str(source)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=checkout,
        timeout=60,
    )


def stamp(checkout: Path, variant: str) -> dict[str, object]:
    text = (checkout / ".starpu" / variant / "built.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def left_behind(checkout: Path) -> set[str]:
    return {entry.name for entry in (checkout / ".starpu").iterdir()} - {".lock"}


def wait_for(file: Path) -> str:
    """The content of a file that another process is about to write."""
    for _ in range(1000):
        if file.exists() and file.read_text(encoding="utf-8").endswith("\n"):
            return file.read_text(encoding="utf-8").strip()
        time.sleep(0.01)
    raise AssertionError(f"{file} was not written within 10 s")


def test_both_variants_are_built_and_a_second_call_does_nothing(checkout: Path, tmp_path: Path) -> None:
    source = starpu_source(tmp_path / "source", extra=f"echo configured >>{tmp_path}/calls")
    first = get_starpu(checkout, source=source)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines()[-2].startswith(
        f"StarPU 1.4.99   native   .starpu/native  from folder {source}"
    )
    assert left_behind(checkout) == {"native", "simgrid"}
    assert not list(source.glob("config.*"))
    prefix = checkout / ".starpu" / "simgrid"
    assert (prefix / "lib" / "libstarpu-1.4.so").is_file()
    assert stamp(checkout, "simgrid")["prefix"] == str(prefix)
    assert "--enable-simgrid" in stamp(checkout, "simgrid")["options"]
    assert "--enable-blocking-drivers" in stamp(checkout, "native")["options"]

    second = get_starpu(checkout, "--quiet", source=source)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    # Nor when the source is not named any more: what is there is good.
    third = get_starpu(checkout)
    assert third.returncode == 0
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "configured\n" * 2


def test_it_is_built_again_when_asked_to_or_when_something_has_changed(
    checkout: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    source = starpu_source(tmp_path / "source", extra=f"echo configured >>{calls}")
    get_starpu(checkout, "--variant=native", source=source)
    get_starpu(checkout, "--variant=native", "--force", source=source)
    assert calls.read_text(encoding="utf-8").count("configured") == 2

    (source / "new.c").touch()
    get_starpu(checkout, "--variant=native", source=source)
    assert calls.read_text(encoding="utf-8").count("configured") == 3

    file = checkout / ".starpu" / "native" / "built.json"
    file.write_text(file.read_text(encoding="utf-8").replace("maxcpus=256", "maxcpus=64"), encoding="utf-8")
    get_starpu(checkout, "--variant=native", source=source)
    assert calls.read_text(encoding="utf-8").count("configured") == 4


@pytest.mark.parametrize("variant", ["polling", "tsan"])
def test_variants_for_comparisons_and_checks_are_built_by_name_only(
    checkout: Path, tmp_path: Path, variant: str
) -> None:
    source = starpu_source(tmp_path / "source")
    assert get_starpu(checkout, "--variant", variant, source=source).returncode == 0
    assert left_behind(checkout) == {variant}
    assert get_starpu(checkout, source=source).returncode == 0
    assert left_behind(checkout) == {variant, "native", "simgrid"}


def test_a_polling_build_whose_workers_block_is_refused(checkout: Path, tmp_path: Path) -> None:
    failed = get_starpu(
        checkout, "--variant=polling", source=starpu_source(tmp_path / "source", extra="polling=")
    )
    assert failed.returncode == 1
    assert "the polling variant has STARPU_NON_BLOCKING_DRIVERS = None, expected 1" in failed.stderr


def test_a_moved_checkout_is_built_again_since_the_prefix_is_part_of_what_is_installed(
    checkout: Path, tmp_path: Path
) -> None:
    source = starpu_source(tmp_path / "source")
    get_starpu(checkout, "--variant=native", source=source)
    moved = checkout.rename(tmp_path / "moved")
    get_starpu(moved, "--variant=native", source=source)
    assert stamp(moved, "native")["prefix"] == str(moved / ".starpu" / "native")


def test_a_tarball_is_built_and_its_checksum_recorded(checkout: Path, tmp_path: Path) -> None:
    starpu_source(tmp_path / "starpu-1.4.99")
    tarball = tmp_path / "starpu.tar.xz"
    with tarfile.open(tarball, "w:xz") as tar:
        tar.add(tmp_path / "starpu-1.4.99", arcname="starpu-1.4.99")
    done = get_starpu(checkout, "--variant=native", source=tarball)
    assert done.returncode == 0
    sha256 = subprocess.check_output(["sha256sum", tarball], text=True)[:64]
    assert stamp(checkout, "native")["origin"] == f"tarball {tarball}"
    assert stamp(checkout, "native")["sha256"] == sha256


@pytest.mark.parametrize(
    ("step", "broken"),
    [("configuring", "exit 77"), ("compiling", "sed -i 's/cc -shared/false/' Makefile")],
)
def test_a_failing_build_leaves_what_was_there_and_says_one_line(
    checkout: Path, tmp_path: Path, step: str, broken: str
) -> None:
    assert get_starpu(checkout, source=starpu_source(tmp_path / "good")).returncode == 0
    before = stamp(checkout, "native")
    bad = starpu_source(tmp_path / "bad")
    with (bad / "configure").open("a", encoding="utf-8") as script:
        script.write(f"{broken}\n")
    failed = get_starpu(checkout, "--variant=native", source=bad)
    assert failed.returncode == 1
    assert failed.stderr == (
        f"get-starpu: {step} StarPU 1.4.99 (native) failed; log: .cache/logs/get-starpu-native.log\n"
    )
    assert (checkout / ".cache" / "logs" / "get-starpu-native.log").stat().st_size > 0
    assert stamp(checkout, "native") == before
    assert left_behind(checkout) == {"native", "simgrid"}


def test_when_one_variant_fails_the_other_is_stopped(checkout: Path, tmp_path: Path) -> None:
    source = starpu_source(
        tmp_path / "source",
        extra=f"""
            case $* in *--enable-simgrid*)
                while [ ! -s {tmp_path}/pid ]; do sleep 0.01; done
                exit 1 ;;
            esac
            echo $$ >{tmp_path}/pid
            sleep 60
        """,
    )
    failed = get_starpu(checkout, source=source)
    assert failed.returncode == 1
    assert failed.stderr.startswith("get-starpu: configuring StarPU 1.4.99 (simgrid) failed;")
    assert not Path(f"/proc/{wait_for(tmp_path / 'pid')}").exists()
    assert left_behind(checkout) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_compilers_and_leaves_nothing_half_made(
    checkout: Path, tmp_path: Path, number: signal.Signals
) -> None:
    source = starpu_source(tmp_path / "source", extra=f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    running = subprocess.Popen(
        [sys.executable, checkout / "scripts" / "get-starpu", "--variant=native"],
        env={**os.environ, "STARPU_SRC": str(source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # tests in the background ignore SIGINT
    )
    pid = wait_for(tmp_path / "pid")
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (130, "get-starpu: interrupted, nothing half-made is left\n")
    assert left_behind(checkout) == set()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text(encoding="utf-8").split()[2] == "Z"


def test_what_a_killed_run_left_is_cleared_away(checkout: Path, tmp_path: Path) -> None:
    rest = checkout / ".starpu" / ".work" / "native"
    rest.mkdir(parents=True)
    (rest / "rest.o").touch()
    assert get_starpu(checkout, "--variant=native", source=starpu_source(tmp_path / "source")).returncode == 0
    assert left_behind(checkout) == {"native"}


def test_a_second_run_waits_for_the_first_and_then_finds_its_work_done(
    checkout: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    source = starpu_source(tmp_path / "source", extra=f"echo configured >>{calls}")
    assert get_starpu(checkout, "--variant=native", source=source).returncode == 0
    native = checkout / ".starpu" / "native"
    hidden = native.rename(tmp_path / "hidden")
    with (checkout / ".starpu" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, checkout / "scripts" / "get-starpu", "--variant=native"],
            env={**os.environ, "STARPU_SRC": str(source)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout is not None
        assert "waiting for it" in waiting.stdout.readline()
        hidden.rename(native)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert calls.read_text(encoding="utf-8") == "configured\n"


def test_limits_that_configure_did_not_take_are_an_error(checkout: Path, tmp_path: Path) -> None:
    failed = get_starpu(
        checkout, "--variant=native", source=starpu_source(tmp_path / "source", extra="cpus=2")
    )
    assert failed.returncode == 1
    assert "the native variant has STARPU_MAXCPUS = 2, expected 256" in failed.stderr
    assert left_behind(checkout) == set()


def test_a_library_of_another_version_than_its_configure_script_is_refused(
    checkout: Path, tmp_path: Path
) -> None:
    failed = get_starpu(
        checkout, "--variant=native", source=starpu_source(tmp_path / "source", version="1.4.5")
    )
    assert "the native variant cannot be loaded" in failed.stderr
    log = (checkout / ".cache" / "logs" / "get-starpu-native.log").read_text(encoding="utf-8")
    assert "the library says that it is StarPU 1.4.99, expected 1.4.5" in log


@pytest.mark.parametrize("extra", ["missing", "old", "unconfigured", "other"])
def test_a_source_that_will_not_do_is_named_with_the_reason(
    checkout: Path, tmp_path: Path, extra: str
) -> None:
    source = tmp_path / "source"
    if extra != "missing":
        starpu_source(source, version="1.3.10" if extra == "old" else "1.4.99")
    configure = source / "configure"
    if extra == "unconfigured":
        configure.unlink()
    if extra == "other":
        configure.write_text("PACKAGE_NAME='GNU hello'\nPACKAGE_VERSION='2.0'\n", encoding="utf-8")
    reason = {
        "missing": f"STARPU_SRC is '{source}', which is neither a folder nor a tarball",
        "old": f"folder {source} is StarPU 1.3.10, but 1.4 or newer is needed",
        "unconfigured": f"folder {source} has no configure script: run ./autogen.sh there first",
        "other": f"folder {source} is not StarPU but GNU hello",
    }[extra]
    failed = get_starpu(checkout, source=source)
    assert (failed.returncode, failed.stderr) == (1, f"get-starpu: {reason}\n")


def test_a_path_with_a_blank_is_refused_before_anything_is_fetched(checkout: Path, tmp_path: Path) -> None:
    blank = checkout.rename(tmp_path / "my checkout")
    failed = get_starpu(blank, source=starpu_source(tmp_path / "source"))
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"get-starpu: StarPU cannot be built below '{blank}'")
    assert not (blank / ".starpu").exists()
