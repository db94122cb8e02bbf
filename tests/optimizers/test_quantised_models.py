"""Where a model with quantizers does not round, neither does its hardware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.layers import ApplyAlpha, BatchNormalization
from tests import reference
from tests.models import randomise


@pytest.fixture
def qkeras() -> Any:
    return pytest.importorskip("qkeras")


def _dense(qkeras: Any, units: int, name: str, bias: str | None = "quantized_bits(6,2,alpha=1)") -> Any:
    return qkeras.QDense(units, kernel_quantizer="quantized_bits(4,0,alpha=1)", bias_quantizer=bias, name=name)


def _graph(model: Any, **settings: Any) -> kconvert.HLSModel:
    return kconvert.convert_from_keras_model(model, settings or None)


def test_quantised_layers_without_activations_between_them(qkeras: Any) -> None:
    import keras

    x = keras.Input((5,), name="x")
    y = _dense(qkeras, 4, "one")(x)
    y = keras.layers.Add(name="sum")([y, _dense(qkeras, 4, "side")(x)])
    y = _dense(qkeras, 3, "two")(keras.layers.ReLU(name="relu")(y))
    hls_model = _graph(randomise(keras.Model(x, y)))
    hls_model.compile()
    samples = np.random.default_rng(0).normal(size=(50, 5)) * 4
    wanted = reference.run_float(_quantised(hls_model), hls_model.inputs[0].known_type().quantize(samples))[0]
    assert np.array_equal(hls_model.predict(samples), wanted)


def _quantised(hls_model: kconvert.HLSModel) -> kconvert.HLSModel:
    for node in hls_model:
        for role, constant in node.constants().items():
            assert np.array_equal(constant.type.quantize(constant.values), constant.values), (node.name, role)
    return hls_model


def test_a_normalisation_that_stays_holds_its_numbers(qkeras: Any) -> None:
    import keras

    layers = [keras.Input((5,), name="x"), _dense(qkeras, 4, "fc"), keras.layers.BatchNormalization(name="norm")]
    model = randomise(keras.Sequential(layers))
    config = kconvert.config_from_keras_model(model, granularity="name")
    assert config["LayerName"]["norm"]["Precision"] == {"scale": "auto", "bias": "auto", "result": "auto"}
    for settings in ({}, config):
        norm = _graph(model, **settings)["norm"]
        assert isinstance(norm, ApplyAlpha)
        assert norm.typed("scale").width > 16
        np.testing.assert_allclose(norm.constants()["scale"].type.quantize(norm.scale), norm.scale, atol=1e-8)


def test_a_bias_without_quantizer_keeps_its_digits(qkeras: Any) -> None:
    import keras

    model = keras.Sequential([keras.Input((5,), name="x"), _dense(qkeras, 4, "fc", bias=None)])
    model.layers[-1].set_weights([np.ones((5, 4)), np.array([0.1, -3.3, 100.0, 0.0])])
    bias = _graph(model)["fc"].constants()["bias"]
    np.testing.assert_allclose(bias.type.quantize(bias.values), [0.1, -3.3, 100, 0], rtol=1e-6)


def test_a_bias_type_in_the_settings_wins_even_if_it_is_the_default(qkeras: Any) -> None:
    import keras

    quantizer = "quantized_bits(4,0,alpha='auto')"
    layer = qkeras.QDense(4, kernel_quantizer=quantizer, bias_quantizer="quantized_bits(12,4,alpha=1)", name="fc")
    model = randomise(keras.Sequential([keras.Input((5,), name="x"), layer]))
    config = {"LayerName": {"fc": {"Precision": {"bias": "ap_fixed<16,6,AP_RND,AP_SAT>"}}}}
    alpha = _graph(model, **config)["fc_alpha"]
    assert str(alpha.typed("bias")) == "ap_fixed<16,6,AP_RND,AP_SAT>"


def test_weights_without_quantizer_keep_the_default_types(qkeras: Any) -> None:
    import keras

    x = keras.Input((5,), name="x")
    y = _dense(qkeras, 4, "one")(x)
    y = keras.layers.Dense(4, name="plain")(y)
    y = keras.layers.Dense(3, name="last")(keras.layers.ReLU(name="relu")(y))
    hls_model = _graph(randomise(keras.Model(x, y)))
    assert str(hls_model["plain"].typed("weight")) == "ap_fixed<16,6,AP_RND,AP_SAT>"
    assert hls_model["relu"].typed("result").width == 16


def test_a_model_without_quantizers_is_left_alone() -> None:
    import keras

    layers = [keras.Input((5,), name="x"), keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(name="y")]
    norm = _graph(randomise(keras.Sequential(layers)))["norm"]
    assert type(norm) is BatchNormalization
    assert norm.typed("scale").width == 16
