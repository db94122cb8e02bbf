"""Splitting activations out of layers, and dropping layers that do nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.optimizers import apply_settings, drop_identities, split_activations
from kconvert.optimizers.verify import verify
from tests.layers.common import assert_exact, convert, inputs_of
from tests.models import MODELS, randomise
from tests.optimizers.common import graph_of, operations, run_and_compare


@pytest.mark.parametrize("name", MODELS)
def test_the_meaning_of_every_model_is_kept(name: str) -> None:
    hls_model = graph_of(MODELS[name]())
    run_and_compare(hls_model, [split_activations, drop_identities])
    verify(hls_model)


def test_an_activation_becomes_a_node_named_after_its_layer() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((6, 6, 1), name="x")
    y = layers.Conv2D(2, 3, activation="tanh", name="conv")(x)
    y = layers.Flatten(name="flatten")(y)
    y = layers.Dense(4, activation=layers.ReLU(max_value=2.0), name="fc1")(y)
    y = layers.Dense(3, activation="linear", name="fc2")(y)
    y = layers.Dense(3, activation="softmax", name="out")(y)
    hls_model = graph_of(randomise(keras.Model(x, y)))
    run_and_compare(hls_model, [split_activations])
    assert operations(hls_model) == {
        "conv": "Conv",
        "conv_tanh": "TableActivation",
        "flatten": "Reshape",
        "fc1": "Dense",
        "fc1_ReLU": "Relu",
        "fc2": "Dense",
        "out": "Dense",
        "out_softmax": "Softmax",
    }
    assert hls_model.outputs[0].producer.name == "out_softmax"


def test_the_readers_of_a_layer_read_its_activation() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((3,), name="x")
    trunk = layers.Dense(3, activation="relu", name="trunk")(x)
    model = keras.Model(x, [layers.Add(name="sum")([trunk, trunk, x]), layers.Dense(2, name="head")(trunk), trunk])
    hls_model = graph_of(randomise(model))
    run_and_compare(hls_model, [split_activations])
    verify(hls_model)
    assert [v.producer.name for v in hls_model["sum"].inputs] == ["trunk_relu", "trunk_relu", "x"]
    assert hls_model["trunk"].output.users == [hls_model["trunk_relu"]]
    assert hls_model.outputs[2].producer.name == "trunk_relu"


def test_a_layer_may_have_the_name_that_a_split_activation_would_get() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((3,), name="x")
    y = layers.Dense(3, name="fc_relu")(layers.Dense(3, activation="relu", name="fc")(x))
    hls_model = graph_of(randomise(keras.Model(x, y)))
    run_and_compare(hls_model, [split_activations])
    verify(hls_model)
    assert len(set(operations(hls_model))) == 3


def _identities() -> Any:
    import keras

    layers = keras.layers
    x = keras.Input((4,), name="x")
    first = layers.Dropout(0.1, name="at_the_input")(x)
    middle = layers.Activation("linear", name="after_fc")(layers.Dense(4, name="fc")(first))
    twice = layers.Dropout(0.2, name="again")(middle)
    last = layers.Dropout(0.3, name="at_the_output")(layers.Dense(2, name="head")(twice))
    return randomise(keras.Model(x, [last, middle, first]))


def test_identities_disappear_and_their_names_stay_with_the_value() -> None:
    hls_model = graph_of(_identities())
    run_and_compare(hls_model, [drop_identities])
    verify(hls_model)
    assert list(operations(hls_model)) == ["fc", "head"]
    assert hls_model["fc"].output.names == ["fc", "after_fc", "again"]
    assert hls_model["head"].output.names == ["head", "at_the_output"]
    assert [v.producer.name for v in hls_model.outputs] == ["head", "fc", "x"]


def test_a_dropped_layer_is_still_traced() -> None:
    model = _identities()
    hls_model = convert(model)
    (x,) = inputs_of(hls_model)
    outputs = assert_exact(hls_model, [x])
    trace = hls_model.trace(x)
    assert np.array_equal(trace["again"], trace["fc"])
    assert np.array_equal(trace["at_the_output"], outputs[0])
    assert np.array_equal(trace["at_the_input"], outputs[2])
    assert list(trace) == ["at_the_input", "fc", "after_fc", "again", "head", "at_the_output"]
    assert list(kconvert.profiling.get_ymodel_keras(model, x)) == list(trace)


def test_an_identity_with_a_type_of_its_own_is_a_conversion_and_stays() -> None:
    hls_model = graph_of(_identities(), {"LayerName": {"after_fc": {"Precision": {"result": "ap_fixed<5,3>"}}}})
    apply_settings.run(hls_model)
    run_and_compare(hls_model, [drop_identities])
    assert list(operations(hls_model)) == ["fc", "after_fc", "head"]
