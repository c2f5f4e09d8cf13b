"""The C layer under ThreadSanitizer: a program in C drives it with policies in C, on a StarPU built with it too."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dahl.starpu.build import C_FILES, SOURCES, pkg_config_flags, prefix_root

HERE = Path(__file__).parents[1] / "c"
PREFIX = prefix_root() / "tsan"
TASKS = 30_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PREFIX / "lib").is_dir(), reason="needs scripts/get-starpu --variant tsan"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("tsan") / "drive_policies"
    command = [
        *("gcc", "-fsanitize=thread", "-g", "-O1", "-std=gnu11", "-Wall", "-Werror", f"-I{SOURCES}"),
        *pkg_config_flags(PREFIX, "--cflags"),
        str(HERE / "drive_policies.c"),
        *(str(SOURCES / name) for name in C_FILES),
        *("-o", str(built)),
        *pkg_config_flags(PREFIX, "--libs"),
        *(f"-Wl,-rpath,{PREFIX / 'lib'}", "-ldl", "-lm"),
    ]
    subprocess.run(command, check=True)
    return built


@pytest.mark.parametrize("kind", ["pull", "placement"])
def test_no_data_race_and_no_inverted_lock_but_those_that_starpu_explains(
    program: Path, tmp_path: Path, kind: str
) -> None:
    suppressions = shutil.copy(HERE / "tsan.supp", tmp_path)  # the option takes no blanks or colons
    environment = {
        **os.environ,
        "STARPU_HOME": str(tmp_path),
        "TSAN_OPTIONS": f"suppressions={suppressions}:exitcode=66:second_deadlock_stack=1",
    }
    command = [str(program), kind, str(TASKS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "ThreadSanitizer" not in done.stderr
    assert done.stdout.count(f"{kind}: ran {TASKS},") == 2
