"""Exported policies: libraries for STARPU_SCHED_LIB under StarPU programs that know nothing of Python."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dahl.starpu.build import pkg_config_flags, prefix_root
from schedulers import export
from schedulers.starpu import StarPUScheduler
from tests.dahl.children import ROOT
from tests.schedulers.run_graph import BASE_W, CPU_W, GPU_W, NODE

CC = shlex.split(os.environ.get("CC", "cc"))
WATTS = {
    "DAHL_BASE_W": str(BASE_W),
    "DAHL_CPU_IDLE_W": str(CPU_W[0]),
    "DAHL_CPU_BUSY_W": str(CPU_W[1]),
    "DAHL_CUDA_IDLE_W": str(GPU_W[0]),
    "DAHL_CUDA_BUSY_W": str(GPU_W[1]),
}
TEST_POLICIES = "tests.schedulers.policies"
EXPORTABLE = "tests.schedulers.exportable"
Export = Callable[..., Path]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """graph_program.c, compiled against both variants of StarPU."""
    folder = tmp_path_factory.mktemp("programs")
    source = Path(__file__).with_name("graph_program.c")
    built = {}
    for variant in ("native", "simgrid"):
        prefix = prefix_root() / variant
        flags, libraries = (pkg_config_flags(prefix, option) for option in ("--cflags", "--libs"))
        built[variant] = folder / variant
        rpath = f"-Wl,-rpath,{prefix / 'lib'}"
        # The bindings bring locks of their own to a simulation, which decide who goes first.
        locks = [ROOT / "dahl" / "starpu" / "csrc" / "simgrid_locks.c"] if variant == "simgrid" else []
        sources = [source, *locks, *(["-lsimgrid"] if locks else [])]
        subprocess.run([*CC, "-O2", *flags, *sources, *libraries, rpath, "-o", built[variant]], check=True)
    return built


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports a policy by its name and fields, once for each."""
    made: dict[tuple[str, ...], Path] = {}

    def make(policy: str, *settings: str, variant: str = "native") -> Path:
        key = (policy, *settings, variant)
        if key not in made:
            target = tmp_path_factory.mktemp("libraries") / "policy.so"
            arguments = [policy, "-o", str(target), *settings, "--prefix", str(prefix_root() / variant)]
            assert export.main(arguments) == 0
            made[key] = target
        return made[key]

    return make


def write_graph(path: Path, count: int, *, seed: int = 1, length_us: int = 1000) -> Path:
    """Tasks of three kinds over 16 vectors: 8 times faster on a GPU, equal, and slower."""
    draw = random.Random(seed)
    kinds = [(8 * length_us, length_us), (2 * length_us, 2 * length_us), (length_us, 3 * length_us)]
    lines = []
    for _ in range(count):
        cpu_us, gpu_us = draw.choice(kinds)
        x, y = draw.sample(range(16), 2)
        lines.append(f"{cpu_us} {gpu_us} {draw.randrange(3)} {x} {y}\n")
    path.write_text("".join(lines))
    return path


def run_program(
    program: Path, library: Path, name: str, *arguments: str | Path, home: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("STARPU_", "DAHL_"))}
    variables |= {"STARPU_SCHED_LIB": str(library), "STARPU_SCHED": name, "STARPU_HOME": str(home)}
    variables |= {"STARPU_CATCH_SIGNALS": "0", "STARPU_NCUDA": "0"} | environment
    command = [program, *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def count_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def total(path: Path, column: str) -> int:
    return sum(int(row[column]) for row in count_table(path))


def said_by_policy(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("policy ")]


# ---- the same answers ----


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("schedulers.EagerEnergy", "eager_energy"),
        (f"{TEST_POLICIES}.EarliestFinish", "earliest_finish"),
        (f"{EXPORTABLE}.LeastWorked", "least_worked"),
    ],
)
def test_an_exported_policy_answers_as_the_same_policy_in_python(
    policy: str, name: str, programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    """One simulated node, the same tasks: a pull policy, a placement policy and one that learns through hooks."""
    graph = write_graph(tmp_path / "graph", 120)
    command = [sys.executable, "-m", "tests.schedulers.run_graph", graph, tmp_path / "python", policy]
    python = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert python.returncode == 0, python.stderr[-3000:]
    expected = json.loads(python.stdout.splitlines()[-1])

    models = tmp_path / "program" / "models"
    NODE.write(models)
    simulated = {"STARPU_PERF_MODEL_DIR": str(models), "STARPU_HOSTNAME": NODE.name, "STARPU_NCPU": "3"}
    simulated |= {"STARPU_NCUDA": "1", "STARPU_PERF_MODEL_HOMOGENEOUS_CPU": "0"}
    simulated |= {"STARPU_SIMGRID_CUDA_QUEUE_COST": "0"}
    library = exported(policy, variant="simgrid")
    program, home = programs["simgrid"], tmp_path / "program"
    done = run_program(program, library, name, graph, "costs", home=home, **simulated, **WATTS)
    assert done.returncode == 0, done.stderr
    assert said_by_policy(done.stderr) == []
    assert [int(line) for line in done.stdout.split()] == expected
    assert len(set(expected)) == 4, "the graph should use every worker, or the comparison says little"


def test_fields_are_compiled_into_the_library(
    programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "graph", 20, length_us=10)
    for answer in (0, 1):
        library = exported(f"{TEST_POLICIES}.Always", f"answer={answer}")
        done = run_program(
            programs["native"], library, "Always", graph, "costs", home=tmp_path, STARPU_NCPU="2", **WATTS
        )
        assert done.stdout.split() == [str(answer)] * 20, done.stderr


def test_a_library_needs_no_python_and_shows_two_functions(exported: Export) -> None:
    library = exported("schedulers.EagerEnergy")
    linked = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "libstarpu-1.4" in linked
    assert "python" not in linked
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    parts = [line.split() for line in symbols.splitlines()]
    assert {part[-1] for part in parts if part[-2] == "T"} == {
        "starpu_get_sched_lib_policy",
        "starpu_get_sched_lib_policies",
    }
    undefined = [part[-1] for part in parts if part[-2] == "U"]
    assert not [name for name in undefined if name.startswith(("Py", "_Py", "numba", "NRT"))]


def test_starpu_lists_the_policy_with_its_parameters(
    programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "graph", 1, length_us=10)
    library = exported("eager_energy", "wait_weight=0.25")
    done = run_program(programs["native"], library, "help", graph, "costs", home=tmp_path, **WATTS)
    assert "EagerEnergy(wait_weight=0.25)" in done.stderr


# ---- models that are not there yet ----


@pytest.mark.parametrize("policy", ["schedulers.EagerEnergy", f"{TEST_POLICIES}.EarliestFinish"])
def test_an_uncalibrated_program_spreads_its_tasks_until_starpu_knows_them(
    policy: str, programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    """StarPU wants 10 measurements of a kind (src/core/perfmodel/perfmodel_history.c); this is a chain of one kind."""
    graph = tmp_path / "graph"
    graph.write_text("200 200 0 0 1\n" * 60)
    library, name = exported(policy), policy.rpartition(".")[2]
    stats = tmp_path / "stats.tsv"
    cpus = min(2, len(os.sched_getaffinity(0)))
    settings = {**WATTS, "DAHL_POLICY_STATS": str(stats), "STARPU_NCPU": str(cpus)}
    settings["STARPU_HISTORY_MAX_ERROR"] = "100000"  # a busy test machine would make it forget
    first = run_program(programs["native"], library, name, graph, "history", home=tmp_path, **settings)
    assert first.returncode == 0, first.stderr
    lines = said_by_policy(first.stderr)
    assert len(lines) == 1
    assert "does not know yet how long work takes on CPU 0: tasks of unknown length are spread" in lines[0]
    assert total(stats, "tasks") == 60
    assert 10 <= total(stats, "spread") < 60
    assert len({row["worker"] for row in count_table(stats) if int(row["spread"])}) == cpus
    again = run_program(programs["native"], library, name, graph, "history", home=tmp_path, **settings)
    assert said_by_policy(again.stderr) == []
    assert (total(stats, "tasks"), total(stats, "spread")) == (60, 0)


def test_tasks_without_a_model_are_spread_and_it_says_so(
    programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "graph", 30, length_us=10)
    stats = tmp_path / "stats.tsv"
    done = run_program(
        programs["native"],
        exported("schedulers.EagerEnergy"),
        "eager_energy",
        graph,
        "none",
        home=tmp_path,
        DAHL_POLICY_STATS=str(stats),
        **WATTS,
    )
    assert done.returncode == 0, done.stderr
    (line,) = said_by_policy(done.stderr)
    assert "work has no performance model" in line
    assert (total(stats, "tasks"), total(stats, "spread")) == (30, 30)


@pytest.mark.parametrize("policy", ["schedulers.EagerEnergy", f"{TEST_POLICIES}.EarliestFinish"])
def test_tasks_that_the_program_places_itself_stay_out_of_the_accounts(
    policy: str, programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "graph", 40, length_us=20)
    stats = tmp_path / "stats.tsv"
    name = policy.rpartition(".")[2]
    settings = {**WATTS, "DAHL_POLICY_STATS": str(stats)}
    done = run_program(
        programs["native"], exported(policy), name, graph, "costs", "pin", home=tmp_path, **settings
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()[::4]) == {"0"}
    assert total(stats, "tasks") == 30


# ---- policies that misbehave ----


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (f"{TEST_POLICIES}.RaisesAt", ["count=3"], "policy raises_at raised at task 2 (work)"),
        (f"{EXPORTABLE}.RaisesWithNumbers", [], "policy raises_with_numbers raised at task 2 (work)"),
        (
            f"{TEST_POLICIES}.Always",
            ["answer=77"],
            "policy always answered 77 for task 0 (work), which is none",
        ),
        (f"{TEST_POLICIES}.NeverTakes", [], "policy never_takes left every worker idle while task 0 (work)"),
    ],
)
def test_a_policy_that_misbehaves_ends_the_program_with_one_line(
    policy: str,
    settings: list[str],
    message: str,
    programs: dict[str, Path],
    exported: Export,
    tmp_path: Path,
) -> None:
    graph = write_graph(tmp_path / "graph", 8, length_us=10)
    name = policy.rpartition(".")[2]
    library = exported(policy, *settings)
    done = run_program(programs["native"], library, name, graph, "costs", home=tmp_path, **WATTS)
    assert done.returncode == -6
    (line,) = said_by_policy(done.stderr)
    assert line.startswith(message)


def test_a_library_made_for_another_variant_is_refused(
    programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    NODE.write(tmp_path / "models")
    graph = write_graph(tmp_path / "graph", 4)
    simulated = {"STARPU_PERF_MODEL_DIR": str(tmp_path / "models"), "STARPU_HOSTNAME": NODE.name, **WATTS}
    library = exported("schedulers.EagerEnergy")
    done = run_program(
        programs["simgrid"], library, "eager_energy", graph, "costs", home=tmp_path, **simulated
    )
    assert done.returncode == 1
    (line,) = said_by_policy(done.stderr)
    assert "made for a StarPU that runs natively, but this program's simulates" in line


# ---- watts ----


def test_each_device_can_have_watts_of_its_own(
    programs: dict[str, Path], exported: Export, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "graph", 10, length_us=10)
    (tmp_path / "watts").write_text("# two cores\nbase 20\n\ncpu 3 9  # most\ncpu1 2 9 4\n")
    done = run_program(
        programs["native"],
        exported(f"{EXPORTABLE}.LeastIdleWatts"),
        "least_idle_watts",
        graph,
        "costs",
        home=tmp_path,
        STARPU_NCPU="2",
        DAHL_WATTS_FILE=str(tmp_path / "watts"),
    )
    assert done.stdout.split() == ["1"] * 10, done.stderr


@pytest.mark.parametrize(
    ("file", "environment", "message"),
    [
        (None, {}, "the watts of CPU workers are unknown"),
        (None, {"DAHL_CPU_IDLE_W": "1", "DAHL_CPU_BUSY_W": "2"}, "set DAHL_BASE_W"),
        (None, {"DAHL_CPU_IDLE_W": "1"}, "DAHL_CPU_IDLE_W is set and DAHL_CPU_BUSY_W is not"),
        (None, {"DAHL_BASE_W": "many"}, "DAHL_BASE_W must be watts, 0 or more, got 'many'"),
        ("base 20\ncpu 9 3\n", {}, "watts:2: watts must be 0 <= idle <= busy, got idle 9 and busy 3"),
        ("base 20\ncpu 3\n", {}, "watts:2: expected `base WATTS` or"),
        ("base 20\n1cpu 3 4\n", {}, "watts:2: '1cpu' names no worker"),
    ],
)
def test_missing_or_wrong_watts_stop_the_program_before_its_first_task(
    file: str | None,
    environment: dict[str, str],
    message: str,
    programs: dict[str, Path],
    exported: Export,
    tmp_path: Path,
) -> None:
    graph = write_graph(tmp_path / "graph", 4, length_us=10)
    if file:
        (tmp_path / "watts").write_text(file)
        environment = {**environment, "DAHL_WATTS_FILE": str(tmp_path / "watts")}
    library = exported("schedulers.EagerEnergy")
    done = run_program(
        programs["native"], library, "eager_energy", graph, "costs", home=tmp_path, **environment
    )
    assert done.returncode == 1
    (line,) = said_by_policy(done.stderr)
    assert message in line
    assert done.stdout == ""


# ---- what cannot be exported ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eager"], "no policy 'eager'; there are "),
        (["nowhere.Policy"], "no policy 'nowhere.Policy': No module named 'nowhere'"),
        (["schedulers.StarPUScheduler"], "schedulers.StarPUScheduler is not a policy"),
        (["eager_energy", "speed=3"], "'speed=3' sets no field of EagerEnergy; it has wait_weight"),
        (["eager_energy", "wait_weight=much"], "wait_weight of EagerEnergy is a float, got 'much'"),
        (
            ["eager_energy", "wait_weight=-1"],
            "EagerEnergy: wait_weight must be a number at least 0 and at most 1e+06, got -1",
        ),
        ([f"{TEST_POLICIES}.Plans"], "Plans plans in Python before each epoch"),
        ([f"{TEST_POLICIES}.Uncompilable"], "policy Uncompilable: pick or a hook cannot be compiled"),
        ([f"{EXPORTABLE}.MakesAnArray"], "policy makes_an_array cannot leave Python: it calls NRT_"),
        ([f"{EXPORTABLE}.ReadsABigArray"], "the policy uses a global array"),
        (
            ["eager_energy", "--needs", "lengths"],
            "EagerEnergy needs length_s, energy_j, idle_w: --needs costs, got lengths",
        ),
        (["eager_energy", "--prefix", "/nowhere"], "run scripts/get-starpu"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "policy.so"
    assert export.main([*arguments, "-o", str(target)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_plans_can_be_exported_without_its_plan(tmp_path: Path) -> None:
    target = tmp_path / "policy.so"
    assert export.main([f"{TEST_POLICIES}.Plans", "-o", str(target), "--skip-plan"]) == 0
    assert target.exists()


def test_every_policy_of_the_package_is_found_by_the_name_of_its_file() -> None:
    names = export.known_policies()
    assert "eager_energy" in names
    assert StarPUScheduler not in names.values()
    for name, owner in names.items():
        assert owner.__module__ == f"schedulers.{name}"
        assert export.find_policy(name) is export.find_policy(owner.__name__) is owner


# ---- StarPU's own Cholesky example ----

CHOLESKY = {"potrf": 16, "trsm": 120, "syrk": 120, "gemm": 560}
"""Tasks of each kind for 16 x 16 tiles: n, n(n-1)/2, n(n-1)/2 and n(n-1)(n-2)/6."""


def build_cholesky(variant: str) -> Path:
    command = [sys.executable, "scripts/build-cholesky", "--variant", variant]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def counts_by(stats: Path, column: str) -> dict[str, int]:
    table: dict[str, int] = {}
    for row in count_table(stats):
        table[row[column]] = table.get(row[column], 0) + int(row["tasks"])
    return table


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["schedulers.EagerEnergy", f"{TEST_POLICIES}.EarliestFinish"])
def test_starpus_cholesky_ends_with_a_right_result(policy: str, exported: Export, tmp_path: Path) -> None:
    """The program multiplies its factor out again and aborts where an element is off by more than 1e-4."""
    library, name, stats = exported(policy), policy.rpartition(".")[2], tmp_path / "stats.tsv"
    settings = {**WATTS, "DAHL_POLICY_STATS": str(stats), "OPENBLAS_NUM_THREADS": "1"}
    settings["STARPU_HISTORY_MAX_ERROR"] = "100000"
    for run in range(2):
        arguments = ("-size", "3200", "-nblocks", "16", "-check")
        done = run_program(build_cholesky("native"), library, name, *arguments, home=tmp_path, **settings)
        assert done.returncode == 0, done.stderr
        assert "comparing results" in done.stderr
        kinds = counts_by(stats, "codelet")
        assert {kind.removeprefix("chol_model_"): count for kind, count in kinds.items()} == CHOLESKY
        assert (total(stats, "spread") > 0) == (run == 0)


@pytest.mark.slow
def test_cholesky_on_a_simulated_machine_uses_its_gpus_for_nearly_all_of_the_work(
    exported: Export, tmp_path: Path
) -> None:
    """StarPU brings measured models of mirage: 12 cores of which 3 drive the 3 GPUs."""
    library, stats = exported("schedulers.EagerEnergy", variant="simgrid"), tmp_path / "stats.tsv"
    settings = {**WATTS, "DAHL_POLICY_STATS": str(stats), "STARPU_HOSTNAME": "mirage", "STARPU_NCUDA": "3"}
    arguments = ("-size", "15360", "-nblocks", "16")
    program = build_cholesky("simgrid")
    done = run_program(program, library, "eager_energy", *arguments, home=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert said_by_policy(done.stderr) == []
    workers = counts_by(stats, "name")
    assert sum(name.startswith("CUDA") for name in workers) == 3
    assert sum(workers.values()) == sum(CHOLESKY.values())
    assert sum(count for name, count in workers.items() if name.startswith("CUDA")) > 700
