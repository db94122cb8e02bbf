"""Add and Concatenate, of any number of tensors and along any axis."""

from __future__ import annotations

from typing import Any

import pytest

import kconvert
from kconvert.errors import UnsupportedLayerError
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
        join(axis=1, name="rows")([a, b]),
        join(axis=2, name="columns")([b, a, d]),
        join(axis=3, name="channels")([a, c, b, fine]),
        join(axis=-1, name="last")([c, a]),
        join(axis=-2, name="last_but_one")([d, fine]),
        join(name="vectors")([vector, scalar, vector]),
    ]
    return randomise(keras.Model([a, b, c, d, vector, scalar], outputs))


# "fine" is rounded to 2**-10 before it is added; all else is exact.
@some_settings
def test_every_axis_and_number(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-11 + 2e-5)


def test_tensors_of_different_types_meet_in_one_that_holds_both() -> None:
    import keras

    layers = keras.layers
    a, b, c = (keras.Input((3,), name=name) for name in "abc")
    model = keras.Model([a, b, c], [layers.Add(name="sum")([a, b, c]), layers.Concatenate(name="joined")([a, b, c])])
    kinds = {"a": "ap_fixed<6,2>", "b": "ap_ufixed<9,8>", "c": "ap_fixed<5,-3>"}
    hls_model = convert(model, {"LayerName": {name: {"Precision": {"result": k}} for name, k in kinds.items()}})
    assert str(hls_model["joined"].output.type) == "ap_fixed<17,9>"
    assert str(hls_model["sum"].output.type) == "ap_fixed<19,11>"
    x = inputs_of(hls_model)
    total, joined = assert_exact(hls_model, x)
    quantized = [v.known_type().quantize(a) for v, a in zip(hls_model.inputs, x, strict=True)]
    assert (total == sum(quantized)).all()
    assert (joined[:, 3:6] == quantized[1]).all()


def test_adding_tensors_of_different_shapes_is_refused_with_both() -> None:
    import keras

    a, b = keras.Input((4, 3)), keras.Input((1, 3))
    with pytest.raises(UnsupportedLayerError, match=r"'sum' \(Add\).*\(1, 3\), \(4, 3\)"):
        kconvert.convert_from_keras_model(keras.Model([a, b], keras.layers.Add(name="sum")([a, b])))
