"""Sigmoid and tanh from tables: the right entry to the bit, and near enough to the function everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType
from kconvert.errors import ConfigError
from kconvert.layers import StepFunction
from kconvert.layers.lookup import table_of
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, some_settings, typed_config
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, image = keras.Input((11,), name="x"), keras.Input((2, 3, 2), name="image")
    outputs = [
        layers.Activation("sigmoid", name="sigmoid")(x),
        layers.Activation("tanh", name="tanh")(x),
        layers.Activation("tanh", name="tanh_of_image")(image),
        layers.Dense(4, activation="sigmoid", name="dense_with_sigmoid")(x),
        layers.Dense(3, activation="tanh", name="dense_with_tanh")(x),
    ]
    return randomise(keras.Model([x, image], outputs))


@some_settings
def test_the_entry_is_the_right_one(model: Any, setting: str) -> None:
    # 1024 entries over [-8, 8) with slope 1/4 for sigmoid, over [-4, 4) with slope 1 for tanh: half an entry is 2**-8
    # at most, and the entries are rounded to 2**-10
    check_layers(model, setting, tolerance=2**-8 + 2**-11)


@pytest.mark.parametrize("size", [16, 4096])
def test_more_entries_are_nearer_to_the_function(model: Any, size: int) -> None:
    hls_model = convert(model, typed_config(model, "default", table_size=size))
    x = [np.clip(a, -8, 8) for a in inputs_of(hls_model, 60)]
    assert_exact(hls_model, x)
    trace = hls_model.trace(x)
    exact = x[0]
    assert np.abs(trace["sigmoid"] - 1 / (1 + np.exp(-exact))).max() <= 16 / size / 2 * 0.25 + 2**-9
    assert np.abs(trace["tanh"] - np.tanh(exact)).max() <= 16 / size / 2 + 2**-9
    assert len(hls_model["sigmoid"].constants()["table"].values) <= size


@pytest.mark.parametrize(
    "kind", ["ap_fixed<32,20>", "ap_fixed<6,6>", "ap_fixed<9,-1>", "ap_ufixed<12,6>", "ap_ufixed<8,0>"]
)
def test_a_table_covers_every_input_there_is(kind: str) -> None:
    """From tiny to huge ranges: saturated at both ends, precise in between."""
    import keras

    x = keras.Input((1,), name="x")
    layers = keras.layers
    both = keras.Model(x, [layers.Activation("sigmoid", name="sigmoid")(x), layers.Activation("tanh", name="tanh")(x)])
    hls_model = convert(both, {"LayerName": {"x": {"Precision": {"result": kind}}}})
    source = hls_model["x"].output.known_type()
    points = np.concatenate(
        [np.linspace(source.min, source.max, 999), np.linspace(max(source.min, -9), min(source.max, 9), 999)]
    )
    points = source.quantize(np.clip(points, source.min, source.max))[:, None]
    exact = np.clip(points, -40, 40)
    sigmoid, tanh = assert_exact(hls_model, [points])
    assert np.abs(sigmoid - 1 / (1 + np.exp(-exact))).max() <= 2**-9 + 2**-10
    assert np.abs(tanh - np.tanh(points)).max() <= 2**-7 + 2**-10


@pytest.mark.parametrize(("size", "near"), [(1000, "512 or 1024"), (1, "2 or 4"), (1 << 21, "")])
def test_a_table_size_that_no_bits_address_is_refused(model: Any, size: int, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"table of {size} entries cannot be addressed.*{near}"):
        kconvert.convert_from_keras_model(model, typed_config(model, "default", table_size=size))


def test_the_type_of_the_table_is_the_one_asked_for(model: Any) -> None:
    config = typed_config(model, "default", table_t="ap_ufixed<6,0,AP_RND,AP_SAT>")
    hls_model = convert(model, config)
    assert_exact(hls_model, inputs_of(hls_model))
    assert str(hls_model["sigmoid"].constants()["table"].type) == "ap_ufixed<6,0,AP_RND,AP_SAT>"


@pytest.mark.parametrize(
    "kind", ["ap_fixed<10,4>", "ap_ufixed<9,5>", "ap_fixed<8,10>", "ap_fixed<7,-1>", "ap_ufixed<6,-2>"]
)
@pytest.mark.parametrize("ends", [(-1.5, 1.75), (0.25, 3.0), (-6.0, -2.0), (0.0, 0.0), (-1e9, 1e9), (1e-9, 2e-9)])
def test_a_step_function_is_exact_for_every_input(kind: str, ends: tuple[float, float]) -> None:
    """Its first and last change, and one in between, are found again whatever the type of its input."""
    first, last = ends
    changes = np.sort([first, (first + last) / 2, last])
    steps = StepFunction(lambda x: np.searchsorted(changes, x, side="right").astype(float), first, last)
    source = FixedType.parse(kind)
    raw = np.arange(source.raw_min, source.raw_max + 1)
    index = steps.index_type(source, 1 << 16)
    assert index.width <= source.width
    assert index.fraction == source.fraction
    address = index.requantize(raw, source) % (1 << index.width)
    assert np.array_equal(table_of(steps.values, index)[address], steps.values(source.from_raw(raw)))
    for size in (2, 4, 16):
        assert 1 << steps.index_type(source, size).width <= max(size, 2 + 2 * source.signed)
