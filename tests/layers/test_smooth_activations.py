"""Every activation function: bit-exact, and near to Keras' own where types are fine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.registry import make_activation
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ConfigError, UnsupportedLayerError
from kconvert.layers import HardActivation
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, keras_answers, typed_config
from tests.models import randomise

# Largest error at fixed<32,14> with inputs in [-9, 9]: half the result's step for what is computed; for what is read
# from 1024 entries, an eighth of their squared distance, 2**-5 or less, times the largest second derivative.
STEP = 2.0**-18
FINE = {
    "relu6": 0.0,
    "hard_tanh": 0.0,
    "soft_shrink": 0.0,
    "sparse_sigmoid": STEP,
    "hard_sigmoid": STEP,
    "leaky_relu": 4 * STEP,
    "softsign": STEP,
    "hard_silu": 2**-15,
    "sigmoid": 2**-15,
    "tanh": 2**-15,
    "tanh_shrink": 2**-15,
    "gelu": 2**-15,
    "softplus": 2**-14,
    "log_sigmoid": 2**-14,
    "silu": 2**-13,
    "mish": 2**-13,
    "elu": 2**-13,
    "celu": 2**-13,
    "selu": 2**-12,
    "exponential": 2**-9,  # of up to 8103: float32 itself is 2**-11 off there
    "softmax": 2**-15,
}


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, image = keras.Input((11,), name="x"), keras.Input((2, 3, 4), name="image")
    outputs = [
        *(layers.Activation(name, name=name)(x) for name in FINE),
        layers.Activation("swish", name="swish")(image),
        layers.Activation("hard_swish", name="hard_swish")(image),
        layers.ELU(0.7, name="elu_layer")(image),
        layers.Dense(3, activation="gelu", name="dense_with_gelu")(x),
        layers.Conv2D(2, 2, activation="softplus", name="conv_with_softplus")(image),
        layers.PReLU(name="slope_of_every_element")(image),
        layers.PReLU(shared_axes=[1, 2], name="slope_of_channels")(image),
        layers.PReLU(shared_axes=[2], name="slope_of_rows_and_channels")(image),
        layers.PReLU(shared_axes=[1, 2, 3], name="one_slope")(image),
        layers.PReLU(name="slope_behind_dense")(layers.Dense(3, name="dense_1")(x)),
        layers.Dense(3, activation="leaky_relu", name="dense_with_leaky_relu")(x),
        layers.ReLU(negative_slope=0.3, threshold=0.7, name="threshold_behind_dense")(
            layers.Dense(3, name="dense_2")(x)
        ),
        layers.ReLU(threshold=0.5, name="threshold")(x),
        layers.ReLU(max_value=2.0, negative_slope=0.25, threshold=0.75, name="all_options")(image),
        layers.ReLU(max_value=2.0, threshold=0.3, name="threshold_and_limit")(x),
        layers.ReLU(negative_slope=0.3, name="negative_slope")(x),
        layers.Softmax(axis=1, name="softmax_of_rows")(image),
        layers.Softmax(axis=-2, name="softmax_of_columns")(image),
    ]
    return randomise(keras.Model([x, image], outputs))


# At ap_fixed<16,6>, entries 2**-5 apart are looked up at the nearest: half of that times a slope up to 1.76.
@pytest.mark.parametrize("setting", ["default", "narrow-wrap", "unsigned", "no-integer-bits"])
def test_bit_exact(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-5)


def test_quantisation_sized_errors_at_32_bits(model: Any) -> None:
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision="fixed<32,14>")
    hls_model = convert(model, config)
    random = np.random.default_rng(3)
    x = [v.known_type().quantize(random.uniform(-9, 9, (300, *v.shape))) for v in hls_model.inputs]
    assert_exact(hls_model, [a[:20] for a in x])
    answers = hls_model.predict(x)
    for name, ours, theirs in zip(model.output_names, answers, keras_answers(model, x), strict=True):
        assert np.abs(ours - theirs).max() <= FINE.get(name, 2**-12) + 1e-6, name


def test_lines_between_entries_are_nearer_than_entries(model: Any) -> None:
    hls_model = convert(model, typed_config(model, "default", Lookup="linear"))
    x = inputs_of(hls_model)
    assert_exact(hls_model, x)
    exact = np.clip(hls_model.inputs[0].known_type().quantize(x[0]), -8, 8)
    trace = hls_model.trace(x)
    inside = np.abs(exact) < 4
    assert np.abs(trace["tanh"] - np.tanh(exact))[inside].max() <= 2**-10
    assert not hls_model["threshold"].tunables


def test_infinite_slopes_of_an_exponential_saturate() -> None:
    """Every input of a wide type, to the ends of its range."""
    import keras

    x = keras.Input((1,), name="x")
    layers = keras.layers
    names = ("exponential", "softsign", "gelu", "softplus", "mish")
    model = keras.Model(x, [layers.Activation(name, name=name)(x) for name in names])
    config = {
        "Model": {"Precision": {"default": "ap_fixed<32,14,AP_RND,AP_SAT>"}},
        "LayerName": {name: {"Precision": {"result": "ap_fixed<32,14,AP_RND,AP_SAT>"}} for name in names},
    }
    hls_model = convert(model, config)
    points = np.concatenate([np.linspace(-8192, 8191, 400), np.linspace(-20, 20, 400)])[:, None]
    exponential, softsign, gelu, softplus, mish = assert_exact(hls_model, [points])
    exact = hls_model.inputs[0].known_type().quantize(points)
    largest = hls_model["exponential"].output.known_type().max
    exp = np.minimum(np.exp(np.minimum(exact, 20)), largest)
    assert np.abs(exponential - exp).max() <= largest * 2**-22
    assert np.abs(softsign - exact / (1 + np.abs(exact))).max() <= STEP
    for answer in (gelu, softplus, mish):
        assert np.abs(answer - np.maximum(exact, 0))[np.abs(exact) > 20].max() <= STEP
    assert np.abs(softplus - np.logaddexp(0, exact)).max() <= 2**-13


def test_what_hard_sigmoid_is_depends_on_the_version_of_keras() -> None:
    for version, slope in (("2.15.0", 0.2), ("1.2.2", 0.2), ("3.0.0", 1 / 6), (None, 1 / 6)):
        layer = LayerSpec("Activation", "act", {"activation": "hard_sigmoid"}, (), keras_version=version)
        node = make_activation(layer, "act", "hard_sigmoid", {})
        assert isinstance(node, HardActivation)
        assert node.slope == slope


def test_the_thresholded_relu_of_keras_2() -> None:
    import keras

    x = keras.Input((1,), name="x")
    spec = kconvert.read_model(keras.Model(x, keras.layers.ReLU(threshold=0.5, name="relu")(x)))
    spec["relu"].config.update(theta=1.25)  # type: ignore[attr-defined]  # a dict behind a Mapping
    object.__setattr__(spec["relu"], "class_name", "ThresholdedReLU")
    hls_model = kconvert.convert_from_keras_model(spec)
    hls_model.compile()
    points = np.array([-3, 1, 1.25, 1.2509765625, 4.0])[:, None]
    assert np.array_equal(assert_exact(hls_model, [points])[0].ravel(), [0, 0, 0, 1.2509765625, 4])


def test_the_approximate_gelu() -> None:
    layer = LayerSpec("Activation", "act", {}, ())
    exact, near = (make_activation(layer, "act", "gelu", {"approximate": flag}).curve for flag in (False, True))  # type: ignore[attr-defined]
    x = np.linspace(-4, 4, 99)
    assert 1e-5 < np.abs(exact(x) - near(x)).max() < 1e-3


def test_what_is_refused_says_what_is_not() -> None:
    import keras

    image = keras.Input((2, 3, 4))
    two = keras.Model(image, keras.layers.Softmax(axis=(1, 2), name="two_axes")(image))
    with pytest.raises(UnsupportedLayerError, match=r"'two_axes' \(Softmax\): axis=.*only one axis"):
        kconvert.convert_from_keras_model(two)
    glu = keras.Model(image, keras.layers.Activation("glu", name="gated")(image))
    with pytest.raises(UnsupportedLayerError, match=r"activation 'glu' is not supported; did you mean"):
        kconvert.convert_from_keras_model(glu)
    exp = keras.Model(image, keras.layers.Activation("exponential", name="exp")(image))
    with pytest.raises(ConfigError, match=r"'exp': a table of 1000 entries"):
        kconvert.convert_from_keras_model(exp, {"LayerName": {"exp": {"table_size": 1000}}})
