"""The public workflow does what `.ci/run` does, and that calls what the Makefile has."""

from __future__ import annotations

import re
from typing import Any

import yaml

from experiments.validation import CHECKOUT


def test_the_workflow_runs_ci_on_the_systems_that_the_documentation_names() -> None:
    workflow: Any = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if ".ci/run" in step.get("run", "")] == ["bash .ci/run"]
    names = {"debian:bookworm": "Debian 12", "debian:trixie": "13", "ubuntu:24.04": "Ubuntu 24.04"}
    images = job["strategy"]["matrix"]["image"]
    assert set(images) == set(names)
    installing = (CHECKOUT / "docs/install.md").read_text()
    assert "Debian 12 and 13, Ubuntu 24.04" in installing


def test_every_target_that_ci_makes_is_there() -> None:
    asked = re.findall(r"^(?:\w+=\S+ )?make (\w+)$", (CHECKOUT / ".ci/run").read_text(), re.MULTILINE)
    there = re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert asked == ["check", "regress", "test"]
    assert set(asked) <= set(there)
