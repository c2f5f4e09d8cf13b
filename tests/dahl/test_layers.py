from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dahl.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from dahl.models import basic_cnn, lenet
from dahl.ops import ShapeError

from . import numpy_network
from .direct_context import DirectContext
from .operation_checks import central_difference

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
MODELS = {"basic_cnn": basic_cnn, "lenet": lenet}


def batch(count, shape, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape), dtype=np.float32), rng.integers(0, classes, count).astype(
        np.int32
    )


def step(network, learning_rate=0.05, momentum=0.9, weight_decay=0.01):
    network.forward()
    network.loss_and_gradient()
    network.backward()
    network.update(learning_rate, momentum, weight_decay)


def values(parameters, part="value"):
    return {p.name: getattr(p, part).numpy().astype(np.float64) for p in parameters}


@pytest.mark.parametrize(
    ("name", "shape", "count", "tile"),
    [
        ("basic_cnn", (1, 28, 28), 12, 5),
        ("basic_cnn", (3, 9, 12), 7, 7),
        ("lenet", (1, 28, 28), 5, 2),
        ("lenet", (3, 17, 19), 4, 1),
    ],
)
def test_two_training_steps_match_plain_numpy(name, shape, count, tile):
    ctx, model = DirectContext(), MODELS[name](classes=7)
    parameters = model.parameters(ctx, shape, seed=3)
    network = model.network(ctx, parameters, shape, batch=count, tile=tile)
    expected, velocity = values(parameters), values(parameters, "velocity")
    for seed in range(2):
        images, labels = batch(count, shape, classes=7, seed=seed)
        network.input.write(images)
        network.labels.write(labels)
        step(network)
        expected, velocity, loss = numpy_network.train_step(
            expected, images, labels, name, lr=0.05, momentum=0.9, wd=0.01, velocity=velocity
        )
        np.testing.assert_allclose(network.loss.numpy().sum() / count, loss, rtol=1e-5)
    for parameter in parameters:
        np.testing.assert_allclose(parameter.value.numpy(), expected[parameter.name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parameter.velocity.numpy(), velocity[parameter.name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["basic_cnn", "lenet"])
def test_the_plain_network_has_the_gradient_of_its_loss(name):
    shape, model = (2, 10, 11), {"basic_cnn": basic_cnn(classes=3), "lenet": lenet(3, (2, 3), 4)}[name]
    parameters = values(model.parameters(DirectContext(), shape, seed=0))
    images, labels = batch(3, shape, classes=3)
    found = numpy_network.gradients(parameters, images, labels, name)
    assert set(found) == set(parameters)
    for changed in parameters:

        def loss(value, changed=changed):
            return numpy_network.mean_loss({**parameters, changed: value}, images, labels, name)

        expected = central_difference(loss, parameters[changed])
        np.testing.assert_allclose(found[changed], expected, atol=1e-7, err_msg=changed)


def trained_weights(tile, count=6):
    ctx, model, shape = DirectContext(), lenet(), (1, 12, 12)
    parameters = model.parameters(ctx, shape, seed=1)
    network = model.network(ctx, parameters, shape, batch=count, tile=tile)
    images, labels = batch(count, shape)
    network.input.write(images)
    network.labels.write(labels)
    step(network)
    return np.concatenate([parameter.value.numpy().ravel() for parameter in parameters])


def test_one_tile_and_many_tiles_learn_the_same_within_rounding():
    whole, cut = trained_weights(tile=6), trained_weights(tile=4)
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(cut, trained_weights(tile=4))


def test_layers_of_other_strides_and_paddings_train_with_the_gradient_of_their_loss():
    layers = (ReLU(), Conv2d(3, 2, 2, 1), MaxPool2d(3), ReLU(), Conv2d(2, 1), Flatten(), ReLU(), Linear(4))
    ctx, model, shape = DirectContext(), Sequential(layers), (2, 11, 13)
    parameters = model.parameters(ctx, shape, seed=0)
    network = model.network(ctx, parameters, shape, batch=4, tile=3)
    images, labels = batch(4, shape, classes=4)
    network.input.write(images)
    network.labels.write(labels)
    network.forward()
    network.loss_and_gradient()
    network.backward()
    np.testing.assert_array_equal(network.input.numpy(), images)

    def mean_loss(parameter, change):
        before = parameter.value.numpy()
        parameter.value.write((before + change).astype(np.float32))
        network.forward()
        network.measure_loss()
        parameter.value.write(before)
        return network.loss.numpy().sum() / 4

    rng = np.random.default_rng(0)
    for parameter in parameters:
        direction = rng.standard_normal(parameter.value.shape)
        slope = (mean_loss(parameter, 1e-3 * direction) - mean_loss(parameter, -1e-3 * direction)) / 2e-3
        expected = (parameter.gradient.numpy() * direction).sum()
        np.testing.assert_allclose(slope, expected, rtol=2e-2, atol=2e-4, err_msg=parameter.name)


def test_the_first_layer_computes_no_gradient_of_the_images():
    ctx, model = DirectContext(), basic_cnn()
    network = model.network(ctx, model.parameters(ctx, (1, 8, 8), 0), (1, 8, 8), batch=2, tile=1)
    network.input.write(batch(2, (1, 8, 8))[0])
    network.labels.write(np.zeros(2, np.int32))
    step(network)
    assert "conv2d_backward_weight" in ctx.submitted
    assert "conv2d_backward_input" not in ctx.submitted


def test_evaluation_shares_the_weights_and_has_no_gradients():
    ctx, model, shape = DirectContext(), basic_cnn(), (1, 9, 9)
    parameters = model.parameters(ctx, shape, seed=0)
    network = model.network(ctx, parameters, shape, batch=7, tile=3, training=False)
    images, labels = batch(7, shape)
    network.input.write(images)
    network.labels.write(labels)
    network.forward()
    network.measure_loss()
    network.count_correct()
    weights = values(parameters)
    logits, _ = numpy_network.forward(weights, images, "basic_cnn")
    loss = numpy_network.mean_loss(weights, images, labels, "basic_cnn")
    assert network.correct.numpy().sum() == (logits.argmax(axis=1) == labels).sum()
    np.testing.assert_allclose(network.loss.numpy().sum() / 7, loss, rtol=1e-5)
    for refused in (network.loss_and_gradient, network.backward):
        with pytest.raises(RuntimeError, match="training=False"):
            refused()


def test_the_sizes_of_the_two_models_on_28x28():
    rows = basic_cnn().describe((1, 28, 28))
    assert [row.output_shape for row in rows] == [(4, 26, 26), (4, 26, 26), (4, 13, 13), (676,), (10,)]
    assert [row.parameters for row in rows] == [40, 0, 0, 0, 6770]
    assert [row.layer for row in rows] == ["conv 4 3x3", "relu", "max-pool 2", "flatten", "linear 10"]
    rows = lenet().describe((1, 28, 28))
    assert sum(row.parameters for row in rows) == 320 + 18496 + 204928 + 1290


def test_parameters_start_as_documented_and_follow_the_seed():
    model, shape = lenet(), (3, 12, 12)
    made = model.parameters(DirectContext(), shape, seed=5)
    names = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    names += ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
    assert [parameter.name for parameter in made] == names
    fan_in = dict(zip(names, [27, 27, 288, 288, 64, 64, 128, 128], strict=True))
    generator = np.random.Generator(np.random.PCG64(5))
    for parameter in made:
        bound = fan_in[parameter.name] ** -0.5
        drawn = generator.uniform(-bound, bound, parameter.value.shape).astype(np.float32)
        np.testing.assert_array_equal(parameter.value.numpy(), drawn)
        assert not parameter.velocity.numpy().any()
    other = model.parameters(DirectContext(), shape, seed=6)
    assert (other[0].value.numpy() != made[0].value.numpy()).any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 3), r"lenet on images of 1x3x3: layer 3 \(max-pool 2\) cannot take 32x1x1"),
        ((3, 9, 9), r"lenet on images of 3x9x9: layer 6 \(max-pool 2\) cannot take 64x1x1"),
        ((1, 28), "takes images of channels x height x width, got 1x28"),
    ],
)
def test_an_image_that_is_too_small_is_refused_with_its_sizes(shape, message):
    with pytest.raises(ShapeError, match=message):
        lenet().output_shape(shape)


def test_a_model_takes_the_number_of_classes_of_its_data_set():
    assert basic_cnn().with_classes(37).output_shape((1, 28, 28)) == (37,)
    with pytest.raises(ValueError, match="does not end in Linear"):
        Sequential((Flatten(),)).with_classes(3)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="filters must be at least 1, got 0"):
        Conv2d(0)
    with pytest.raises(ValueError, match="padding must not be negative, got -1"):
        Conv2d(1, padding=-1)
    with pytest.raises(ShapeError, match="put Flatten before it"):
        Sequential((Conv2d(2), Linear(3))).output_shape((1, 5, 5))
    ctx, model = DirectContext(), basic_cnn()
    parameters = model.parameters(ctx, (1, 8, 8), seed=0)
    with pytest.raises(ValueError, match="a tile of 5 for a batch of 4"):
        model.network(ctx, parameters, (1, 8, 8), batch=4, tile=5)
    with pytest.raises(ShapeError, match="basic_cnn needs parameters of shapes"):
        model.network(ctx, parameters, (3, 8, 8), batch=4, tile=2)
    unflat = Sequential((Conv2d(2),))
    parameters = unflat.parameters(ctx, (1, 8, 8), seed=0)
    with pytest.raises(ShapeError, match="must end in one row per image"):
        unflat.network(ctx, parameters, (1, 8, 8), batch=1, tile=1)


@pytest.mark.parametrize("name", ["basic_cnn", "lenet"])
def test_the_config_file_names_the_model(name):
    model = instantiate(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    assert model.describe((1, 28, 28)) == MODELS[name]().describe((1, 28, 28))
