"""Normalisation by constants over any axis, and by the sample's own mean, variance or length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError
from tests.layers.common import assert_exact, check_layers, convert, keras_answers
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, image, wave = keras.Input((6,), name="x"), keras.Input((3, 2, 4), name="image"), keras.Input((5, 3), name="wave")
    outputs = [
        layers.LayerNormalization(name="features")(x),
        layers.LayerNormalization(name="channels")(image),
        layers.LayerNormalization(axis=1, name="rows")(image),
        layers.LayerNormalization(axis=[1, 2], center=False, name="space")(image),
        layers.LayerNormalization(axis=[1, 2, 3], scale=False, name="all")(image),
        layers.LayerNormalization(epsilon=1e-6, name="small_epsilon")(wave),
        layers.GroupNormalization(2, name="groups")(image),
        layers.GroupNormalization(-1, name="instance")(wave),
        layers.GroupNormalization(1, center=False, name="one_group")(wave),
        layers.RMSNormalization(name="rms")(wave),
        layers.UnitNormalization(name="unit")(image),
        layers.UnitNormalization(axis=1, name="unit_rows")(wave),
        layers.BatchNormalization(axis=1, name="batch_rows")(image),
        layers.BatchNormalization(axis=2, scale=False, name="batch_columns")(image),
        layers.BatchNormalization(axis=1, name="behind_dense")(layers.Dense(3, name="dense")(wave)),
        layers.LayerNormalization(name="layer_behind_dense")(layers.Dense(4, name="wide")(wave)),
        layers.Rescaling(1 / 255, offset=-0.5, name="rescaled")(image),
        layers.Normalization(mean=[1.0, -2, 0.5], variance=[1.0, 2, 0.25], name="standard")(wave),
        layers.Normalization(mean=[1.0, -2, 0.5], variance=[1.0, 2, 0.25], invert=True, name="inverse")(wave),
        layers.Normalization(axis=None, mean=0.3, variance=2.0, name="one_mean")(image),
    ]
    return randomise(keras.Model([x, image, wave], outputs))


# Scales of 1.5 with 10 fraction bits meet normalised elements of 2.5, inputs of 4 those of a batch normalisation.
@pytest.mark.parametrize(
    "setting", ["default", "narrow-wrap", "accum-saturates", "unsigned", "no-integer-bits", "wide"]
)
def test_every_axis(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-7)


def test_quantisation_sized_errors_at_32_bits(model: Any) -> None:
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision="fixed<32,14>")
    hls_model = convert(model, config)
    random = np.random.default_rng(4)
    x = [v.known_type().quantize(random.uniform(-4, 4, (300, *v.shape))) for v in hls_model.inputs]
    assert_exact(hls_model, [a[:20] for a in x])
    for name, ours, theirs in zip(model.output_names, hls_model.predict(x), keras_answers(model, x), strict=True):
        assert np.abs(ours - theirs).max() <= 2**-16, name


@pytest.fixture(scope="module")
def narrow() -> Any:
    import keras

    x = keras.Input((8,), name="x")
    layers = keras.layers
    return keras.Model(x, [layers.LayerNormalization(name="layer")(x), layers.UnitNormalization(name="unit")(x)])


@pytest.mark.parametrize("scale", [2.0**-18, 2.0**-9, 1.0, 8000.0])
def test_any_spread_of_the_elements(narrow: Any, scale: float) -> None:
    """From the last bit to the ends of the range, and elements that are all the same: nothing overflows on the way."""
    default = {"Model": {"Precision": {"default": "ap_fixed<32,14,AP_RND,AP_SAT>"}}}
    hls_model = convert(narrow, default)
    x = np.random.default_rng(5).uniform(-1, 1, (200, 8)) * scale
    x[0], x[1], x[2] = 0, scale, [scale, *[-scale] * 7]
    x = hls_model.inputs[0].known_type().quantize(x)
    layer, unit = assert_exact(hls_model, [x])
    spread = x - x.mean(axis=1, keepdims=True)
    assert np.abs(layer - spread / np.sqrt((spread**2).mean(axis=1, keepdims=True) + 1e-3)).max() <= 2**-16
    length = np.sqrt((x**2).sum(axis=1, keepdims=True))
    assert np.abs(unit - x / np.maximum(length, 1e-30)).max() <= 2**-16


def test_adapted_numbers_are_used_and_missing_ones_refused() -> None:
    import keras

    norm = keras.layers.Normalization(name="norm")
    data = np.random.default_rng(6).normal(3, 2, (50, 4)).astype(np.float32)
    norm.adapt(data)
    x = keras.Input((4,), name="x")
    model = keras.Model(x, norm(x))
    hls_model = convert(model, {"Model": {"Precision": {"default": "ap_fixed<32,14,AP_RND,AP_SAT>"}}})
    assert np.abs(assert_exact(hls_model, [data])[0] - model.predict(data, verbose=0)).max() < 2**-16
    spec = kconvert.read_model(model)
    object.__setattr__(spec["norm"], "weights", ())
    object.__setattr__(spec["norm"], "weight_names", ())
    with pytest.raises(ModelError, match=r"'norm' \(Normalization\): it has no mean and variance; call adapt"):
        kconvert.convert_from_keras_model(spec)
