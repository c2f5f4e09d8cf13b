"""The flake against a stand-in for nixpkgs: what it asks for equals what this checkout builds by itself."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from getstarpu.apt import MINIMUM
from getstarpu.build import DEFAULT_VARIANTS, options_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.nix.conftest import CHECKOUT, FLAKES, STAND_IN, SYSTEMS, EvaluationError, Nix, needs_nix

FILES = sorted(
    [CHECKOUT / "flake.nix", *(CHECKOUT / "nix").rglob("*.nix"), *(CHECKOUT / "tests/nix").rglob("*.nix")]
)
FAKE_HASH = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

pytestmark = needs_nix


def python_with(nix: Nix, part: str, **versions: str) -> Any:
    """A part of nix/python.nix where nixpkgs has these versions."""
    told = " ".join(f'{name.replace("_", "-")} = "{version}";' for name, version in versions.items())
    pkgs = f'import {STAND_IN} {{ system = "x86_64-linux"; pythonVersions = {{ {told} }}; }}'
    return nix.evaluate(
        f"let pkgs = {pkgs}; hashes = import {CHECKOUT}/nix/hashes.nix {{ inherit (pkgs) lib; }};"
        f" in (import {CHECKOUT}/nix/python.nix {{ inherit pkgs hashes; }}).{part}"
    )


def requirements(*groups: str) -> list[Requirement]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for group in groups for text in project["optional-dependencies"][group]]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def locked() -> dict[str, str]:
    lines = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_every_nix_file_parses(nix: Nix, file: Path) -> None:
    done = nix.run("nix-instantiate", "--parse", file)
    assert done.returncode == 0, done.stderr


def test_nix_itself_accepts_the_flake_with_all_that_it_gives(nix: Nix, tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "nix", tmp_path / "nix")
    for name in ("flake.nix", "pyproject.toml", "requirements.lock"):
        shutil.copy(CHECKOUT / name, tmp_path)
    done = nix.run(
        "nix", *FLAKES, "flake", "check", "--no-build", "--override-input", "nixpkgs", f"path:{STAND_IN}",
        f"path:{tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_flake_gives_shells_programs_and_checks(asked: Any) -> None:
    assert asked["outputs"]["devShells"] == ["cuda", "default", "traces"]
    assert asked["outputs"]["apps"] == ["default", "train", "versions"]
    assert asked["outputs"]["checks"] == ["imports", "mypy", "ruff", "tests"]
    given = {name for part in asked["paths"].values() for name in part}
    assert given == {name for names in asked["outputs"].values() for name in names}


@pytest.mark.parametrize("variant", DEFAULT_VARIANTS)
def test_starpu_is_configured_as_get_starpu_does(asked: Any, variant: str) -> None:
    starpu = asked["starpu"][variant]
    assert sorted(starpu["configureFlags"]) == sorted(options_of(variant))
    assert (starpu["enableSimgrid"], starpu["enableMPI"]) == (variant == "simgrid", False)
    assert starpu["name"] == f"starpu-{variant}"


def test_the_traced_variant_differs_from_native_by_fxt_alone(asked: Any) -> None:
    native, traced = asked["starpu"]["native"], asked["starpu"]["traced"]
    assert set(native["configureFlags"]) ^ set(traced["configureFlags"]) == {"--disable-fxt", "--enable-fxt"}
    assert set(traced["inputs"]) - set(native["inputs"]) == {"fxt-0.3.15"}


def test_the_cuda_variant_is_native_with_the_toolkit_and_the_hosts_driver(asked: Any) -> None:
    native, cuda = asked["starpu"]["native"], asked["starpu"]["cuda"]
    changed = set(native["configureFlags"]) ^ set(cuda["configureFlags"])
    toolkit = [flag for flag in changed if re.fullmatch(r"--with-cuda-dir=/.*-cudatoolkit-0", flag)]
    assert changed == {"--disable-cuda", *toolkit}
    assert len(toolkit) == 1
    assert "autoAddDriverRunpath-0" in cuda["nativeInputs"]


def test_the_least_version_of_starpu_is_that_of_get_starpu(nix: Nix) -> None:
    least = nix.evaluate(f"(import {CHECKOUT}/nix/options.nix).minimum")
    assert tuple(map(int, least.split("."))) == MINIMUM


def test_an_older_starpu_in_nixpkgs_is_refused(nix: Nix) -> None:
    pkgs = f'import {STAND_IN} {{ system = "x86_64-linux"; starpuVersion = "1.3.12"; }}'
    with pytest.raises(EvaluationError, match=r"nixpkgs has StarPU 1\.3\.12, but 1\.4 or newer is needed"):
        nix.evaluate(
            f"let pkgs = {pkgs}; in (import {CHECKOUT}/nix/starpu.nix"
            " { inherit pkgs; cudaPkgs = pkgs; fxt = pkgs.hwloc; }).native.drvPath"
        )


@pytest.mark.parametrize(
    ("shell", "native"), [("default", "native"), ("cuda", "native"), ("traces", "traced")]
)
def test_each_shell_gives_both_variants_to_the_bindings(asked: Any, shell: str, native: str) -> None:
    prefixes = asked["shells"][shell]["prefixes"]
    assert prefixes["native"] == f"starpu-{native}-1.4.7"
    assert prefixes["simgrid"] == "starpu-simgrid-1.4.7"
    assert set(prefixes) == {"native", "simgrid", *(["cuda"] if shell == "cuda" else [])}
    # StarPU's pkg-config file refers to hwloc's.
    assert asked["shells"][shell]["inputs"] == ["hwloc-0", "simgrid-0"]


def test_python_in_the_shell_has_every_requirement_of_pyproject(asked: Any) -> None:
    wanted = sorted(canonicalize_name(one.name) for one in requirements("dev"))
    shell = asked["shells"]["default"]
    names = [name.rsplit("-", 1)[0] for name in [*shell["modules"], *shell["programs"]]]
    assert sorted(names) == wanted
    cuda = asked["shells"]["cuda"]
    assert {name.rsplit("-", 1)[0] for name in cuda["modules"]} - set(names) == {"cupy"}


def test_a_version_below_what_pyproject_asks_for_is_refused(nix: Nix) -> None:
    with pytest.raises(
        EvaluationError, match=r"nixpkgs has numpy 1\.26\.4, but pyproject\.toml asks for numpy>=2"
    ):
        python_with(nix, "environment.drvPath", numpy="1.26.4")
    with pytest.raises(
        EvaluationError, match=r"nixpkgs has hydra-core 1\.4\.0, but pyproject\.toml asks for"
    ):
        python_with(nix, "environment.drvPath", hydra_core="1.4.0")


def test_the_versions_are_set_against_the_lock_file(nix: Nix) -> None:
    compared = {
        one["name"]: one for one in python_with(nix, "compared", numpy=locked()["numpy"], rich="15.9")
    }
    assert set(compared) == {canonicalize_name(one.name) for one in requirements("dev")}
    assert {name: one["locked"] for name, one in compared.items()} == {
        name: locked()[name] for name in compared
    }
    assert compared["numpy"]["nixpkgs"] == locked()["numpy"]
    assert compared["rich"]["nixpkgs"] == "15.9"


def test_the_shell_says_how_many_versions_differ(nix: Nix) -> None:
    versions = {name: locked()[name] for name in ("numpy", "scipy", "numba")}
    compared = python_with(nix, "compared", **versions)
    differing = sum(one["nixpkgs"] != locked()[one["name"]] for one in compared)
    summary = python_with(nix, "summary", **versions)
    assert summary.startswith(f"{differing} of {len(compared)} Python packages have another version")


def test_the_checks_run_what_make_check_runs(asked: Any) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(
        r"^\t\$\(VENV\)/bin/(\S+)", makefile.split("\ncheck: ")[1].split("\n\n")[0], re.MULTILINE
    )
    checks = asked["checks"]
    run = [name for name in commands if any(f"\n{name}" in check["commands"] for check in checks.values())]
    assert run == commands == ["ruff", "mypy", "lint-imports"]
    assert "python -m pytest" in checks["tests"]["commands"]


def test_what_comes_from_elsewhere_is_a_release_with_its_hash_in_one_file(asked: Any) -> None:
    sources = asked["sources"]
    assert sources["alumet-agent"]["tag"] == f"v{sources['alumet-agent']['version']}"
    text = (CHECKOUT / "nix" / "hashes.nix").read_text(encoding="utf-8")
    for name in ("fxt", "pajeng"):
        assert f'{name} = "{sources[name]["hash"]}"' in text
        assert sources[name]["hash"] != FAKE_HASH
    elsewhere = [file for file in FILES if STAND_IN not in file.parents and file.name != "hashes.nix"]
    assert [
        file.name for file in elsewhere if re.search(r"sha256-\S|fakeHash|fakeSha", file.read_text())
    ] == []


def test_hashes_that_are_not_filled_in_are_those_marked_so(asked: Any) -> None:
    agent = asked["sources"]["alumet-agent"]
    empty = [name for name in ("hash", "cargoHash") if agent[name] == FAKE_HASH]
    text = (CHECKOUT / "nix" / "hashes.nix").read_text(encoding="utf-8")
    assert len(re.findall(r"= lib\.fakeHash;", text)) == len(empty)
    assert "NOT FILLED IN" in text or not empty
    assert "nix build .#alumet-agent" in text or not empty


def test_nothing_free_depends_on_what_is_not(nix: Nix) -> None:
    unfree = f'(import {STAND_IN} {{ system = "{SYSTEMS[0]}"; }}).cudaPackages_12.cudatoolkit.drvPath'
    with pytest.raises(EvaluationError, match="not free software"):
        nix.evaluate(unfree)
    free = f'(import {CHECKOUT}/nix {{ pkgs = import {STAND_IN} {{ system = "{SYSTEMS[0]}"; }};'
    assert nix.evaluate(
        f'{free} cudaPkgs = throw "asked for"; src = "{CHECKOUT}"; }}).shells.default.drvPath'
    )
