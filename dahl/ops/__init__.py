"""Operations on tensors, each with its CPU kernel, its cost and its NumPy reference."""

from dahl.ops.accuracy import ACCURACY
from dahl.ops.bias import BIAS_2D, BIAS_4D, BIAS_GRADIENT_2D, BIAS_GRADIENT_4D
from dahl.ops.cnn_step import CNN_EVALUATION, CNN_STEP, CNN_UPDATE_STEP
from dahl.ops.conv2d import CONV2D, CONV2D_BACKWARD_INPUT, CONV2D_BACKWARD_WEIGHT
from dahl.ops.gather import GATHER
from dahl.ops.gradient_sum import GRADIENT_SUM
from dahl.ops.lenet_step import LENET_EVALUATION, LENET_STEP, LENET_UPDATE_STEP
from dahl.ops.linear import LINEAR, LINEAR_BACKWARD_INPUT, LINEAR_BACKWARD_WEIGHT
from dahl.ops.max_pool2d import MAX_POOL2D, MAX_POOL2D_BACKWARD
from dahl.ops.operation import Cost, Operation, ShapeError
from dahl.ops.record import RECORD, RECORD_COUNT
from dahl.ops.relu import RELU, RELU_BACKWARD, RELU_BACKWARD_IN_PLACE, RELU_IN_PLACE
from dahl.ops.sgd import SGD
from dahl.ops.softmax_cross_entropy import CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from dahl.ops.sum_and_step import SUM_AND_STEP

_ALL = (
    GATHER,
    CONV2D,
    CONV2D_BACKWARD_INPUT,
    CONV2D_BACKWARD_WEIGHT,
    BIAS_2D,
    BIAS_4D,
    BIAS_GRADIENT_2D,
    BIAS_GRADIENT_4D,
    *RELU.values(),
    *RELU_IN_PLACE.values(),
    *RELU_BACKWARD.values(),
    *RELU_BACKWARD_IN_PLACE.values(),
    MAX_POOL2D,
    MAX_POOL2D_BACKWARD,
    LINEAR,
    LINEAR_BACKWARD_INPUT,
    LINEAR_BACKWARD_WEIGHT,
    SOFTMAX_CROSS_ENTROPY,
    CROSS_ENTROPY,
    ACCURACY,
    *GRADIENT_SUM.values(),
    *SGD.values(),
    RECORD,
    RECORD_COUNT,
    CNN_STEP,
    CNN_UPDATE_STEP,
    CNN_EVALUATION,
    LENET_STEP,
    LENET_UPDATE_STEP,
    LENET_EVALUATION,
    SUM_AND_STEP,
)

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _ALL}
"""Every operation by its name."""

__all__ = [
    "ACCURACY",
    "BIAS_2D",
    "BIAS_4D",
    "BIAS_GRADIENT_2D",
    "BIAS_GRADIENT_4D",
    "CNN_EVALUATION",
    "CNN_STEP",
    "CNN_UPDATE_STEP",
    "CONV2D",
    "CONV2D_BACKWARD_INPUT",
    "CONV2D_BACKWARD_WEIGHT",
    "CROSS_ENTROPY",
    "GATHER",
    "GRADIENT_SUM",
    "LENET_EVALUATION",
    "LENET_STEP",
    "LENET_UPDATE_STEP",
    "LINEAR",
    "LINEAR_BACKWARD_INPUT",
    "LINEAR_BACKWARD_WEIGHT",
    "MAX_POOL2D",
    "MAX_POOL2D_BACKWARD",
    "OPERATIONS",
    "RECORD",
    "RECORD_COUNT",
    "RELU",
    "RELU_BACKWARD",
    "RELU_BACKWARD_IN_PLACE",
    "RELU_IN_PLACE",
    "SGD",
    "SOFTMAX_CROSS_ENTROPY",
    "SUM_AND_STEP",
    "Cost",
    "Operation",
    "ShapeError",
]
