"""Strategy, ReuseFactor, ParallelizationFactor: other hardware, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel
from kconvert.errors import ConfigError, ConfigWarning
from kconvert.streams import firmware_of
from tests.layers.common import as_list, assert_exact, convert, inputs_of, typed_config
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    image, sequence = keras.Input((6, 6, 4), name="image"), keras.Input((3, 4), name="sequence")
    outputs = [
        layers.Conv2D(4, 3, padding="same", name="conv")(image),
        layers.Conv2D(4, 3, groups=2, name="grouped")(image),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(image),
        layers.SeparableConv2D(4, 3, name="separable")(image),
        layers.Conv2DTranspose(4, 2, strides=2, name="transposed")(image),
        layers.Conv1D(4, 2, dilation_rate=2, padding="same", name="dilated")(sequence),
        layers.Dense(4, name="dense")(image),
        layers.LSTM(4, name="lstm")(sequence),
        layers.GRU(4, reset_after=False, name="gru")(sequence),
    ]
    return randomise(keras.Model([image, sequence], outputs))


# Wrapping and rounding sums: their order matters, and what a sum is kept in.
def settings(model: Any, strategy: str, reuse_factor: int, parallel: dict[str, int] | None = None) -> dict[str, Any]:
    config = typed_config(model, "accum-saturates", Strategy=strategy, ReuseFactor=reuse_factor)
    for name, factor in (parallel or {}).items():
        config["LayerName"][name]["ParallelizationFactor"] = factor
    return config


@pytest.fixture(scope="module")
def plain(model: Any) -> HLSModel:
    return convert(model, settings(model, "Latency", 1))


TOGETHER = {"conv": 12, "grouped": 4, "depthwise": 2, "separable_depthwise": 16, "transposed": 9, "dilated": 3}


@pytest.mark.parametrize(
    ("strategy", "reuse_factor", "io_type"),
    [
        ("Latency", 3, "io_parallel"),
        ("Resource", 4, "io_parallel"),
        ("unrolled", 4, "io_parallel"),
        ("Resource", 2, "io_stream"),
    ],
)
def test_every_strategy_gives_the_same_bits(
    model: Any, plain: HLSModel, strategy: str, reuse_factor: int, io_type: str
) -> None:
    parallel = TOGETHER if io_type == "io_parallel" else None
    other = convert(model, settings(model, strategy, reuse_factor, parallel), io_type=io_type)
    x = inputs_of(plain)
    answers = assert_exact(plain, x)
    assert all(np.array_equal(a, b) for a, b in zip(answers, as_list(other.predict(x)), strict=True))
    sources = firmware_of(other).sources(with_weights=False)["firmware/parameters.h"]
    assert sources.count(f"strategy = nnet::{strategy.lower()};") == 15, "one for each layer, and for each inner matrix"
    assert (f"parallel = {TOGETHER['conv']};" in sources) == bool(parallel)


@pytest.mark.parametrize(
    ("layer", "reuse_factor", "message"),
    [
        ("conv", 5, r"5 does not divide its 144 products \(fan-in 36 x 4 outputs\).*\[2, 3, 4, 6\]"),
        ("grouped", 7, r"7 does not divide its 36 products \(fan-in 18 x 2 outputs\).*\[3, 4, 6, 9\]"),
        ("depthwise", 100, r"100 does not divide its 72 products \(fan-in 9 x 8 outputs\).*\[18, 24, 36, 72\]"),
        ("transposed", 63, r"63 does not divide its 64 products.*\[8, 16, 32, 64\]"),
        ("dense", 3, r"3 does not divide its 16 products.*\[1, 2, 4, 8\]"),
        ("lstm", 3, r"3 does not divide the products of each of its matrices \(4 x 16, 4 x 16\).*\[1, 2, 4, 8\]"),
        ("gru", 3, r"3 does not divide.*\(4 x 12, 4 x 8, 4 x 4\).*\[1, 2, 4, 8\]"),
    ],
)
def test_an_impossible_reuse_factor_names_its_neighbours(
    model: Any, layer: str, reuse_factor: int, message: str
) -> None:
    config = {"LayerName": {layer: {"Strategy": "Resource", "ReuseFactor": reuse_factor}}}
    with pytest.raises(ConfigError, match=f"'{layer}.*': ReuseFactor {message}"):
        kconvert.convert_from_keras_model(model, config)


def test_an_impossible_parallelization_factor_names_its_neighbours(model: Any) -> None:
    config = {"LayerName": {"conv": {"ParallelizationFactor": 5}}}
    with pytest.raises(ConfigError, match=r"'conv': ParallelizationFactor 5 does not.*36 output pos.*\[2, 3, 4, 6\]"):
        kconvert.convert_from_keras_model(model, config)


def test_streams_have_one_position_at_a_time(model: Any) -> None:
    config = {"LayerName": {"conv": {"ParallelizationFactor": 4}}}
    with pytest.warns(ConfigWarning, match="'conv': positions come one by one in 'io_stream'.* 4 is left out"):
        hls_model = kconvert.convert_from_keras_model(model, config, io_type="io_stream")
    assert "parallel = 4" not in firmware_of(hls_model).sources(with_weights=False)["firmware/parameters.h"]


def test_there_is_one_implementation_of_streamed_windows(model: Any) -> None:
    config = {
        "Model": {"ConvImplementation": "linebuffer"},
        "LayerName": {"conv": {"ConvImplementation": "LineBuffer"}},
    }
    kconvert.convert_from_keras_model(model, config)
    with pytest.raises(ConfigError, match="ConvImplementation: 'Encoded' is not allowed; give LineBuffer"):
        kconvert.convert_from_keras_model(model, {"LayerName": {"conv": {"ConvImplementation": "Encoded"}}})
    with pytest.raises(ConfigError, match="a Dense layer has no such setting"):
        kconvert.convert_from_keras_model(model, {"LayerName": {"dense": {"ParallelizationFactor": 2}}})
