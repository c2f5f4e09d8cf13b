"""A training so small that a GPU's functions, run on the host thread by thread, take it in a second."""

from dahl.datasets import Dataset, Synthetic
from dahl.models import basic_cnn, lenet

MODELS = {"basic_cnn": basic_cnn(), "lenet": lenet(filters=(16, 16), units=16)}
BATCH, TILE, EPOCHS = 8, 4, 2


def dataset() -> Dataset:
    """Two full mini-batches and a shorter one."""
    return Synthetic(height=10, width=12, train_size=19, test_size=5).load()
