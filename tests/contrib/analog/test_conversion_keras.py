"""Keras models of analog layers, live and saved, against what they convert to: the mock without noise, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
import kconvert_contrib.analog.conversion  # noqa: F401  registers what it reads, also where kconvert is not installed
from kconvert.converters.registry import supported_layers
from kconvert_contrib import analog

keras = pytest.importorskip("keras")

GAIN = 0.00345
QUIET = analog.MockParameter(noise_std=0.0, gain=GAIN)


def spread(model: Any, seed: int = 0) -> Any:
    """Give weights and biases values all over their range and beyond, many half-way between whole numbers."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        arrays = [np.round(random.normal(0, 25, w.shape) * 2) / 2 for w in layer.get_weights()]
        arrays[1:] = [random.normal(0, 15, w.shape) for w in arrays[1:]]
        layer.set_weights(arrays)
    return model


def samples(*shape: int) -> np.ndarray:
    drawn = np.random.default_rng(1).uniform(0, 31, shape).astype(np.float32)
    drawn[::4] = np.round(drawn[::4] * 2) / 2
    return drawn


def check(model: Any, x: np.ndarray, source: Any = None) -> kconvert.HLSModel:
    """Demand the bits of Keras from every layer that hardware has; returns what was made."""
    hls_model = kconvert.convert_from_keras_model(source or model)
    hls_model.compile()
    assert np.array_equal(hls_model.predict(x), model.predict(x, verbose=0))
    trace = hls_model.trace(x)
    outputs = {layer.name: layer.output for layer in model.layers if layer.name in trace}
    for name, expected in keras.Model(model.inputs, outputs).predict(x, verbose=0).items():
        assert np.array_equal(trace[name], expected), name
    assert len(np.unique(trace[model.layers[-1].name])) > 20
    return hls_model


@pytest.fixture(scope="module")
def images() -> Any:
    """Convolutions of two kinds, with and without a bias, of one chunk and of several."""
    return spread(
        keras.Sequential(
            [
                keras.Input((9, 8, 3)),
                analog.Conv2D(30, (3, 4), strides=(2, 1), num_sends=2, mock=QUIET, name="first"),
                analog.ConvertingReLU(1, mock=QUIET, name="converted"),
                analog.Conv2D(6, 3, use_bias=False, padding="same", mock=QUIET, name="second"),
                analog.ReLU(mock=QUIET, name="positive"),
                keras.layers.MaxPooling2D((1, 2), name="pool"),
                keras.layers.Reshape((8, 6), name="line"),
                analog.ConvertingReLU(2, mock=QUIET, name="inputs"),
                analog.Conv1D(5, 2, strides=3, num_sends=3, mock=QUIET, name="third"),
            ]
        )
    )


def test_convolutions(images: Any, tmp_path: Path) -> None:
    x = samples(60, 9, 8, 3)
    hls_model = check(images, x)
    assert {"first", "converted"} & set(hls_model.trace(x[:1])) == {"converted"}
    images.save(tmp_path / "net.keras")
    check(images, x, tmp_path / "net.keras")


def test_a_saved_model_converts_without_keras(images: Any, tmp_path: Path) -> None:
    images.save(tmp_path / "net.keras")
    program = """
import sys, numpy, kconvert, kconvert_contrib.analog.conversion
hls_model = kconvert.convert_from_keras_model("net.keras")
hls_model.compile()
numpy.save("y.npy", hls_model.predict(numpy.load("x.npy")))
print({"keras", "tensorflow"} & set(sys.modules))
"""
    x = samples(20, 9, 8, 3)
    np.save(tmp_path / "x.npy", x)
    root = str(Path(kconvert.__file__).parent.parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{program}"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
    assert np.array_equal(np.load(tmp_path / "y.npy"), images.predict(x, verbose=0))


def test_a_trained_network_without_its_noise(tmp_path: Path) -> None:
    """Trained on a noisy mock; the firmware is compared with the same model on a quiet one."""
    noisy = analog.MockParameter(noise_std=2.0, gain=GAIN)
    keras.utils.set_random_seed(0)
    with analog.set_mock_parameter(noisy):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                analog.Dense(32, mock=True, name="hidden"),
                analog.ConvertingReLU(1, mock=True, name="relu"),
                analog.Dense(3, avg=5, mock=True, name="classes"),
            ]
        )
    x, y = analog.datasets.YinYang(700).draw(700)
    x = (31 * x).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.0), loss)
    model.fit(x, y, batch_size=100, epochs=3, verbose=0)
    hls_model = kconvert.convert_from_keras_model(model, output_dir=tmp_path / "prj")
    hls_model.compile()
    answers = hls_model.predict(x)
    samples_of_test_bench = np.loadtxt(hls_model.write() / "tb/tb_data/tb_input_features.dat")
    assert samples_of_test_bench.min() >= 0  # the mock, which is asked for the answers to them, accepts no others
    assert not np.array_equal(answers, model.predict(x, verbose=0))
    analog.use_device(model, analog.MockDevice(gain=GAIN, noise_std=0.0))
    assert np.array_equal(answers, model.predict(x, verbose=0))
    assert (answers.argmax(axis=1) == y).mean() > 0.5
    assert np.array_equal(check(model, x).predict(x), answers)  # whatever it ran on when it was read


def test_copies_of_a_neuron_have_their_mean() -> None:
    """Also before the floor of the bias, which a mean a little too low would lose a step in."""
    tf = pytest.importorskip("tensorflow")
    levels = np.arange(-128, 128, dtype=np.float32)
    for avg in range(2, 33):
        assert np.array_equal(tf.reduce_mean(np.repeat(levels[:, None], avg, axis=1), axis=-1), levels)


def test_comparing_with_keras_layer_by_layer(images: Any) -> None:
    from kconvert.profiling.keras_outputs import keras_outputs

    x = samples(10, 9, 8, 3)
    hls_model = kconvert.convert_from_keras_model(images)
    hls_model.compile()
    trace = hls_model.trace(x)
    expected = keras_outputs(images, x, trace)
    assert list(expected) == list(trace)
    for name, values in expected.items():
        assert np.array_equal(values, trace[name]), name


def test_every_layer_has_a_reader() -> None:
    ours = {getattr(analog, name).__name__ for name in ("Dense", "Conv1D", "Conv2D", "ReLU", "ConvertingReLU")}
    assert ours <= set(supported_layers())
