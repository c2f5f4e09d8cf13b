"""A small network: one convolution of four filters."""

from __future__ import annotations

from dahl.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


def basic_cnn(classes: int = 10, filters: int = 4) -> Sequential:
    """Convolution 3x3, ReLU, max-pooling by 2, linear; on images of 28x28 the linear layer has 676 inputs.

    Channels and size of the images follow the data set; a pixel left over by the pooling is left out.
    """
    layers = (Conv2d(filters), ReLU(), MaxPool2d(2), Flatten(), Linear(classes))
    return Sequential(layers, name="basic_cnn")
