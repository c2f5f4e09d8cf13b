"""`scripts/get-starpu` where STARPU_PREFIXES names a StarPU that is there already: it looks, and builds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = {"STARPU_MAXCPUS": "256", "STARPU_MAXCUDADEVS": "16"}
MODES: dict[str, dict[str, str]] = {"native": {}, "simgrid": {"STARPU_SIMGRID": "1"}}


def install(prefix: Path, version: str = "1.4.99", **defined: str) -> Path:
    """A prefix with the two files that are looked at, laid out as StarPU installs them."""
    headers, files = prefix / "include" / "starpu" / "1.4", prefix / "lib" / "pkgconfig"
    headers.mkdir(parents=True)
    files.mkdir(parents=True)
    (files / "starpu-1.4.pc").write_text(
        f"prefix={prefix}\nstarpu_includedir=${{prefix}}/include/starpu/1.4\n"
        f"Name: starpu\nDescription: stand-in\nVersion: {version}\nCflags: -I${{starpu_includedir}}\n",
        encoding="utf-8",
    )
    lines = [f"#define {name} {value}\n" for name, value in {**GOOD, **defined}.items()]
    (headers / "starpu_config.h").write_text("".join(lines), encoding="utf-8")
    return prefix


def get_starpu(
    checkout: Path, root: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, checkout / "scripts" / "get-starpu", *arguments],
        env={**os.environ, "STARPU_PREFIXES": str(root), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=checkout,
        timeout=60,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Both variants, `native` through a link as a shell gives it."""
    folder = tmp_path / "prefixes"
    install(folder / "simgrid", **MODES["simgrid"])
    (folder / "native").symlink_to(install(tmp_path / "store" / "starpu-native"))
    return folder


def refusal(checkout: Path, root: Path, *arguments: str, **environment: str) -> str:
    """What it says, in one line, when it refuses."""
    done = get_starpu(checkout, root, *arguments, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("get-starpu: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_what_is_given_is_taken_and_nothing_is_built(checkout: Path, root: Path) -> None:
    done = get_starpu(checkout, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["StarPU", "1.4.99", "native"],
        ["StarPU", "1.4.99", "simgrid"],
    ]
    assert not (checkout / ".starpu").exists()
    assert not (checkout / ".cache").exists()
    quiet = get_starpu(checkout, root, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_larger_limits_will_do(checkout: Path, tmp_path: Path) -> None:
    install(tmp_path / "p" / "native", STARPU_MAXCPUS="1024", STARPU_MAXCUDADEVS="32")
    assert get_starpu(checkout, tmp_path / "p").returncode == 0


def test_one_variant_is_enough_unless_the_other_is_asked_for(checkout: Path, tmp_path: Path) -> None:
    install(tmp_path / "p" / "native")
    done = get_starpu(checkout, tmp_path / "p")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"no simgrid in {tmp_path / 'p'}"
    assert "which has no folder simgrid;" in refusal(checkout, tmp_path / "p", "--variant=simgrid")


def test_an_empty_folder_is_refused_with_the_ways_out(checkout: Path, tmp_path: Path) -> None:
    assert refusal(checkout, tmp_path) == (
        f"get-starpu: STARPU_PREFIXES is '{tmp_path}', which has no folder native or simgrid;"
        " link the prefixes of StarPU there, or unset it to build StarPU here\n"
    )


@pytest.mark.parametrize(
    ("defined", "wrong", "option"),
    [
        ({"STARPU_MAXCPUS": "64"}, "STARPU_MAXCPUS = 64, at least 256 is needed", "--enable-maxcpus=256"),
        ({"STARPU_MAXCUDADEVS": "4"}, "STARPU_MAXCUDADEVS = 4, at least 16", "--enable-maxcudadev=16"),
        (
            {"STARPU_NON_BLOCKING_DRIVERS": "1"},
            "STARPU_NON_BLOCKING_DRIVERS = 1, expected None",
            "--enable-blocking-drivers",
        ),
        ({"STARPU_SIMGRID": "1"}, "STARPU_SIMGRID = 1, expected None", "--disable-cuda"),
    ],
)
def test_a_starpu_configured_otherwise_is_refused_with_the_options_that_it_needs(
    checkout: Path, tmp_path: Path, defined: dict[str, str], wrong: str, option: str
) -> None:
    install(tmp_path / "p" / "native", **defined)
    said = refusal(checkout, tmp_path / "p")
    assert f"the native StarPU in {tmp_path / 'p' / 'native'} has {wrong}" in said
    assert option in said.split("configure it with")[1]


def test_a_native_starpu_cannot_stand_for_the_simulated_one(checkout: Path, tmp_path: Path) -> None:
    install(tmp_path / "p" / "simgrid")
    assert "has STARPU_SIMGRID = None, expected 1; configure it with" in refusal(checkout, tmp_path / "p")


def test_a_starpu_elsewhere_is_not_taken_for_the_one_in_the_prefix(checkout: Path, tmp_path: Path) -> None:
    other = install(tmp_path / "other")
    (tmp_path / "p" / "native").mkdir(parents=True)
    said = refusal(checkout, tmp_path / "p", PKG_CONFIG_PATH=str(other / "lib" / "pkgconfig"))
    assert f"{tmp_path / 'p' / 'native'} has no lib/pkgconfig/starpu-1.4.pc" in said


def test_a_prefix_without_its_pkg_config_file_or_headers_is_refused(checkout: Path, tmp_path: Path) -> None:
    prefix = install(tmp_path / "p" / "native")
    (prefix / "include" / "starpu" / "1.4" / "starpu_config.h").unlink()
    assert "starpu_config.h cannot be read" in refusal(checkout, tmp_path / "p")
    (prefix / "lib" / "pkgconfig" / "starpu-1.4.pc").unlink()
    assert f"pkg-config finds no StarPU 1.4 in {prefix}" in refusal(checkout, tmp_path / "p")


def test_a_version_before_1_4_is_refused(checkout: Path, tmp_path: Path) -> None:
    install(tmp_path / "p" / "native", version="1.3.99")
    assert "is StarPU 1.3.99, but 1.4 or newer is needed" in refusal(checkout, tmp_path / "p")


def test_asking_for_a_build_as_well_is_a_contradiction(checkout: Path, root: Path, tmp_path: Path) -> None:
    assert "but --force was given: unset one of them" in refusal(checkout, root, "--force")
    assert "but STARPU_SRC is set: unset one of them" in refusal(checkout, root, STARPU_SRC=str(tmp_path))
