"""Element-wise functions of tensors, and Concatenate: any number of them, along any axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ConfigError, ModelError
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    a, b = keras.Input((2, 3, 4), name="a"), keras.Input((2, 3, 4), name="b")
    c, d = keras.Input((2, 3, 2), name="c"), keras.Input((2, 3, 4), name="d")
    vector, scalar = keras.Input((5,), name="vector"), keras.Input((1,), name="scalar")
    fine = layers.Dense(4, name="fine")(a)
    join = layers.Concatenate
    outputs = [
        layers.Add(name="two")([a, b]),
        layers.Add(name="three")([a, b, fine]),
        layers.Add(name="four")([a, b, d, a]),
        layers.Subtract(name="difference")([a, fine]),
        layers.Subtract(name="nothing")([d, d]),
        layers.Multiply(name="product")([a, b]),
        layers.Multiply(name="square")([d, d]),
        layers.Multiply(name="product_of_three")([a, d, b]),
        layers.Average(name="mean_of_two")([a, b]),
        layers.Average(name="mean_of_three")([a, b, d]),
        layers.Average(name="mean_of_five")([a, b, d, b, a]),
        layers.Maximum(name="larger")([a, b]),
        layers.Maximum(name="largest")([a, fine, b, d]),
        layers.Minimum(name="smaller")([b, fine]),
        layers.Minimum(name="smallest")([a, b, d]),
        join(axis=1, name="rows")([a, b]),
        join(axis=2, name="columns")([b, a, d]),
        join(axis=3, name="channels")([a, c, b, fine]),
        join(axis=-1, name="last")([c, a]),
        join(axis=-2, name="last_but_one")([d, fine]),
        join(name="vectors")([vector, scalar, vector]),
    ]
    return randomise(keras.Model([a, b, c, d, vector, scalar], outputs))


# "fine" is rounded to 2**-10 before it is merged, and means are rounded to finer grids; all else is exact.
@some_settings
def test_every_axis_and_number(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-11 + 2e-5)


KINDS = {"a": "ap_fixed<6,2>", "b": "ap_ufixed<9,8>", "c": "ap_fixed<5,-3>"}


def test_tensors_of_different_types_meet_in_one_that_holds_both() -> None:
    import keras

    layers = keras.layers
    a, b, c = (keras.Input((3,), name=name) for name in "abc")
    outputs = {
        "sum": layers.Add(name="sum")([a, b, c]),
        "joined": layers.Concatenate(name="joined")([a, b, c]),
        "difference": layers.Subtract(name="difference")([b, c]),
        "product": layers.Multiply(name="product")([a, b, c]),
        "mean": layers.Average(name="mean")([a, b, c]),
        "largest": layers.Maximum(name="largest")([a, b, c]),
        "smallest": layers.Minimum(name="smallest")([a, b, c]),
    }
    model = keras.Model([a, b, c], list(outputs.values()))
    hls_model = convert(model, {"LayerName": {name: {"Precision": {"result": k}} for name, k in KINDS.items()}})
    assert {name: str(hls_model[name].output.type) for name in outputs} == {
        "sum": "ap_fixed<19,11>",
        "joined": "ap_fixed<17,9>",
        "difference": "ap_fixed<18,10>",
        "product": "ap_fixed<20,7>",
        "mean": "ap_fixed<19,9,AP_RND,AP_WRAP>",
        "largest": "ap_fixed<17,9>",
        "smallest": "ap_fixed<17,9>",
    }
    x = inputs_of(hls_model)
    answers = dict(zip(outputs, assert_exact(hls_model, x), strict=True))
    a, b, c = (v.known_type().quantize(given) for v, given in zip(hls_model.inputs, x, strict=True))
    assert (answers["sum"] == a + b + c).all()
    assert (answers["joined"][:, 3:6] == b).all()
    assert (answers["difference"] == b - c).all()
    assert (answers["product"] == a * b * c).all()
    assert np.abs(answers["mean"] - (a + b + c) / 3).max() <= 2**-11
    assert (answers["largest"] == np.maximum(np.maximum(a, b), c)).all()
    assert (answers["smallest"] == np.minimum(np.minimum(a, b), c)).all()


def test_a_difference_of_unsigned_tensors_may_be_negative() -> None:
    import keras

    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], keras.layers.Subtract(name="difference")([a, b]))
    hls_model = convert(model, {"Model": {"Precision": {"default": "ap_ufixed<8,3>"}}})
    assert str(hls_model["difference"].output.type) == "ap_fixed<9,4>"
    ends = hls_model.inputs[0].known_type()
    zeros, top = np.zeros((1, 4)), np.full((1, 4), ends.max)
    assert np.array_equal(assert_exact(hls_model, [zeros, top])[0], -top)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("accum", ["auto", "ap_fixed<9,5,AP_RND,AP_SAT>", "ap_fixed<7,4,AP_TRN,AP_WRAP>"])
def test_a_mean_is_rounded_down_once_and_then_stored(count: int, accum: str) -> None:
    import keras

    inputs = [keras.Input((64,), name=f"x{i}") for i in range(count)]
    model = keras.Model(inputs, keras.layers.Average(name="mean")(inputs))
    names = {x.name: {"Precision": {"result": "ap_fixed<6,4>"}} for x in inputs}
    names["mean"] = {"Precision": {"accum": accum, "result": "ap_fixed<8,4,AP_TRN,AP_WRAP>"}}
    hls_model = convert(model, {"LayerName": names})
    assert_exact(hls_model, inputs_of(hls_model))


WIDE = {"a": "ap_fixed<64,2>", "b": "ap_ufixed<63,60>", "c": "ap_fixed<40,12>"}


def test_the_widest_tensors_meet_exactly_before_they_are_stored() -> None:
    import keras

    layers = keras.layers
    a, b = keras.Input((30,), name="a"), keras.Input((30,), name="b")
    kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Maximum, layers.Minimum)
    model = keras.Model([a, b], [kind(name=kind.__name__.lower())([a, b]) for kind in kinds])
    names = {name: {"Precision": {"result": WIDE[name]}} for name in "ab"}
    names |= {kind.__name__.lower(): {"Precision": {"result": "ap_fixed<50,20,AP_RND,AP_WRAP>"}} for kind in kinds}
    hls_model = convert(model, {"LayerName": names})
    x = inputs_of(hls_model)
    for array, value in zip(x, hls_model.inputs, strict=True):
        array[0] = np.resize([value.known_type().min, value.known_type().max * (1 - 2**-50), 0], array.shape[1:])
    x[1][0, 15:] = x[1][0, 14::-1]
    assert_exact(hls_model, x)


def test_a_product_of_too_many_bits_names_what_it_reads() -> None:
    import keras

    inputs = [keras.Input((3,), name=name) for name in "abc"]
    model = keras.Model(inputs, keras.layers.Multiply(name="product")(inputs))
    names = {name: {"Precision": {"result": kind}} for name, kind in WIDE.items()}
    names["product"] = {"Precision": {"result": "ap_fixed<16,6>"}}
    message = r"'product'.*'a' ap_fixed<64,2>, .*167 bits is not possible.*Precision → result"
    with pytest.raises(ConfigError, match=message):
        kconvert.convert_from_keras_model(model, {"LayerName": names})


@pytest.fixture(scope="module")
def repeated() -> Any:
    """Every function of tensors that repeat to one shape: along one axis or several, with fewer axes or as many."""
    import keras

    layers = keras.layers
    image, row = keras.Input((3, 4, 2), name="image"), keras.Input((1, 4, 2), name="row")
    column, vector = keras.Input((3, 1, 2), name="column"), keras.Input((2,), name="vector")
    outputs = [
        layers.Add(name="add")([image, row]),
        layers.Subtract(name="subtract")([row, image]),
        layers.Multiply(name="outer_product")([row, column]),
        layers.Average(name="average")([image, column]),
        layers.Maximum(name="maximum")([column, row, image]),
        layers.Minimum(name="minimum")([vector, image]),
        layers.Multiply(name="channel_weights")([image, vector]),
    ]
    return keras.Model([image, row, column, vector], outputs)


@pytest.mark.parametrize("setting", ["default", "narrow-wrap"])
def test_tensors_that_repeat_to_one_shape(repeated: Any, setting: str) -> None:
    check_layers(repeated, setting, tolerance=1e-5)


def test_shapes_that_do_not_repeat_to_one_are_refused_with_both() -> None:
    import keras

    a, b = keras.Input((4, 3), name="a"), keras.Input((1, 3), name="b")
    spec = kconvert.read_model(keras.Model([a, b], keras.layers.Add(name="merged")([a, b])))
    spec["b"].config["batch_shape"] = (None, 2, 3)  # type: ignore[index]  # a dict behind a Mapping
    with pytest.raises(ModelError, match=r"'merged' \(Add\): the shapes \(4, 3\), \(2, 3\) cannot be repeated to one"):
        kconvert.convert_from_keras_model(spec)


def test_a_difference_of_three_tensors_is_refused() -> None:
    import keras

    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    spec = kconvert.read_model(keras.Model([a, b], keras.layers.Add(name="merged")([a, b, a])))
    layers = tuple(replace(s, class_name="Subtract") if s.name == "merged" else s for s in spec.layers)
    with pytest.raises(ModelError, match=r"'merged' \(Subtract\): reads 3 tensors, expected 2"):
        kconvert.convert_from_keras_model(replace(spec, layers=layers))
