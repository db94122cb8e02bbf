"""Keras' own value of every tensor in `trace`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import InputError, ModelError
from kconvert.profiling import get_ymodel_keras
from tests.models import MODELS, randomise


def samples(model: Any, count: int = 9) -> Any:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(count, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


def compiled(model: Any) -> kconvert.HLSModel:
    hls_model = kconvert.convert_from_keras_model(model)
    hls_model.compile()
    return hls_model


@pytest.mark.parametrize("name", MODELS)
def test_same_keys_order_and_shapes_as_trace(name: str) -> None:
    model = MODELS[name]()
    x = samples(model)
    trace, keras = compiled(model).trace(x), get_ymodel_keras(model, x)
    assert list(keras) == list(trace)
    for key, array in keras.items():
        assert array.shape == trace[key].shape
        # right values, not just shapes: 10 fraction bits in all the layers
        np.testing.assert_allclose(array, trace[key], atol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_predict(name: str) -> None:
    model = MODELS[name]()
    x = samples(model)
    keras = get_ymodel_keras(model, x)
    hls_model = kconvert.convert_from_keras_model(model)
    answers = model.predict(x, verbose=0)
    answers = answers if isinstance(answers, list) else [answers]
    for value, answer in zip(hls_model.outputs, answers, strict=True):
        np.testing.assert_allclose(keras[value.names[0]], answer, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["mlp", "mlp_batchnorm", "conv1d_net", "conv2d_net", "residual_two_inputs", "multi_output"]
)
def test_values_are_keras_own(name: str) -> None:
    """Against submodels that Keras cuts out; a layer with a fused activation ends behind it."""
    import keras

    model = MODELS[name]()
    x = samples(model)
    found = get_ymodel_keras(model, x)
    seen = 0
    for layer in model.layers:
        function = getattr(layer, "activation", None)
        fused = type(layer).__name__ in ("Dense", "Conv1D", "Conv2D") and function.__name__ != "linear"
        key = f"{layer.name}_{function.__name__}" if fused else layer.name
        if key in found:
            expected = keras.Model(model.inputs, layer.output).predict(x, verbose=0)
            np.testing.assert_allclose(found[key], expected, atol=1e-5, err_msg=key)
            seen += 1
        if fused:
            np.testing.assert_allclose(
                np.asarray(function(keras.ops.convert_to_tensor(found[layer.name]))), found[key], atol=1e-5
            )
            seen += 1
    assert seen == len(found)


def test_a_folded_layer_has_the_key_of_the_normalisation_only() -> None:
    model = MODELS["conv2d_net"]()
    found = get_ymodel_keras(model, samples(model))
    assert "bn1" in found
    assert "conv1" not in found


def test_a_layer_called_twice_has_two_keys_of_different_inputs() -> None:
    import keras

    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    embed = keras.layers.Dense(3, activation="relu", name="embed")
    model = randomise(keras.Model([a, b], keras.layers.Concatenate(name="both")([embed(a), embed(b)])))
    x = {"b": np.ones((5, 4)), "a": np.zeros((5, 4))}
    found = get_ymodel_keras(model, x)
    assert list(found) == list(compiled(model).trace(x))
    kernel, bias = model.get_layer("embed").get_weights()
    first, second = (key for key in found if key.startswith("embed") and "relu" not in key)
    np.testing.assert_allclose(found[first], np.tile(bias, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(found[second], np.tile(bias + kernel.sum(axis=0), (5, 1)), atol=1e-6)


def test_nested_models_use_the_names_of_the_conversion() -> None:
    model = MODELS["nested_net"]()
    found = get_ymodel_keras(model, samples(model))
    assert {"block/fc", "block/fc_relu", "block/head/bn", "block/skip", "output"} <= set(found)


def test_activation_that_is_a_layer() -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, activation=keras.layers.LeakyReLU(negative_slope=0.25), name="fc")]
    )
    x = samples(model)
    found = get_ymodel_keras(randomise(model), x)
    before, after = found.values()
    assert before.min() < 0
    np.testing.assert_allclose(after, np.where(before < 0, before * 0.25, before), atol=1e-6)
    np.testing.assert_allclose(after, model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 2500])
def test_batches_are_joined(count: int) -> None:
    model = MODELS["mlp"]()
    x = samples(model, count)
    found = get_ymodel_keras(model, x)
    assert {len(array) for array in found.values()} == {count}
    assert found["fc1"].shape == (count, 32)
    if count:
        np.testing.assert_allclose(found["softmax"], model(x), atol=1e-6)


def test_integers_are_numbers() -> None:
    model = MODELS["mlp"]()
    x = np.arange(32).reshape(2, 16) % 3
    np.testing.assert_allclose(
        get_ymodel_keras(model, x)["softmax"], model.predict(x.astype("float32"), verbose=0), atol=1e-6
    )


def test_model_is_unaltered() -> None:
    model = MODELS["conv2d_net"]()
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    x = samples(model)
    optimizer, config, weights = model.optimizer, model.get_config(), model.get_weights()
    answer = model.predict(x, verbose=0)
    layers = [(layer, getattr(layer, "activation", None), list(layer.weights)) for layer in model.layers]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]

    get_ymodel_keras(model, x)

    assert model.optimizer is optimizer
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    for layer, (same, activation, own) in zip(model.layers, layers, strict=True):
        assert layer is same
        assert getattr(layer, "activation", None) is activation
        assert all(a is b for a, b in zip(layer.weights, own, strict=True))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.predict(x, verbose=0), answer)


def _keras2_model(tf_keras: Any) -> Any:
    layers = tf_keras.layers
    block = tf_keras.Sequential(
        [layers.Input((4,)), layers.Dense(4, activation="softmax", name="fc"), layers.Dropout(0.5, name="drop")],
        name="block",
    )
    image, extra = tf_keras.Input((6, 6, 2), name="image"), tf_keras.Input((4,), name="extra")
    y = layers.Conv2D(3, 3, name="conv")(image)
    y = layers.LeakyReLU(alpha=0.25, name="leaky")(layers.BatchNormalization(name="bn")(y))
    y = layers.Dense(4, activation="tanh", name="fc")(layers.Flatten(name="flat")(y))
    y = layers.Add(name="sum")([block(y), extra])
    return randomise(
        tf_keras.Model([image, extra], layers.Dense(2, activation="sigmoid", name="out")(y), name="keras2")
    )


def test_keras2() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    model = _keras2_model(tf_keras)
    x = [np.random.default_rng(0).normal(size=(7, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    found, trace = get_ymodel_keras(model, x), compiled(model).trace(x)
    assert list(found) == list(trace)
    assert "block/fc_softmax" in found
    for key in ("bn", "leaky", "flat", "sum"):
        expected = tf_keras.Model(model.inputs, model.get_layer(key).output).predict(x, verbose=0)
        np.testing.assert_allclose(found[key], expected, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(found["out_sigmoid"], model.predict(x, verbose=0), atol=1e-5)


# ***** errors *****


@pytest.mark.parametrize("make", [lambda: "model.keras", lambda: np.zeros(3), lambda: None])
def test_only_live_models(make: Callable[[], Any]) -> None:
    with pytest.raises(ModelError, match="live"):
        get_ymodel_keras(make(), np.zeros((1, 16)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 15)), r"'jet_features': expected shape \(n, 16\), got \(3, 15\)"),
        (np.zeros(16), "expected shape"),
        (np.zeros((3, 16), complex), "complex128 is not real"),
        ({"other": np.zeros((3, 16))}, r"\['jet_features'\], got \['other'\]"),
    ],
)
def test_wrong_samples(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_ymodel_keras(MODELS["mlp"](), x)


def test_wrong_samples_of_several_inputs() -> None:
    model = MODELS["residual_two_inputs"]()
    with pytest.raises(InputError, match="2 inputs"):
        get_ymodel_keras(model, np.zeros((3, 6)))
    with pytest.raises(InputError, match="'tracks': 3, 'clusters': 2"):
        get_ymodel_keras(model, [np.zeros((3, 6)), np.zeros((2, 4))])


def test_layer_that_cannot_be_made_from_its_config() -> None:
    import keras

    class Fragile(keras.layers.Dense):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            raise RuntimeError("not again")

    Fragile.__name__ = "Dense"
    model = keras.Sequential([keras.Input((3,)), Fragile(2, activation="relu", name="fragile")])
    x = samples(randomise(model))
    kernel, bias = model.get_weights()
    found = get_ymodel_keras(model, x)
    np.testing.assert_allclose(found["fragile"], x @ kernel + bias, atol=1e-6)
    np.testing.assert_allclose(found["fragile_relu"], model.predict(x, verbose=0), atol=1e-6)
    assert found["fragile"].min() < 0
    assert model.layers[0].activation is keras.activations.relu


def test_layer_that_cannot_be_copied() -> None:
    import keras

    class Fragile(keras.layers.Dense):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            raise RuntimeError("not again")

        @property
        def activation(self) -> Any:
            return self.computed_from

        @activation.setter
        def activation(self, value: Any) -> None:
            self.computed_from = value

    Fragile.__name__ = "Dense"
    x = np.ones((1, 3), dtype=np.float32)
    model = keras.Sequential([keras.Input((3,)), Fragile(2, activation="relu", name="fragile")])
    with pytest.raises(ModelError, match=r"'fragile' cannot be copied.*not again"):
        get_ymodel_keras(model, x)
    model = keras.Sequential([keras.Input((3,)), Fragile(2, name="fragile")])  # nothing to leave out
    assert np.array_equal(get_ymodel_keras(model, x)["fragile"], model.predict(x, verbose=0))


def test_import_is_light() -> None:
    """Neither the package nor its functions' module pulls in what only figures or live models need."""
    code = (
        "import sys, kconvert, kconvert.profiling as p; p.compare, p.roc, p.numerical, p.get_ymodel_keras;"
        "heavy = {'matplotlib', 'sklearn', 'keras', 'tf_keras', 'tensorflow', 'scipy'};"
        "print(sorted(heavy & {m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
