"""The cases of test_ops_cuda.py and test_ops_cuda_fused.py on a real GPU, each as a task of StarPU's."""

from __future__ import annotations

import numpy as np
import pytest

from dahl import starpu
from dahl.context import Context
from dahl.starpu.launch import FAILURES

from . import test_ops_cuda, test_ops_cuda_fused
from .test_ops_cuda import *  # noqa: F403 - the tests themselves, collected a second time
from .test_ops_cuda_fused import *  # noqa: F403 - likewise

pytestmark = pytest.mark.gpu  # instead of the marks that came with the tests


class Card:
    """Runs one operation at a time on the first GPU. A task that failed ends StarPU, so another one is started."""

    def __init__(self):
        self._runtime = None

    def close(self):
        """Shut StarPU down."""
        if self._runtime:
            self._runtime.__exit__(None, None, None)
        self._runtime = None

    def run(self, operation, operands, scalars):
        """Outputs by name and the failure's number, after two runs gave the same bits."""
        first, second = self._once(operation, operands, scalars), self._once(operation, operands, scalars)
        assert first[1] == second[1]
        for name, array in first[0].items():
            assert array.tobytes() == second[0][name].tobytes(), f"{name} is another each time"
        return first

    def _once(self, operation, operands, scalars):
        if self._runtime is None:
            self._runtime = starpu.Runtime(cpu_workers=0, gpu_workers=1, scheduler="eager").__enter__()
        context = Context(self._runtime)
        tensors = [self._tensor(context, operands[operand.name]) for operand in operation.kernel.operands]
        context.submit(operation, *tensors, **scalars)
        try:
            self._runtime.wait_all()
        except starpu.KernelError as error:
            self.close()
            return {}, next(number for number, words in FAILURES.items() if words in str(error))
        named = zip(operation.kernel.operands, tensors, strict=True)
        return {operand.name: tensor.numpy() for operand, tensor in named if operand.mode != "r"}, 0

    @staticmethod
    def _tensor(context, value):
        if not isinstance(value, list):
            return context.tensor(value)
        tensor = context.per_tile(value[0].shape, len(value), dtype=value[0].dtype)
        tensor.write(np.stack(value))
        return tensor


@pytest.fixture(scope="module", autouse=True)
def card():
    """The first GPU in the place of the host."""
    one = Card()
    with pytest.MonkeyPatch.context() as patch:
        for module in (test_ops_cuda, test_ops_cuda_fused):
            patch.setattr(module, "run_on_host", one.run)
        yield one
    one.close()
