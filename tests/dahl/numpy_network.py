"""One training step of the two models in plain NumPy, float64, written without dahl.

Sources: the layers' textbook definitions; `torch.optim.SGD`'s formula for the update.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_LAYERS = {
    "basic_cnn": ("conv1", "relu", "pool", "linear1"),
    "lenet": ("conv1", "relu", "pool", "conv2", "relu", "pool", "linear1", "relu", "linear2"),
}


def _conv(x, weight, bias):
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncijab,fcab->nfij", windows, weight, optimize=True) + bias[:, None, None]


def _conv_backward(x, weight, dy):
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    dw = np.einsum("ncijab,nfij->fcab", windows, dy, optimize=True)
    kh, kw = weight.shape[2:]
    around = np.pad(dy, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    turned = sliding_window_view(around, (kh, kw), axis=(2, 3))[..., ::-1, ::-1]
    dx = np.einsum("nfijab,fcab->ncij", turned, weight, optimize=True)
    return dx, dw, dy.sum(axis=(0, 2, 3))


def _squares(x):
    n, c, height, width = x.shape
    rows, columns = height // 2, width // 2
    cut = x[:, :, : 2 * rows, : 2 * columns].reshape(n, c, rows, 2, columns, 2)
    return cut.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, rows, columns, 4)


def _pool_backward(x, dy):
    squares = _squares(x)
    chosen = np.arange(4) == squares.argmax(axis=-1)[..., None]
    n, c, rows, columns, _ = squares.shape
    spread = (chosen * dy[..., None]).reshape(n, c, rows, columns, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    dx = np.zeros_like(x)
    dx[:, :, : 2 * rows, : 2 * columns] = spread.reshape(n, c, 2 * rows, 2 * columns)
    return dx


def forward(parameters, images, model_name):
    """Logits, and the input of every layer."""
    x, inputs = np.asarray(images, np.float64), []
    for layer in _LAYERS[model_name]:
        if layer.startswith("linear"):
            x = x.reshape(len(x), -1)
        inputs.append(x)
        if layer.startswith("conv"):
            x = _conv(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
        elif layer == "relu":
            x = np.maximum(x, 0)
        elif layer == "pool":
            x = _squares(x).max(axis=-1)
        else:
            x = x @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
    return x, inputs


def mean_loss(parameters, images, labels, model_name):
    """Mean cross-entropy of the batch."""
    logits, _ = forward(parameters, images, model_name)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -logarithms[np.arange(len(labels)), labels].mean()


def gradients(parameters, images, labels, model_name):
    """Gradient of the mean loss to every parameter, by name."""
    logits, inputs = forward(parameters, images, model_name)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    dy = exponentials / exponentials.sum(axis=1, keepdims=True)
    dy[np.arange(len(labels)), labels] -= 1
    dy /= len(labels)
    found = {}
    for layer, x in zip(reversed(_LAYERS[model_name]), reversed(inputs), strict=True):
        if layer.startswith("linear"):
            found[f"{layer}.weight"], found[f"{layer}.bias"] = dy.T @ x, dy.sum(axis=0)
            dy = dy @ parameters[f"{layer}.weight"]
        elif layer == "relu":
            dy = dy * (x > 0)
        elif layer == "pool":
            n, c, height, width = x.shape
            dy = _pool_backward(x, dy.reshape(n, c, height // 2, width // 2))
        else:
            dy, found[f"{layer}.weight"], found[f"{layer}.bias"] = _conv_backward(
                x, parameters[f"{layer}.weight"], dy
            )
    return found


def train_step(parameters, images, labels, model_name, lr, momentum, wd, velocity):
    """New parameters and velocity, by name, and the mean loss before the step.

    parameters, velocity: name -> float64 array, as conv1.weight (F, C, kh, kw), linear1.bias (units,).
    images (N, C, H, W) float, labels (N,) integers. The first step has a velocity of zeros.
    """
    loss = mean_loss(parameters, images, labels, model_name)
    new_parameters, new_velocity = {}, {}
    for name, gradient in gradients(parameters, images, labels, model_name).items():
        decayed = gradient + wd * parameters[name]
        new_velocity[name] = momentum * velocity[name] + decayed
        new_parameters[name] = parameters[name] - lr * new_velocity[name]
    return new_parameters, new_velocity, loss
