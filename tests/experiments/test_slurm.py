"""A sweep on a real Slurm of one node, started here and ended with the test."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.validation import CHECKOUT
from tests.experiments.conftest import wait_for

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why Slurm cannot be started here; empty where it can."""
    absent = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge"
    if importlib.util.find_spec("submitit") is None:
        return "no submitit here: pip install 'dahl[slurm]'"
    return "" if os.geteuid() == 0 else "only root can start slurmd"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() != "", reason=missing() or "Slurm is here"),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of a Slurm that has this machine for its node."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIG.format(host=host, folder=folder, ports=free_ports(2), processors=os.cpu_count())
    )
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    where = environment | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    munged = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={folder}/key",
        f"--socket={folder}/munge.socket",
    ]
    munged += [
        f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/seed",
    ]
    commands = [munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c", "-N", host]]
    daemons = []
    with open(folder / "daemons.log", "wb") as log:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=where, stdout=log, stderr=log))
            if command is munged:
                wait_for((folder / "munge.socket").exists)

    def is_idle() -> bool:
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=where, capture_output=True, text=True
        )
        return asked.stdout.strip() == "idle"

    try:
        wait_for(is_idle, limit_s=60)
        yield where
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def sweep(slurm: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    small = (
        "scheduler=eager",
        "dataset=synthetic",
        "dataset.train_size=320",
        "dataset.test_size=64",
        "epochs=1",
    )
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.run",
            "-m",
            "hydra/launcher=slurm",
            f"output={folder}/runs",
            *small,
            *arguments,
        ],
        env=slurm,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_trials_are_jobs_that_leave_the_records_of_any_other_and_fail_by_themselves(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    done = sweep(slurm, tmp_path, "platform=host,cpu8_gpu2", "timeout_s=100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted 2 trials as Slurm's jobs" in done.stdout
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/trials/*/summary.json")]
    assert {(one["platform"], one["status"]) for one in found} == {
        ("host", "finished"),
        ("cpu8_gpu2", "finished"),
    }
    assert {path.parent.name for path in tmp_path.glob("runs/.sweeps/*/.slurm/*_log.out")} == {".slurm"}
    assert done.stdout.count("records: ") == 2

    failing = sweep(slurm, tmp_path, "platform=cpu8_gpu2", "timeout_s=0.01", "seed=1")
    assert failing.returncode == 1
    assert "took longer than timeout_s=0.01" in failing.stdout
    resumed = sweep(slurm, tmp_path, "platform=cpu8_gpu2", "seed=0,1", "resume=true")
    assert resumed.returncode == 1, "the failure is an outcome"
    assert (resumed.stdout.count("finished already: "), resumed.stdout.count("failed already: ")) == (1, 1)


def test_options_that_sbatch_does_not_know_are_refused(slurm: dict[str, str], tmp_path: Path) -> None:
    done = sweep(slurm, tmp_path, "+hydra.launcher.patrition=x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: hydra.launcher: ")
    assert "patrition" in done.stderr
