"""The C layer and Python agree on what they share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dahl.starpu
from dahl.starpu import binding, errors
from dahl.starpu.task import NODE
from dahl.starpu.trace import DECISION, TRACE
from schedulers import views

HEADER = Path(dahl.starpu.__file__).parent / "csrc" / "dahl.h"
STATUSES = {name: int(value) for name, value in re.findall(r"DAHL_([A-Z_]+) = (\d+)", HEADER.read_text())}


def test_every_status_of_the_c_layer_has_its_error_class() -> None:
    assert len(STATUSES) == 20
    assert {value for value in STATUSES.values() if value} == set(errors.ERRORS)


@pytest.mark.parametrize("status", sorted(errors.ERRORS))
def test_a_status_raises_its_error_and_says_what_was_being_done(status: int) -> None:
    with pytest.raises(errors.ERRORS[status], match="while testing"):
        errors.check(status, "while testing")


def test_a_status_of_no_error_raises_nothing_and_an_unknown_one_is_named() -> None:
    errors.check(0, "while testing")
    with pytest.raises(errors.StarPUError, match="unknown status 999"):
        errors.check(999, "while testing")


@pytest.mark.parametrize(
    ("dtype", "struct"),
    [
        (NODE, "dahl_node"),
        (TRACE, "dahl_trace_record"),
        (views.TASK, "dahl_task_view"),
        (views.READY, "dahl_ready_view"),
        (views.WORKER, "dahl_worker_view"),
        (views.SYSTEM, "dahl_system_view"),
        (DECISION, "dahl_decision"),
    ],
)
def test_a_record_of_python_has_the_layout_of_its_c_structure(dtype: np.dtype, struct: str) -> None:
    ffi = binding.load("native").ffi
    fields = dict(ffi.typeof(struct).fields)
    assert dtype.names is not None
    assert set(dtype.names) == set(fields)
    assert dtype.itemsize == ffi.sizeof(struct)
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        assert offset == fields[name].offset, name
        assert field.itemsize == ffi.sizeof(fields[name].type), name


def test_starpu_is_at_least_1_4_and_its_limits_fit_big_nodes() -> None:
    module = binding.load("native")
    assert tuple(int(part) for part in dahl.starpu.version().split(".")) >= (1, 4)
    cpus, gpus, buffers = (module.ffi.new("int *") for _ in range(3))
    module.lib.dahl_limits(cpus, gpus, buffers)
    assert cpus[0] >= 256
    assert buffers[0] >= 8


def test_a_second_variant_in_one_process_is_refused() -> None:
    binding.load("native")
    with pytest.raises(errors.VariantError, match="process of its own"):
        binding.load("simgrid")
