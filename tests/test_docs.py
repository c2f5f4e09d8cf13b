"""What the documentation shows to run runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from schedulers.testing import PolicyContract

ROOT = Path(__file__).parents[1]
WALKTHROUGHS = ("extending.md",)
"""Pages whose blocks build on each other."""


def blocks(page: Path, languages: str) -> list[tuple[str, str, str]]:
    """Each block of a page in one of these languages: where it begins, its language, and its text."""
    text = page.read_text()
    matches = re.finditer(rf"^```({languages})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        (f"{page.name}:{text[: match.start()].count(chr(10)) + 2}", match[1], match[2]) for match in matches
    ]


PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WALKTHROUGHS]
BLOCKS = [(where, code) for page in PAGES for where, _, code in blocks(page, "python")]


def run(
    command: list[str], folder: Path, seconds: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[where for where, _ in BLOCKS])
def test_a_block_of_python_runs(code: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(code)
    done = run([sys.executable, str(script)], tmp_path, 120, PYTHONWARNINGS="error")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert not list(tmp_path.glob("*/")), "a block left a folder behind"


def test_the_bindings_page_has_blocks_to_run() -> None:
    assert sum(where.startswith("starpu.md:") for where, _ in BLOCKS) >= 4


def follow(page: Path, folder: Path) -> str:
    """Do what a page says, block after block, in a folder; returns what its commands printed.

    A block that begins with `# PATH` is the content of that file; a block of `sh` is run.
    """
    printed = ""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for where, language, text in blocks(page, "python|yaml|sh"):
        if language == "sh":
            done = run(["bash", "-euo", "pipefail", "-c", text], folder, 240, PATH=path)
            assert done.returncode == 0, f"{where}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            printed += done.stdout
        else:
            titled = re.match(r"# (\S+)\n", text)
            assert titled, f"{where}: the first line names no file"
            file = folder / titled[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    return printed


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which somebody has followed the page on a policy of their own."""
    folder = tmp_path_factory.mktemp("extending")
    return folder, follow(ROOT / "docs" / "extending.md", folder)


def test_following_the_page_on_a_policy_of_ones_own_leads_to_a_plot(extended: tuple[Path, str]) -> None:
    folder, _ = extended
    assert (folder / "pay_the_wait.png").read_bytes().startswith(b"\x89PNG")


def test_its_contract_its_table_and_its_decisions_are_printed(extended: tuple[Path, str]) -> None:
    _, printed = extended
    tests = sum(name.startswith("test_") for name in dir(PolicyContract))
    assert re.search(rf"\b{tests} passed", printed)
    assert re.findall(r"^\| `(\w+)` \|", printed, re.MULTILINE) == ["dmda", "eager", "pay_the_wait"]
    assert "PayTheWait · basic_cnn · synthetic · cpu8_gpu2" in printed
    assert re.search(r"^conv2d ", printed, re.MULTILINE)


POLICIES_PAGE = (ROOT / "docs" / "policies.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", POLICIES_PAGE, re.MULTILINE))
CONFIGURED = {
    path.stem: OmegaConf.to_container(OmegaConf.load(path))
    for path in (ROOT / "configs" / "scheduler").glob("*.yaml")
}
STARPUS = sorted(name for name, keys in CONFIGURED.items() if keys["_target_"].endswith(".StarPUScheduler"))
OWN = sorted(set(CONFIGURED) - set(STARPUS) - {"own"})


@pytest.mark.parametrize("name", OWN)
def test_every_policy_has_a_section_with_its_source_its_parameters_and_when_it_wins_and_loses(
    name: str,
) -> None:
    section = SECTIONS[name]
    for word in ("Source: ", "- Wins ", "- Loses "):
        assert word in section, word
    for parameter in set(CONFIGURED[name]) - {"_target_", "compiled", "explain"}:
        assert parameter in section, parameter
    assert f"\n| [`{name}`](#{name}) |" in POLICIES_PAGE


def test_sections_of_policies_are_in_alphabetical_order() -> None:
    assert [title for title in SECTIONS if title in OWN] == OWN


def test_every_policy_of_starpu_that_goes_by_name_is_described() -> None:
    described = re.findall(r"^\| (`.+`) \|", SECTIONS["StarPU's own"], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(described))) == set(STARPUS) - {"starpu"}


def test_the_table_of_nodes_has_a_row_for_every_policy_and_a_column_for_every_node() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", SECTIONS["On simulated nodes"], re.MULTILINE)
    assert rows == sorted({*OWN, *STARPUS} - {"random", "starpu"})
    swept = yaml.safe_load((ROOT / "configs" / "experiment" / "policies_on_nodes.yaml").read_text())
    nodes = set(re.findall(r"\w+", swept["hydra"]["sweeper"]["params"]["platform"])) - {"glob"}
    head = re.search(r"^\| scheduler \|.*$", SECTIONS["On simulated nodes"], re.MULTILINE)
    assert head is not None
    assert set(re.findall(r"(\w+): J \(simulated\)", head[0])) == nodes
