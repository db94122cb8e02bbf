"""Layers: order of operations, initial weights, where they run, files."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kconvert_contrib import analog
from kconvert_contrib.analog.transforms import clamp_weight

from . import reference

QUIET = analog.MockParameter(noise_std=0.0)


def inputs(*shape):
    return np.random.default_rng(1).uniform(0, 31, shape).astype(np.float32)


def test_dense_averages_then_adds_the_bias_on_the_chip():
    layer = analog.Dense(3, avg=4, mock=QUIET)
    x = inputs(5, 2, 150)
    y = layer(x)
    kernel, bias = (np.array(w) for w in layer.get_weights())
    products = reference.matmul(x.reshape(-1, 150), np.repeat(kernel, 4, axis=1), layer.num_sends)
    expected = reference.add(products.reshape(5, 2, 3, 4).mean(-1), bias)
    np.testing.assert_array_equal(y, expected)
    assert y.shape == layer.compute_output_shape(x.shape)


def test_mean_of_neurons_is_not_rounded():
    device = analog.MockDevice(seed=1)
    layer = analog.Dense(2, avg=2, use_bias=False)
    layer.device = device
    assert np.any(np.asarray(layer(inputs(20, 8))) % 1 == 0.5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolutions_add_the_bias_on_the_host(padding, strides):
    x = inputs(2, 7, 8, 3)
    layer = analog.Conv2D(4, (3, 2), strides, padding, mock=QUIET)
    plain = keras.layers.Conv2D(4, (3, 2), strides, padding)
    y = np.asarray(layer(x))
    assert y.shape == plain(x).shape == layer.compute_output_shape(x.shape)
    kernel, bias = layer.get_weights()
    plain.set_weights([np.round(kernel), np.zeros(4)])
    exact = np.asarray(plain(np.round(x))) * np.float32(layer.num_sends * 0.002)
    assert np.mean(np.abs(y - bias - reference.saturated(exact)) > 1e-3) < 0.01  # floors of other sums of floats
    line = analog.Conv1D(2, 3, strides, padding, mock=QUIET)
    assert line(x[:, 0]).shape == line.compute_output_shape(x[:, 0].shape)


@pytest.mark.parametrize(
    ("fan_in", "gain", "sends"), [(4, 0.002, 34), (128, 0.002, 6), (4, 0.00345, 20), (128, 0.00345, 4)]
)
def test_initial_weights(fan_in, gain, sends):
    with analog.set_mock_parameter(analog.MockParameter(gain=gain)):
        layer = analog.Dense(4000, mock=True)
    layer.build((None, fan_in))
    assert layer.num_sends == sends
    spread = 2 * math.sqrt(2) / gain / math.sqrt(fan_in)
    kernel, bias = layer.get_weights()
    cut = 63 / (spread / sends)  # of a normal distribution cut there, the variance:
    density, share = math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi), math.erf(cut / math.sqrt(2))
    assert kernel.std() == pytest.approx(spread / sends * math.sqrt(1 - 2 * cut * density / share), rel=0.02)
    assert np.abs(kernel).max() <= 63
    assert np.abs(bias).max() == pytest.approx(spread * math.sqrt(3) / 31, rel=0.01)


def test_weights_are_clamped_where_they_train():
    layer = analog.Dense(2, num_sends=1, use_bias=False, mock=QUIET)
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.set_weights([np.full((4, 2), 100.0)])
    x = np.full((8, 4), 31.0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), reference.matmul(x, np.full((4, 2), 63)))
    model.compile(keras.optimizers.SGD(10.0), "mse")
    model.fit(x, np.full((8, 2), -50.0), verbose=0)
    assert np.abs(layer.get_weights()[0]).max() <= 63
    assert np.any(layer.get_weights()[0] != 63)


def test_transforms():
    x = np.array([[0.0, 2.0], [4.0, 1.0]], np.float32)
    assert np.asarray(analog.scale_input(x)).max() == 31
    np.testing.assert_array_equal(analog.scale_input(-x), -x)
    assert np.abs(analog.scale_weight(-x)).max() == 63
    layer = analog.Dense(3, mock=QUIET, use_bias=False, input_transform="scale_input", weight_transform="scale_weight")
    y = layer(x)
    kernel = layer.get_weights()[0]
    kernel = kernel * (np.float32(63) / np.abs(kernel).max())
    np.testing.assert_array_equal(y, reference.matmul(x * np.float32(31 / 4), kernel, layer.num_sends))
    assert analog.Dense.from_config(layer.get_config()).input_transform is analog.scale_input
    with pytest.raises(analog.AnalogError, match="scale_input"):
        analog.Dense(3, input_transform="scale_inputs")


def everything():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            analog.Conv2D(3, 3, padding="same", mock=QUIET),
            analog.ConvertingReLU(1, mock=QUIET),
            keras.layers.Reshape((6, 18)),
            analog.Conv1D(4, 2, strides=2, mock=QUIET, use_bias=False),
            analog.ConvertingReLU(mock=QUIET),
            keras.layers.Flatten(),
            analog.Dense(5, avg=2, mock=QUIET, weight_transform=clamp_weight),
            analog.ReLU(mock=QUIET),
            keras.layers.Dense(2),
        ]
    )


def test_saved_and_loaded(tmp_path):
    model, x = everything(), inputs(3, 6, 6, 2)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    config = loaded.layers[0].get_config()
    assert config["mock"] == {"gain": 0.002, "noise_std": 0.0, "active": True}
    assert config["num_sends"] == model.layers[0].num_sends
    assert config["weight_transform"] == "clamp_weight"


def test_gradients_reach_every_weight():
    model = everything()
    before = [np.array(w) for w in model.get_weights()]
    model.compile(keras.optimizers.Adam(1.0), "mse")
    model.fit(inputs(8, 6, 6, 2), inputs(8, 2), verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_parameter_is_that_of_the_place_where_a_layer_was_made():
    with analog.set_mock_parameter(analog.MockParameter(1.0, 0.01)):
        inner = analog.Dense(2, mock=True)
    outer = analog.Dense(2, mock=True)
    assert (inner.parameter.gain, outer.parameter.gain, analog.mock_parameter().gain) == (0.01, 0.002, 0.002)
    with pytest.raises(KeyError), analog.set_mock_parameter(QUIET):
        raise KeyError
    assert analog.mock_parameter() == analog.MockParameter()


def test_mock_of_one_call():
    layer, x = analog.Dense(3, mock=QUIET), inputs(200, 50)
    quiet = np.asarray(layer(x))
    loud = np.asarray(layer(x, mock=analog.MockParameter(noise_std=3.0)))
    assert np.std(loud - quiet) > 2
    np.testing.assert_array_equal(layer(x), quiet)  # a call leaves nothing behind
    assert layer.parameter == QUIET
    layer.mock = analog.MockParameter(noise_std=3.0)
    assert np.std(layer(x) - quiet) > 2
    assert layer.get_config()["mock"] == {"gain": 0.002, "noise_std": 3.0, "active": True}


def test_errors_name_layer_and_value():
    with pytest.raises(analog.RangeError, match=r"layer 'first': an input .* 40"):
        analog.Dense(2, mock=True, name="first")(np.full((1, 3), 40.0))
    for options, words in (
        ({"units": 0}, "units"),
        ({"units": 2, "avg": 0}, "avg"),
        ({"units": 2, "num_sends": 0}, "sends"),
        ({"units": 2.0}, "units"),
    ):
        with pytest.raises(analog.AnalogError, match=f"layer 'd'.*{words}"):
            analog.Dense(**options, name="d")
    with pytest.raises(analog.AnalogError, match="padding"):
        analog.Conv2D(2, 3, padding="causal")
    with pytest.raises(analog.AnalogError, match="gain"):
        analog.MockParameter(gain=1.5)
    with pytest.raises(analog.AnalogError, match="volume"):
        analog.Dense(2, mock={"gain": 0.1, "volume": 11})


def test_a_call_has_the_gradient_of_its_own_gain():
    layer, x = analog.Dense(3, mock=QUIET), tf.constant(inputs(6, 4))
    layer(x)
    for mock, gain in ((None, 0.002), (analog.MockParameter(0.0, 0.01), 0.01)):
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, mock=mock)
            expected = gain * layer.num_sends * layer.get_weights()[0].sum(axis=1)
            np.testing.assert_allclose(tape.gradient(y, x)[0], expected, rtol=1e-4)


def test_repeated_calls_see_new_weights_and_settings():
    layer, x = analog.Dense(3, num_sends=1, mock=QUIET, use_bias=False), inputs(6, 4)
    for value, sends in ((1.0, 1), (1.0, 1), (30.0, 1), (30.0, 1), (30.0, 5)):
        layer.build(x.shape) if not layer.built else None
        layer.set_weights([np.full((4, 3), value)])
        layer.num_sends = sends
        np.testing.assert_array_equal(layer(x), reference.matmul(x, np.full((4, 3), value), sends))


def test_a_call_with_a_parameter_is_saved(tmp_path):
    given = keras.Input((4,))
    model = keras.Model(given, analog.Dense(3)(given, mock=QUIET))
    model.save(tmp_path / "m.keras")
    x = inputs(5, 4)
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    np.testing.assert_array_equal(keras.models.clone_model(loaded)(x).shape, (5, 3))


def test_a_file_loads_where_only_the_package_was_imported(tmp_path):
    everything().save(tmp_path / "m.keras")
    code = "import kconvert_contrib.analog, keras; print(len(keras.models.load_model('m.keras').layers))"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "9"


def test_a_parameter_set_without_a_block_is_told_of():
    with pytest.warns(RuntimeWarning, match="with"):
        analog.set_mock_parameter(QUIET)
    with pytest.raises(analog.AnalogError, match="MockParameter"):
        analog.set_mock_parameter(0.002)


def test_import_leaves_keras_alone():
    code = "import sys, kconvert_contrib.analog as a; a.MockParameter(); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
