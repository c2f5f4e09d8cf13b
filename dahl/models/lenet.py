"""A network of two convolutions and two linear layers."""

from __future__ import annotations

from dahl.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


def lenet(classes: int = 10, filters: tuple[int, int] = (32, 64), units: int = 128) -> Sequential:
    """Two rounds of convolution 3x3, ReLU and max-pooling by 2, then linear, ReLU, linear.

    After LeNet-5 (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998), with more filters, ReLU and max-pooling.
    Channels and size of the images follow the data set; they need at least 10x10 pixels.
    """
    first, second = filters
    convolutions = (Conv2d(first), ReLU(), MaxPool2d(2), Conv2d(second), ReLU(), MaxPool2d(2))
    return Sequential((*convolutions, Flatten(), Linear(units), ReLU(), Linear(classes)), name="lenet")
