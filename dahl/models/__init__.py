"""The models that are trained, each a function that returns its layers."""

from dahl.models.basic_cnn import basic_cnn
from dahl.models.lenet import lenet

__all__ = ["basic_cnn", "lenet"]
