"""Nix without a network and without /nix: expressions are evaluated against the stand-in, nothing is built."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
STAND_IN = CHECKOUT / "tests" / "nix" / "nixpkgs"
SYSTEMS = ("x86_64-linux", "aarch64-linux")
FLAKES = ("--extra-experimental-features", "nix-command flakes")

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None,
    reason="Nix is not installed (Debian, Ubuntu: apt-get install nix-bin)",
)


class Nix:
    """Nix with a store and settings of its own below `home`."""

    def __init__(self, home: Path) -> None:
        folders = {
            name: str(home / name.lower()) for name in ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR")
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("NIX")}
        (home / "home").mkdir()
        self.environment = {
            **kept,
            **folders,
            "HOME": str(home / "home"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "NIX_CONFIG": "substitute = false",
        }

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of Nix's programs."""
        return subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, timeout=120
        )

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; raises EvaluationError with what Nix says where it has none."""
        done = self.run(
            "nix-instantiate", "--eval", "--strict", "--json", "--store", "dummy://", "-E", expression
        )
        if done.returncode:
            raise EvaluationError(done.stderr)
        return json.loads(done.stdout)


class EvaluationError(Exception):
    """What Nix printed."""


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    return Nix(tmp_path_factory.mktemp("nix"))


@pytest.fixture(scope="session", params=SYSTEMS)
def asked(request: pytest.FixtureRequest, nix: Nix) -> Any:
    """What the flake asks nixpkgs for, on each system."""
    arguments = f'{{ system = "{request.param}"; root = "{CHECKOUT}"; }}'
    return nix.evaluate(f"import {CHECKOUT}/tests/nix/asked.nix {arguments}")
