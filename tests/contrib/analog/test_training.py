"""Training in the mock, moving to a device that differs, training there."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kconvert_contrib import analog


class Remote:
    """A device that TensorFlow does not trace, as a chip is one."""

    in_graph, rounds_half, limits = False, "away", None

    def __init__(self, inner):
        self.inner, self.calls = inner, 0

    def mac(self, x, w, num_sends, wait_between_events):
        assert isinstance(x, np.ndarray)
        self.calls += 1
        return self.inner.mac(x, w, num_sends, wait_between_events).numpy()

    def __getattr__(self, name):
        return lambda *arrays: getattr(self.inner, name)(*arrays).numpy()


@pytest.fixture(scope="module")
def data():
    points = analog.datasets.YinYang(seed=42, fixed=False)
    x, y = points.draw(350 * 80)
    test = analog.datasets.YinYang(1000, seed=40)
    return (x * 31).astype(np.float32), y, (test.x * 31).astype(np.float32), test.y


def accuracy(model, data):
    return np.mean(np.argmax(model(data[2]), axis=-1) == data[3])


def train(model, data, steps, rate, decay):
    schedule = keras.optimizers.schedules.ExponentialDecay(rate, 1, decay)
    model.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    count = 350 * steps
    model.fit(data[0][:count], data[1][:count], batch_size=350, shuffle=False, verbose=0)


@pytest.fixture(scope="module")
def trained(data):
    keras.utils.set_random_seed(3)
    with analog.set_mock_parameter(analog.MockParameter(noise_std=2.0)):
        layers = [analog.Dense(64, mock=True), analog.ConvertingReLU(1, mock=True), analog.Dense(3, avg=5, mock=True)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    before = accuracy(model, data)
    train(model, data, 80, 1.0, 0.98)
    assert accuracy(model, data) > max(0.75, before + 0.2)
    return model


def test_moved_to_a_device_and_back(trained, data):
    in_mock = accuracy(trained, data)
    state = trained.get_weights()
    pattern = analog.FixedPattern(gain_std=0.15, offset_std=10.0)
    chip = Remote(analog.MockDevice(gain=0.0015, seed=7, fixed_pattern=pattern))
    predicted = trained.predict(data[2], verbose=0)
    analog.use_device(trained, chip)
    assert trained.layers[0].device is chip
    assert np.mean(trained.predict(data[2], verbose=0) != predicted) > 0.5  # what Keras had traced is gone
    assert chip.calls > 0
    moved = accuracy(trained, data)
    assert moved < in_mock - 0.1
    assert trained.layers[0].get_config()["mock"] == {"gain": 0.002, "noise_std": 2.0, "active": False}
    train(trained, data, 15, 0.5, 0.95)
    assert accuracy(trained, data) > moved + 0.1
    trained.set_weights(state)
    analog.use_device(trained, None)
    assert accuracy(trained, data) > in_mock - 0.05


def test_a_model_without_analog_layers_is_refused():
    with pytest.raises(analog.AnalogError, match="no analog layer"):
        analog.use_device(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), None)
