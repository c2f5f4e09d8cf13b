"""Compiling a C file into an extension module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compiling import BuildError, Extension


@pytest.fixture
def doubling(tmp_path: Path) -> Extension:
    """A function in C that doubles a number."""
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "twice.h").write_text("#ifndef TWICE_H\n#define TWICE_H\nint twice(int number);\n#endif\n")
    (sources / "twice.c").write_text('#include "twice.h"\nint twice(int number) { return 2 * number; }\n')
    recipe = tmp_path / "build.py"
    recipe.write_text("")
    return Extension(
        name="_twice", folder=tmp_path, sources=sources, header="twice.h", c_files=("twice.c",), recipe=recipe
    )


def twice(folder: Path) -> str:
    """What the module in a folder makes of 21, or the error."""
    done = subprocess.run(
        [sys.executable, "-c", "import _twice; print(_twice.lib.twice(21))"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_c_file_becomes_a_module_that_is_current_until_its_sources_change(
    doubling: Extension, tmp_path: Path
) -> None:
    assert not doubling.is_current()
    assert doubling.compile() == doubling.path
    assert (twice(tmp_path), doubling.is_current()) == ("42", True)
    (doubling.sources / "twice.c").write_text(
        '#include "twice.h"\nint twice(int number) { return number + number; }\n'
    )
    assert not doubling.is_current()


def test_c_that_does_not_compile_leaves_the_module_that_was_there(
    doubling: Extension, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    doubling.compile()
    (doubling.sources / "twice.c").write_text("int twice(int number) { return nummer; }\n")
    with pytest.raises(BuildError, match="_twice does not compile, see above"):
        doubling.compile()
    assert "nummer" in capfd.readouterr().err
    assert (twice(tmp_path), doubling.is_current()) == ("42", False)
