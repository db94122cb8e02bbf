"""Devices: spread of neurons, what is measured of them, the chip's package."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from kconvert.errors import MissingPackageError
from kconvert_contrib import analog
from kconvert_contrib.analog import devices

from . import reference

HIDDEN = [(0.002, 2.0), (0.0035, 1.0), (0.0009, 3.0), (0.05, 4.0), (1.0, 2.0), (0.0002, 1.5)]


@pytest.mark.parametrize(("gain", "noise"), HIDDEN)
@pytest.mark.parametrize("spread", [False, True])
def test_hidden_parameters_are_found(gain, noise, spread):
    pattern = analog.FixedPattern(gain_std=0.05, offset_std=2.0) if spread else False
    device = analog.MockDevice(gain, noise, seed=11, fixed_pattern=pattern)
    found = analog.measure_mock_parameter(device)
    # medians over 256 neurons of one chip are off their means by what the spread leaves: 5 % * 1.25 / 16, and offsets
    assert found.gain == pytest.approx(gain, rel=0.02)
    assert found.noise_std == pytest.approx(noise, rel=0.02)


def test_neurons_differ_and_stay_as_they_are():
    device = analog.MockDevice(noise_std=0.0, seed=3, fixed_pattern=analog.FixedPattern(0.1, 5.0))
    x, w = np.full((2, 100), 20.0), np.full((100, 600), 15.0)
    y = np.asarray(analog.matmul(x, w, device=device))
    np.testing.assert_array_equal(y[0], y[1])
    np.testing.assert_array_equal(y[:, : 256 - 168], y[:, 512:])  # the third block is on the first half again
    assert y[0, :256].std() == pytest.approx((6.0**2 + 5.0**2) ** 0.5, rel=0.15)
    assert np.any(y[0, :256] != y[0, 256:512])
    same = analog.MockDevice(noise_std=0.0, seed=3, fixed_pattern=analog.FixedPattern(0.1, 5.0))
    np.testing.assert_array_equal(analog.matmul(x, w, device=same), y)


def test_without_the_package_the_error_says_what_to_do():
    with pytest.raises(MissingPackageError, match="mock=True"):
        analog.HxtorchDevice()
    with pytest.raises(MissingPackageError, match="mock=True"):
        analog.Dense(2)(np.ones((1, 2)))


class Tensor(np.ndarray):
    """As much of a torch tensor as the device needs."""

    def numpy(self):
        return np.asarray(self)


@pytest.fixture
def chip(monkeypatch):
    """Stand in for torch and hxtorch: the operations by their published signatures, in numpy."""

    class Silent:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def matmul(input, other, num_sends=1, wait_between_events=5, mock=False):
        assert not mock
        return reference.matmul(np.asarray(input), np.asarray(other), num_sends, 0.002).view(Tensor)

    def converting_relu(input, shift=2, mock=False):
        return reference.converting_relu(np.asarray(input), shift).view(Tensor)

    def add(input, other, alpha=1, mock=False):
        return reference.add(np.asarray(input), np.asarray(other)).view(Tensor)

    def argmax(input, dim=None, keepdim=False, mock=False):
        return reference.argmax(np.asarray(input), dim).view(Tensor)

    torch, hxtorch = types.ModuleType("torch"), types.ModuleType("hxtorch")
    torch.from_numpy, torch.no_grad = (lambda a: a.view(Tensor)), Silent
    relu = lambda input, mock=False: reference.relu(np.asarray(input)).view(Tensor)  # noqa: E731
    hxtorch.perceptron = types.SimpleNamespace(
        matmul=matmul, relu=relu, converting_relu=converting_relu, add=add, argmax=argmax
    )
    calls = []
    hxtorch.init_hardware, hxtorch.release_hardware = (lambda: calls.append("on")), (lambda: calls.append("off"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "hxtorch", hxtorch)
    device = analog.HxtorchDevice()
    yield device
    device.release()
    assert calls == ["on", "off"]


def test_the_chip_is_called_as_its_package_says(chip):
    rng = np.random.default_rng(1)
    x, w = rng.uniform(0, 31, (3, 200)).astype("f"), rng.uniform(-63, 63, (200, 4)).astype("f")
    expected = reference.matmul(x, w, 2)
    np.testing.assert_array_equal(analog.matmul(x, w, 2, device=chip), expected)
    in_graph = tf.function(lambda x: analog.matmul(x, w, 2, device=chip))
    np.testing.assert_array_equal(in_graph(x), expected)
    v = rng.uniform(-200, 200, (4, 5)).astype("f")
    np.testing.assert_array_equal(analog.relu(v, device=chip), reference.relu(v))
    np.testing.assert_array_equal(analog.converting_relu(v, 1, device=chip), reference.converting_relu(v, 1))
    np.testing.assert_array_equal(analog.add(v, v[0], device=chip), reference.add(v, v[0]))
    np.testing.assert_array_equal(analog.argmax(v, device=chip), reference.argmax(v, -1))


def test_halves_go_away_from_zero_on_the_chip(chip):
    y = analog.matmul([[0.5, 1.5, 2.5]], [[20.0], [0.0], [40.0]], 10, device=chip)
    np.testing.assert_array_equal(y, reference.matmul(np.array([[1, 2, 3]]), np.array([[20], [0], [40]]), 10))
    with pytest.raises(analog.RangeError, match="-1"):
        analog.matmul([[-0.5]], [[1.0]], device=chip)


class Bench:
    """What a user writes: one array of a chip, and nothing else."""

    limits = (128, 256)

    def __init__(self, answer=lambda y: y):
        self.answer, self.shapes = answer, []

    def mac(self, x, w, num_sends, wait_between_events):
        self.shapes.append(w.shape)
        return self.answer(np.clip(np.floor((x @ w).astype(np.float32) * np.float32(num_sends * 0.002)), -128, 127))


def test_larger_products_come_in_parts():
    rng, device = np.random.default_rng(1), Bench()
    x, w = rng.uniform(0, 31, (5, 300)).astype("f"), rng.uniform(-63, 63, (300, 600)).astype("f")
    expected = reference.matmul(x, w, 2)
    np.testing.assert_array_equal(analog.matmul(x, w, 2, device=device), expected)
    assert device.shapes == [(rows, columns) for columns in (256, 256, 88) for rows in (128, 128, 44)]
    np.testing.assert_array_equal(tf.function(lambda x: analog.matmul(x, w, 2, device=device))(x), expected)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda y: y[:, :1], r"mac of the device answered shape \(2, 1\), expected was \(2, 4\)"),
        (lambda y: y + 1000, "mac of the device answered numbers outside of -128..127"),
        (lambda y: y * np.nan, "outside of"),
    ],
)
def test_wrong_answers_are_named(answer, words):
    layer = analog.Dense(4, name="first", use_bias=False)
    layer.device = Bench(answer)
    with pytest.raises(analog.AnalogError, match=f"layer 'first': .*{words}"):
        layer(np.ones((2, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        tf.function(lambda: layer(np.ones((2, 3))))()


def test_what_a_device_lacks_is_named():
    with pytest.raises(analog.AnalogError, match="method relu"):
        analog.relu([1.0], device=Bench())
    with pytest.raises(analog.AnalogError, match=r"layer 'd': .* method mac"):
        analog.Dense(2, name="d").device = "chip"
    with pytest.raises(analog.AnalogError, match="FixedPattern"):
        analog.MockDevice(fixed_pattern=0.1)


def test_measuring_needs_an_answer():
    class Dead(devices.MockDevice):
        def mac(self, x, w, num_sends=1, wait_between_events=5):
            return np.zeros((len(x), w.shape[1]), np.float32)

    with pytest.raises(analog.AnalogError, match="answers nothing"):
        analog.measure_mock_parameter(Dead())
