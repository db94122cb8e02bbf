"""Keras models of LUT layers, live and saved, against what they convert to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.layers import Dense
from kconvert_contrib import lutnet
from tests.contrib.lutnet import nets

keras = pytest.importorskip("keras")


def spread(model: Any) -> Any:
    """Give every table and its statistics values as training leaves them."""
    random = np.random.default_rng(9)
    for layer in model.layers:
        if isinstance(layer, lutnet.DifferentiableLut):
            layer.table.assign(random.random(layer.table.shape))
            layer.moving_mean.assign(random.normal(0.5, 0.02, layer.moving_mean.shape))
            layer.moving_variance.assign(random.uniform(0.005, 0.02, layer.moving_variance.shape))
    return model


def check(model: Any, x: np.ndarray, tolerance: float, source: Any = None) -> kconvert.HLSModel:
    """Demand the outputs of Keras: bits exactly, scaled sums to the rounding of their type; returns what was made."""
    hls_model = kconvert.convert_from_keras_model(source or model)
    hls_model.compile()
    outputs = keras.Model(model.inputs, [layer.output for layer in model.layers]).predict(x, verbose=0)
    trace = hls_model.trace(x)
    for layer, expected in zip(model.layers, outputs, strict=True):
        assert np.abs(trace[layer.name] - expected).max() <= (0 if layer is not model.layers[-1] else tolerance)
    assert len(np.unique(trace[model.layers[-1].name])) > 2
    return hls_model


def test_a_network_for_classes(tmp_path: Path) -> None:
    x = nets.samples(200, 6, 6)
    model = spread(
        keras.Sequential(
            [
                keras.Input((6, 6)),
                keras.layers.Flatten(name="flat"),
                lutnet.Binarize(0.5, 0.0, 1.0, name="bits"),
                lutnet.DifferentiableLut(40, name="first"),
                lutnet.DifferentiableLut(36, seed=2, name="second"),
                lutnet.AverageLut(6, name="majority"),
                lutnet.Reduce(2, name="mean"),
            ]
        )
    )
    hls_model = check(model, x, 1e-7)
    assert np.array_equal(lutnet.BitSliced(hls_model).predict(x.reshape(200, -1) > 0.5), hls_model.predict(x))
    model.save(tmp_path / "net.keras")
    check(model, x, 1e-7, tmp_path / "net.keras")


def test_a_thermometer_windows_and_a_shape() -> None:
    x = nets.samples(100, 6, 5, 1)
    model = spread(
        keras.Sequential(
            [
                keras.Input((6, 5, 1)),
                lutnet.Thermometer(3, name="code"),
                lutnet.Patches((3, 2), (2, 1), "same", name="windows"),
                lutnet.DifferentiableLut(8, seed=3, name="lut"),
                lutnet.DifferentiableLut((3, 2, 2), name="whole"),
                keras.layers.Flatten(name="flat"),
                lutnet.GroupSum(4, tau=1.5, name="scores"),
            ]
        )
    )
    check(model, x, 1e-6)


def test_dense_behind_tables() -> None:
    x = nets.samples(100)
    dense = keras.layers.Dense(3, name="dense")
    model = spread(keras.Sequential([keras.Input((nets.INPUTS,)), lutnet.DifferentiableLut(24, name="lut"), dense]))
    dense.set_weights([np.round(w * 64) / 64 for w in dense.get_weights()])
    hls_model = check(model, x, 0.0)
    assert isinstance(hls_model["dense"], Dense)


def flat_answers(model: Any, source: Any, x: Any) -> None:
    """Demand the answers of Keras from a model that is converted live and from its file."""
    expected = model.predict(x, verbose=0)
    for origin in (model, source):
        hls_model = kconvert.convert_from_keras_model(origin)
        hls_model.compile()
        found = hls_model.predict(x)
        for one, other in zip(*((y if isinstance(y, list) else [y]) for y in (found, expected)), strict=True):
            assert np.array_equal(one, other)
            assert len(np.unique(one)) > 2


def test_branches_and_two_inputs(tmp_path: Path) -> None:
    a, b = keras.Input((10,), name="a"), keras.Input((4, 4, 1), name="b")
    pixels = lutnet.Binarize(0.25, 0.0, 1.0)(keras.layers.Flatten()(b))
    first = lutnet.DifferentiableLut(20)(lutnet.Binarize(0.5, 0.0, 1.0)(a))
    second = lutnet.DifferentiableLut(12, n_inputs=4, seed=2)(pixels)
    both = lutnet.DifferentiableLut(16, seed=3)(keras.layers.Concatenate()([first, second, pixels]))
    sums = keras.layers.Add()([lutnet.GroupSum(4)(both), lutnet.GroupSum(4)(first)])
    dense = keras.layers.Dense(2)
    model = spread(keras.Model([a, b], [sums, dense(second)]))
    dense.set_weights([np.round(w * 64) / 64 for w in dense.get_weights()])
    model.save(tmp_path / "net.keras")
    flat_answers(model, tmp_path / "net.keras", [nets.samples(100, 10), nets.samples(100, 4, 4, 1)])


def test_a_modulated_network(tmp_path: Path) -> None:
    luts = [lutnet.DifferentiableLut(24), lutnet.DifferentiableLut(12, seed=2)]
    layer = lutnet.BinaryModulation(luts, 3, training_frames=2, inference_frames=4, depth=2)
    model = keras.Sequential([keras.Input((10,)), layer])
    for lut in luts:
        lut.table.assign(np.random.default_rng(9).random(lut.table.shape))
        lut.moving_mean.assign(np.full(lut.moving_mean.shape, 0.5))
    model.save(tmp_path / "net.keras")
    x = nets.samples(100, 10)
    flat_answers(model, tmp_path / "net.keras", x)
    again = keras.models.load_model(tmp_path / "net.keras")
    assert np.array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [type(inner).__name__ for inner in again.layers[0].layers] == 2 * ["DifferentiableLut"]
