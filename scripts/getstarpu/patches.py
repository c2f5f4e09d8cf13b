"""Changes to StarPU's sources that the `cuda` variant needs; the other variants do not compile these lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from getstarpu.process import GetStarpuError

_DRIVER = "src/drivers/cuda/driver_cuda.c"


@dataclass(frozen=True)
class Patch:
    """One text in one file that another one replaces, and why."""

    name: str
    file: str
    old: str
    new: str


PATCHES = (
    Patch(
        # CUDA 13 has removed the field.
        name="compute-mode",
        file=_DRIVER,
        old="\tif (props[devid].computeMode == cudaComputeModeExclusive)\n",
        new=(
            "\tint compute_mode = cudaComputeModeDefault;\n"
            "\tcures = cudaDeviceGetAttribute(&compute_mode, cudaDevAttrComputeMode, devid);\n"
            "\tif (STARPU_UNLIKELY(cures))\n"
            "\t\tSTARPU_CUDA_REPORT_ERROR(cures);\n"
            "\tif (compute_mode == cudaComputeModeExclusive)\n"
        ),
    ),
    Patch(
        # A worker that has a task under way stays awake in blocking drivers too (`executing` in
        # _starpu_get_multi_worker_task), so it does look for the task's end; without the next task in the pipeline
        # the GPU would wait for the CPU between any two tasks.
        name="pipeline",
        file=_DRIVER,
        old=(
            "#if !defined(STARPU_SIMGRID) && !defined(STARPU_NON_BLOCKING_DRIVERS)\n"
            "\t\tif (worker->pipeline_length >= 1)\n"
        ),
        new="#if 0\n\t\tif (worker->pipeline_length >= 1)\n",
    ),
)


def apply_patches(tree: Path) -> None:
    """Change the sources in place.

    Raises:
        GetStarpuError: a text is not there exactly once: these sources are of a StarPU that nobody has tried.
    """
    for patch in PATCHES:
        file = tree / patch.file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if text.count(patch.old) != 1:
            raise GetStarpuError(
                f"the change {patch.name!r} does not fit {patch.file} of this StarPU;"
                " build without CUDA (--no-cuda), or name the sources of StarPU 1.4.10 in STARPU_SRC"
            )
        file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
