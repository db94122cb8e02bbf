"""Quantizers in fixed point against QKeras itself."""

from __future__ import annotations

import itertools
import json
import warnings
from typing import Any

import numpy as np
import pytest

qkeras = pytest.importorskip("qkeras")

import keras  # noqa: E402

from kconvert.converters.qkeras.quantizers import (  # noqa: E402
    QUANTIZERS,
    Affine,
    Convert,
    Quantizer,
    Rectify,
    Steps,
    Table,
    read_quantizer,
)
from kconvert.errors import PrecisionWarning, UnsupportedLayerError  # noqa: E402
from kconvert.types import FixedType  # noqa: E402

CHANNELS = 4
PER_CHANNEL = np.array([0.5, 1.0, 3.7, 0.3], dtype=np.float32)


def read(raw: object) -> Quantizer:
    quantizer = read_quantizer("a_layer", raw)
    assert quantizer is not None
    return quantizer


def ours(quantizer: Any) -> Quantizer:
    """Read what Keras would write into a file, as text and back."""
    return read(json.loads(json.dumps(keras.saving.serialize_keras_object(quantizer))))


def samples(step: float = 2.0**-4, seed: int = 0) -> np.ndarray:
    """Grid points, ties, values next to ties, zeros, extremes and random values, shape (n, CHANNELS)."""
    random = np.random.default_rng(seed)
    codes = random.integers(-40, 40, size=(12, CHANNELS))
    tie = ((codes + 0.5) * step).astype(np.float32)
    up, down = np.nextafter(tie, np.float32(np.inf)), np.nextafter(tie, np.float32(-np.inf))
    extremes = np.array([[0.0, -0.0, 30.0, -30.0], [1e-6, -1e-6, 2.0, -2.0], [1e-9, -1e-9, 0.5, -0.5]])
    spread = random.normal(size=(24, CHANNELS)) * random.choice([0.05, 0.5, 3.0], size=(24, 1))
    return np.concatenate([codes * step, tie, up, down, extremes, spread]).astype(np.float32)


def assert_same(values: np.ndarray, expected: np.ndarray, x: np.ndarray, step: np.ndarray | float) -> None:
    """Compare with QKeras' ``x + (q - x)``: within its two float32 roundings, and the same multiple of `step`."""
    step = np.broadcast_to(np.asarray(step, dtype=np.float64), x.shape)
    values = values.astype(np.float32)
    largest = np.maximum.reduce([np.abs(x), np.abs(values), np.abs(values - x)])
    np.testing.assert_array_less(np.abs(values - expected), np.spacing(largest) * 1.01)
    known = np.spacing(largest) < step / 4  # else the roundings hide which multiple it is
    np.testing.assert_array_equal(np.rint(expected / step)[known], np.rint(values / step)[known])


def check_weights(quantizer: Any, mine: Quantizer, x: np.ndarray) -> None:
    expected = np.asarray(quantizer(keras.ops.convert_to_tensor(x)))
    found = mine.quantize(x)
    assert found.codes.dtype == np.float64
    np.testing.assert_array_equal(found.type.quantize(found.codes), found.codes)
    scale = 1.0 if found.scale is None else found.scale
    assert np.ndim(scale) == 0 or np.shape(scale) in [(1,), (x.shape[-1],)]
    step = np.where(np.asarray(scale) == 0, 1.0, scale) * found.type.step
    assert_same(found.codes * scale, expected, x, step)


def check_activation(quantizer: Any, x: np.ndarray, mine: Quantizer | None = None) -> None:
    mine = mine or ours(quantizer)
    expected = np.asarray(quantizer(keras.ops.convert_to_tensor(x)))
    activation = mine.activation
    stored = mine.type.quantize(activation(x.astype(np.float64)))
    assert_same(activation.alpha * stored, expected, x, activation.alpha * mine.type.step)


# -------------------------------------------------------------------- linear quantizers


@pytest.mark.parametrize("bits", range(1, 13))
@pytest.mark.parametrize("kind", ["quantized_bits", "quantized_linear"])
def test_linear_with_numeric_alpha(kind: str, bits: int) -> None:
    alphas: list[Any] = [None, 1, 0.5, 3.7, PER_CHANNEL.tolist()]
    for integer in range(5):
        for symmetric in (0, 1):
            for keep_negative in (True, False):
                alpha = alphas[(integer + symmetric + 2 * keep_negative) % len(alphas)]
                quantizer = getattr(qkeras, kind)(bits, integer, symmetric, keep_negative=keep_negative, alpha=alpha)
                x = samples(2.0 ** (integer - bits + keep_negative), seed=integer)
                check_weights(quantizer, ours(quantizer), x)
                if not isinstance(alpha, list):
                    check_activation(quantizer, x)


@pytest.mark.parametrize("alpha", ["auto", "auto_po2"])
@pytest.mark.parametrize("kind", ["quantized_bits", "quantized_linear"])
@pytest.mark.parametrize("bits", range(2, 13))
def test_linear_with_automatic_alpha(kind: str, bits: int, alpha: str) -> None:
    for seed in range(4):
        integer, keep_negative, symmetric = seed % 3, seed < 3, seed % 2
        quantizer = getattr(qkeras, kind)(bits, integer, symmetric, keep_negative=keep_negative, alpha=alpha)
        random = np.random.default_rng(100 * bits + seed)
        x = random.normal(size=[(20, 6), (3, 3, 2, 5), (9,), (8, 3)][seed]).astype(np.float32)
        x.reshape(-1)[:2] = [0.0, x.reshape(-1)[1]]
        check_weights(quantizer, ours(quantizer), x)


@pytest.mark.parametrize("scale_axis", [1, [1], 0])
def test_scale_axis_is_read_from_a_live_quantizer(scale_axis: Any) -> None:
    x = np.random.default_rng(3).normal(size=(10, 3)).astype(np.float32)
    quantizer = qkeras.quantized_bits(4, 0, alpha="auto_po2", scale_axis=scale_axis)
    if scale_axis == 0:
        with pytest.raises(UnsupportedLayerError, match=r"'a_layer'.*shape \(10, 1\).*last axis"):
            read(quantizer).quantize(x)
    else:
        check_weights(quantizer, read(quantizer), x)


def test_a_limited_power_of_two_scale_is_read_from_a_live_quantizer() -> None:
    x = np.random.default_rng(4).normal(size=(10, 3)).astype(np.float32)
    quantizer = qkeras.quantized_bits(5, 0, alpha="auto_po2", min_po2_exponent=-6, max_po2_exponent=-5)
    check_weights(quantizer, read(quantizer), x)


def test_a_frozen_scale() -> None:
    x = np.random.default_rng(5).normal(size=(10, 3)).astype(np.float32)
    quantizer = qkeras.quantized_bits(5, 1, alpha="auto", post_training_scale=np.array([[0.5, 0.3, 1.2]]))
    check_weights(quantizer, ours(quantizer), x)


@pytest.mark.parametrize("kind", ["quantized_bits", "quantized_linear", "binary", "ternary"])
def test_a_channel_of_zeros(kind: str) -> None:
    x = np.random.default_rng(6).normal(size=(7, 3)).astype(np.float32)
    x[:, 1] = 0
    options = {"bits": 4} if kind.startswith("quantized") else {}
    for alpha in ("auto", "auto_po2"):
        quantizer = getattr(qkeras, kind)(**options, alpha=alpha)
        check_weights(quantizer, ours(quantizer), x)


def test_what_kernels_and_biases_make_of_a_missing_alpha() -> None:
    for quantizer in (qkeras.quantized_bits(4, 0), qkeras.quantized_linear(4), qkeras.binary(), qkeras.ternary()):
        before = ours(quantizer)
        quantizer._set_trainable_parameter()
        assert before.for_weights() == ours(quantizer)
        assert ours(quantizer).for_weights() == ours(quantizer)
        assert before["alpha"] is None
        x = np.random.default_rng(7).normal(size=(9, 3)).astype(np.float32)
        check_weights(quantizer, before.for_weights(), x)
    fixed = ours(qkeras.quantized_relu(4))
    assert fixed.for_weights() is fixed


# -------------------------------------------------------------------- signs


@pytest.mark.parametrize("alpha", [None, 1, 0.5, 3.7, PER_CHANNEL, "auto", "auto_po2"])
@pytest.mark.parametrize("kind", ["binary", "stochastic_binary", "ternary", "stochastic_ternary"])
def test_binary_and_ternary(kind: str, alpha: Any) -> None:
    for seed in range(3):
        quantizer = getattr(qkeras, kind)(alpha=alpha)
        check_weights(quantizer, ours(quantizer), samples(0.33, seed=seed))
        if alpha is None or isinstance(alpha, (int, float)):
            check_activation(quantizer, samples(0.33, seed=seed))


@pytest.mark.parametrize("alpha", ["auto", "auto_po2"])
@pytest.mark.parametrize("kind", ["binary", "ternary"])
def test_automatic_scales_of_kernels_and_vectors(kind: str, alpha: str) -> None:
    for seed, shape in enumerate([(30, 8), (3, 3, 4, 5), (3, 2, 6), (11,)]):
        quantizer = getattr(qkeras, kind)(alpha=alpha)
        x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        expected = np.asarray(quantizer(x))
        mine = ours(quantizer).quantize(x)
        np.testing.assert_array_equal(np.sign(mine.codes), np.sign(expected))
        # Both sum in float32, in orders of their own.
        np.testing.assert_allclose(mine.codes * mine.scale, expected, rtol=1e-6)


def test_binary_options() -> None:
    for alpha in (None, 1, 2.5):
        quantizer = qkeras.binary(use_01=True, alpha=alpha)
        check_activation(quantizer, samples())
        assert ours(quantizer).type == FixedType(1, 1, signed=False)
    assert ours(qkeras.binary()).type == FixedType(2, 2)


@pytest.mark.parametrize("threshold", [0, 0.1, 0.5, 1.7])
def test_ternary_threshold(threshold: float) -> None:
    t = np.float32(threshold)
    near = np.spacing(np.maximum(t, np.float32(2.0**-80)))  # TensorFlow flushes smaller numbers to zero
    around = [t, t + near, t - near, np.float32(0)]
    x = np.array([around, [-v for v in around]], dtype=np.float32)
    quantizer = qkeras.ternary(alpha=1.0, threshold=threshold)
    check_activation(quantizer, x)
    check_weights(quantizer, ours(quantizer), x)


# -------------------------------------------------------------------- activations


@pytest.mark.parametrize("bits", range(1, 13))
def test_relu(bits: int) -> None:
    for integer in range(5):
        for slope in (0.0, 0.25, 0.5, 1.0, 2.0):
            if slope and slope * 2.0 ** (bits - 1) < 1:
                continue
            quantizer = qkeras.quantized_relu(bits, integer, negative_slope=slope)
            x = samples(2.0 ** (integer - bits) / max(slope, 0.25), seed=integer)
            check_activation(quantizer, x)
            check_weights(quantizer, ours(quantizer), x)


@pytest.mark.parametrize("slope", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("bound", [0.5, 1.25, 3.0, 100.0, None])
def test_relu_with_an_upper_bound(bound: float | None, slope: float) -> None:
    quantizer = qkeras.quantized_relu(6, 2, negative_slope=slope, relu_upper_bound=bound, is_quantized_clip=False)
    check_activation(quantizer, samples(2.0**-3), mine=read(quantizer))
    # A file does not say is_quantized_clip=False, so a model loaded from one clips at the end of the range only.
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(quantizer))
    check_activation(loaded, samples(2.0**-3))


@pytest.mark.parametrize("bits", range(1, 13))
def test_hard_tanh_and_sigmoid(bits: int) -> None:
    for symmetric in (False, True):
        # Within 2**-24 of a tie QKeras' float32 sums lose where x lies; a grid of 20 fractional bits does not.
        x = np.rint(samples(2.0 ** (1 - bits)) * 2.0**20) / np.float32(2.0**20)
        tanh, sigmoid = qkeras.quantized_tanh(bits, symmetric=symmetric), qkeras.quantized_sigmoid(bits, symmetric)
        for quantizer in (tanh, sigmoid):
            check_activation(quantizer, x)
            expected = np.asarray(quantizer(x))
            np.testing.assert_array_equal(np.float32(ours(quantizer).quantize(x).codes), expected)


@pytest.mark.parametrize("bits", range(1, 13))
def test_tables(bits: int) -> None:
    x = samples(2.0**-6)
    for symmetric in (False, True):
        check_activation(qkeras.quantized_tanh(bits, symmetric=symmetric, use_real_tanh=True), x)
        check_activation(qkeras.quantized_sigmoid(bits, symmetric, use_real_sigmoid=True), x)
        if bits > 1:
            # hard swish is straight-through around its own value
            quantizer = qkeras.quantized_hswish(bits, bits % 3, symmetric, alpha=[None, 1, 0.75][bits % 3])
            expected, mine = np.asarray(quantizer(x)), ours(quantizer)
            values = mine.activation.alpha * mine.type.quantize(mine.activation(x.astype(np.float64)))
            np.testing.assert_allclose(values, expected, rtol=0, atol=4e-6)


# -------------------------------------------------------------------- powers of two


def around_the_decisions(mine: Quantizer, apart: int) -> np.ndarray:
    """Values next to each threshold, nearer than any fixed-point input of interest but not the last bits."""
    activation = mine.activation
    assert isinstance(activation, Steps)
    t = np.array([t for t in activation.thresholds if t], dtype=np.float32)
    near = [(t.view(np.int32) + d).view(np.float32) for d in (-apart, apart)]
    return np.concatenate([*near, [0.0, -0.0, 1.0, -1.0, 3e4, -3e4], 2.0 ** np.arange(-20, 12)]).astype(np.float32)


@pytest.mark.parametrize("max_value", [None, 0.25, 1, 3, 4])
@pytest.mark.parametrize("bits", range(2, 7))
def test_powers_of_two(bits: int, max_value: float | None) -> None:
    for quadratic in (False, True):
        for rounding in ("rnd", "floor"):
            options = {"max_value": max_value, "quadratic_approximation": quadratic, "log2_rounding": rounding}
            quantizers = [qkeras.quantized_po2(bits, **options)]
            quantizers += [qkeras.quantized_relu_po2(bits, negative_slope=s, **options) for s in (0, 0.25)]
            for quantizer in quantizers:
                mine = ours(quantizer)
                assert isinstance(mine.activation, Steps)
                exponents = np.log2(np.abs(mine.activation.levels))
                if np.ptp(exponents) + 1 + (mine.activation.levels[0] < 0) > 64:
                    with pytest.raises(UnsupportedLayerError, match="64 bits"):
                        assert mine.type
                    continue
                # floor decides at powers of two, where the last bit of the logarithm shows
                x = np.concatenate([around_the_decisions(mine, 40), samples().reshape(-1)])
                expected = np.asarray(quantizer(x)).astype(np.float64)
                found = mine.activation(x.astype(np.float64))
                tolerance = np.spacing(np.abs(x) + np.abs(found).astype(np.float32))
                assert np.all(np.abs(found - expected) <= tolerance), (str(mine), x[np.abs(found - expected) > 1e-3])
                check_weights(quantizer, mine, x.reshape(-1, 1))


def test_weights_next_to_zero_are_taken_as_zero_where_their_power_is_out_of_reach() -> None:
    x = np.array([[0.3], [0.0], [-2.0]], dtype=np.float32)
    quantizer = qkeras.quantized_po2(8)
    with pytest.warns(PrecisionWarning, match="1 weights next to zero"):
        found = ours(quantizer).quantize(x)
    np.testing.assert_array_equal(found.codes, [[0.25], [0.0], [-2.0]])
    np.testing.assert_allclose(np.asarray(quantizer(x)), found.codes, atol=1e-18)
    rectifier = qkeras.quantized_relu_po2(7, 1)
    with pytest.warns(PrecisionWarning, match="2 weights next to zero"):
        np.testing.assert_allclose(ours(rectifier).quantize(x).codes, np.asarray(rectifier(x)), atol=1e-18)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours(quantizer).quantize(x[[0, 2]]).type == FixedType(4, 2)
    with pytest.raises(UnsupportedLayerError, match=r"a_layer.*64 bits.*max_value"):
        assert ours(quantizer).type


# -------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("text", "type_", "activation"),
    [
        ("quantized_bits(6,0,alpha=1)", "ap_fixed<6,1,AP_RND_CONV,AP_SAT>", Convert()),
        ("quantized_bits(6,2,1,alpha=0.5)", "ap_fixed<6,3,AP_RND_CONV,AP_SAT_SYM>", Convert(alpha=0.5)),
        ("quantized_bits(6, keep_negative=False)", "ap_ufixed<6,0,AP_RND_CONV,AP_SAT>", Convert()),
        ("quantized_bits(1)", "ap_fixed<2,2>", Steps((0.0,), (-1.0, 1.0), (True,))),
        ("quantized_linear(8,3,alpha=2.0)", "ap_fixed<8,4,AP_RND_CONV,AP_SAT_SYM>", Convert(divisor=2.0, alpha=2.0)),
        ("quantized_linear(1,1)", "ap_fixed<2,2>", Steps((-(2.0**-24),), (-1.0, 1.0), (True,))),
        ("quantized_relu(6,2)", "ap_ufixed<6,2,AP_RND_CONV,AP_SAT>", Rectify()),
        ("quantized_relu(6,2,0,0.5)", "ap_fixed<6,3,AP_RND_CONV,AP_SAT>", Rectify(0.5, None, -2.0)),
        ("quantized_relu(6,2,0,2.0)", "ap_fixed<7,4,AP_RND_CONV,AP_SAT>", Rectify(2.0, 3.875, -8.0)),
        ("quantized_tanh(4)", "ap_fixed<4,1,AP_RND_CONV,AP_SAT>", Convert()),
        ("quantized_sigmoid(4,1)", "ap_ufixed<4,0,AP_RND_CONV,AP_SAT>", Affine(0.5, 0.5, 0.0625)),
        ("binary(alpha=3)", "ap_fixed<2,2>", Steps((0.0,), (-1.0, 1.0), (True,), alpha=3.0)),
        ("ternary(threshold=0.5)", "ap_fixed<2,2>", Steps((-0.5, 0.5), (-1.0, 0.0, 1.0), (False, True))),
        ("quantized_po2(2,1)", "ap_fixed<4,2>", None),
        ("quantized_relu_po2(2,1)", "ap_ufixed<5,1>", None),
    ],
)
def test_type_and_activation(text: str, type_: str, activation: object) -> None:
    quantizer = read(text)
    assert str(quantizer.type) == type_
    if activation is not None:
        assert quantizer.activation == activation


def test_real_functions_are_tables() -> None:
    for text, name in (
        ("quantized_tanh(6,use_real_tanh=True)", "tanh"),
        ("quantized_sigmoid(6,use_real_sigmoid=1)", "sigmoid"),
        ("quantized_hswish(6,2)", "hard_swish"),
    ):
        activation = read(text).activation
        assert isinstance(activation, Table)
        assert activation.name == name


# -------------------------------------------------------------------- every option, next to every step

RELU = {
    "bits": [1, 2, 3, 6],
    "integer": [0, 1, 3],
    "use_sigmoid": [0, 1],
    "negative_slope": [0.0, 0.125, 0.5, 1.0, 2.0],
    "relu_upper_bound": [None, 0.5, 1.3, 6.0],
    "is_quantized_clip": [True, False],
}
LINEAR = {
    "bits": [1, 2, 3, 5, 8],
    "integer": [-2, 0, 1, 10],
    "symmetric": [0, 1],
    "keep_negative": [True, False],
    "alpha": [None, 0.5, 2.0, 0.3],
}
HSWISH = {
    "bits": [1, 2, 3, 5, 8],
    "integer": [-1, 0, 3],
    "symmetric": [0, 1],
    "alpha": [None, 0.5, 0.3],
    "relu_shift": [3, 1],
    "relu_upper_bound": [6, 1, 4],
}
SPREAD = np.random.default_rng(0).normal(size=400) * np.repeat([0.05, 0.5, 3.0, 30.0], 100)
GRID = np.concatenate([SPREAD, np.arange(-200, 200) / 32, [0.0, -0.0, 1e6, -1e6, 1e-9, -1e-9]]).astype(np.float32)


def every(options: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def next_to_steps(mine: Quantizer) -> np.ndarray:
    """The first float32 number of every step, and its neighbours."""
    found = mine.changes().thresholds(600)
    assert found is not None
    t = found[0].astype(np.float32)
    around = np.concatenate([t, np.nextafter(t, np.float32(np.inf)), np.nextafter(t, np.float32(-np.inf))])
    return around[(np.abs(around) > 1e-37) | (around == 0)]  # TensorFlow flushes smaller numbers to zero


@pytest.mark.parametrize(
    ("kind", "options"),
    [("quantized_relu", RELU), ("quantized_bits", LINEAR), ("quantized_linear", LINEAR), ("quantized_hswish", HSWISH)],
)
def test_every_option_next_to_every_step(kind: str, options: dict[str, list[Any]]) -> None:
    for given in every(options):
        quantizer = getattr(qkeras, kind)(**given)
        mine = read(quantizer)
        x = np.concatenate([GRID, next_to_steps(mine)])
        expected = np.asarray(quantizer(keras.ops.convert_to_tensor(x)))
        values = (np.asarray(mine.activation.alpha) * mine.type.quantize(mine.activation(x))).astype(np.float32)
        largest = np.maximum.reduce([np.abs(x), np.abs(values), np.abs(values - x)])
        wrong = np.abs(values - expected) > np.spacing(largest) * 1.01  # the two roundings of x + (q - x)
        assert not wrong.any(), (given, x[wrong][:5], values[wrong][:5], expected[wrong][:5])


@pytest.mark.parametrize("bits", [2, 4, 8, 10])
def test_real_functions_on_fixed_point_inputs_are_equal_to_the_bit(bits: int) -> None:
    """Where inputs have up to 10 fraction bits; TensorFlow's float32 tanh and sigmoid are off in their last bits."""
    x = np.arange(-8 << 10, 8 << 10).astype(np.float32) / np.float32(1 << 10)
    for symmetric in (False, True):
        for quantizer in (
            qkeras.quantized_tanh(bits, symmetric=symmetric, use_real_tanh=True),
            qkeras.quantized_sigmoid(bits, symmetric, use_real_sigmoid=True),
        ):
            mine = ours(quantizer)
            assert np.array_equal(mine.type.quantize(mine.activation(x)), np.asarray(quantizer(x))), str(mine)


def test_changes_are_all_found() -> None:
    """Against every one of a range of numbers."""
    for text in ("quantized_hswish(6,0)", "quantized_tanh(5,use_real_tanh=True)", "quantized_hswish(1,0)"):
        mine = read(text)
        x = np.arange(-(5 << 12), 5 << 12).astype(np.float32) / np.float32(1 << 12)
        codes = mine.type.to_raw(mine.activation(x))
        found = mine.changes().thresholds(1000)
        assert found is not None
        changed = np.flatnonzero(np.diff(codes)) + 1
        np.testing.assert_array_equal(np.ceil(found[0] * 2**12) / 2**12, x[changed])
        np.testing.assert_array_equal(found[1], codes[changed])
        assert mine.changes().first == codes[0]
        assert mine.changes().ends() == (found[0][0], found[0][-1])
        assert mine.changes().thresholds(len(changed) - 1) is None
    limited = read("quantized_relu(4,1,relu_upper_bound=0.5,is_quantized_clip=False)")
    assert limited.changes().ends()[1] == 0.5 - 2.0**-4, "half way to the even code, which is the limit"
    assert read("quantized_tanh(1)").changes().ends()[0] < 0


# -------------------------------------------------------------------- classes of somebody else


class Halved(qkeras.quantized_bits):  # type: ignore[misc]
    def __call__(self, x: Any) -> Any:
        return super().__call__(x) / 2


def test_a_subclass_is_not_taken_for_its_base() -> None:
    namesake = type("quantized_bits", (Halved,), {"__module__": "theirs.quantizers"})
    for raw in (Halved(4), {"class_name": "Halved", "config": {"bits": 4}}):
        with pytest.raises(UnsupportedLayerError, match="layer 'a_layer': unknown quantizer 'Halved'"):
            read(raw)
    of_theirs = (
        namesake(4),
        namesake,
        {"class_name": "quantized_bits", "registered_name": "theirs>quantized_bits", "config": {}},
        {"class_name": "theirs>quantized_bits", "config": {}},
        {"class_name": "quantized_bits", "module": "theirs.quantizers", "registered_name": None, "config": {}},
    )
    for raw in of_theirs:
        with pytest.raises(UnsupportedLayerError, match=r"'a_layer'.*quantized_bits'.* not QKeras' own.*'theirs'"):
            read(raw)


# -------------------------------------------------------------------- reading


def every_quantizer() -> list[Any]:
    return [
        qkeras.quantized_bits(5, 1, 1, alpha="auto_po2"),
        qkeras.quantized_bits(5, 1, alpha=1.5, keep_negative=False),
        qkeras.quantized_linear(7, 2, alpha="auto"),
        qkeras.quantized_relu(4, 1),
        qkeras.quantized_relu(4, 1, negative_slope=0.25),
        qkeras.quantized_tanh(5, use_stochastic_rounding=True),
        qkeras.quantized_sigmoid(5, True),
        qkeras.quantized_po2(4, 2),
        qkeras.quantized_relu_po2(4, 2, 0.5),
        qkeras.binary(True, alpha=0.5),
        qkeras.stochastic_binary(alpha="auto"),
        qkeras.ternary(threshold=0.25),
        qkeras.stochastic_ternary(alpha="auto_po2"),
    ]


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_quantizer_reads_the_same_from_text_config_and_object() -> None:
    for quantizer in every_quantizer():
        modern = keras.saving.serialize_keras_object(quantizer)
        legacy = {"class_name": modern["class_name"], "config": quantizer.get_config()}
        expected = read(modern)
        # Some of QKeras' own spellings put an option in the place of another; QKeras reads them so, too.
        assert read(str(quantizer)) == ours(qkeras.quantizers.get_quantizer(str(quantizer)))
        assert read(legacy | {"__passive_serialization__": True}) == expected
        assert read({**modern, "class_name": modern["registered_name"]}) == expected
        assert {k: read(quantizer)[k] for k in quantizer.get_config()} == {
            k: expected[k] for k in quantizer.get_config()
        }
        assert read(str(expected)) == expected


def test_arrays_of_alpha_read_from_every_form() -> None:
    array = np.array([[0.5, 2.0, 1.25]])
    expected = read("binary(alpha=[0.5, 2.0, 1.25])")
    assert expected["alpha"] == (0.5, 2.0, 1.25)
    assert ours(qkeras.binary(alpha=array)) == expected
    assert read(qkeras.binary(alpha=array)) == expected
    assert read(str(qkeras.binary(alpha=array[0]))) == expected
    assert read({"class_name": "binary", "config": {"alpha": array.tolist()}}) == expected


def test_defaults_are_those_of_qkeras() -> None:
    import inspect

    for name, kind in QUANTIZERS.items():
        parameters = list(inspect.signature(getattr(qkeras, name).__init__).parameters.values())[1:]
        assert [p.name for p in parameters] == list(kind.options)[: len(parameters)], name
        assert {p.name: p.default for p in parameters}.items() <= kind.options.items(), name
    assert read("ternary") == read("ternary()") == read(qkeras.ternary) == read("qkeras.ternary()")
    assert read_quantizer("a_layer", None) is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            "quantized_bit(4)",
            "layer 'a_layer': unknown quantizer 'quantized_bit'; did you mean 'quantized_bits'.*known",
        ),
        ({"class_name": "my_quantizer", "config": {}}, "unknown quantizer 'my_quantizer'.*known: bernoulli, binary"),
        ({"class_name": "function", "config": "hard_tanh"}, "unknown quantizer 'hard_tanh'"),
        ("quantized_bits(4, integr=1)", "quantized_bits: it has no option 'integr'; did you mean 'integer'"),
        ("quantized_bits(4, alpha=f(2))", "a_layer.*cannot read the quantizer.*f\\(2\\)"),
        ("quantized_bits(4", "cannot read the quantizer"),
        ("quantized_bits(4, bits=4)", "gives 'bits' twice"),
        ("binary(1,1,0,0,0,0,0,0,0)", "more than 8 arguments"),
        ("quantized_bits(4, alpha='automatic')", "a_layer.*alpha='automatic' must be"),
        ("quantized_bits(4, qnoise_factor=0.5)", "qnoise_factor must be 1"),
        ("quantized_linear(4, alpha=-2.0)", "alpha=-2.0 must be above zero"),
        ("quantized_bits(0)", "bits must be 1 or more"),
        ("quantized_bits(4.5)", "bits=4.5 must be one whole number"),
        ("quantized_bits(4, alpha=[[1, 2], [3, 4]])", "alpha=.*cannot be read"),
        ("quantized_bits(4, elements_per_scale=2)", "elements_per_scale is not supported"),
        ("quantized_bits(4, post_training_scale=[1.0])", "post_training_scale needs alpha"),
        ("ternary('auto', 0.3)", "threshold must be None"),
        ("binary(training=True)", "training=True draws random numbers"),
        (4, "a_layer.*cannot read its quantizer 4"),
    ],
)
def test_unreadable(raw: object, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        read(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bernoulli()", "a_layer.*bernoulli.*random"),
        ("quantized_ulaw(6)", "a_layer.*quantized_ulaw.*no type holds its values"),
        ("quantized_relu(6,negative_slope=0.3)", "negative_slope=0.3 must be zero or a power of two"),
        ("quantized_relu(4,2,relu_upper_bound=-1.0,is_quantized_clip=False)", "relu_upper_bound=-1.0 must not be neg"),
        ("quantized_bits(4,alpha='auto')", "alpha='auto' scales an activation by what is in the batch"),
        ("quantized_linear(1,alpha=[1,2,3])", "with 1 bit it cannot have one alpha for each channel"),
        ("quantized_po2(1)", "leave none for the exponent"),
        ("quantized_po2(4,2,quadratic_approximation=True)", "max_value=2 lies exactly between"),
        ("quantized_po2(11)", "out of the range of float32"),
        ("quantized_po2(4,-1)", "max_value must not be negative"),
        ("quantized_po2(4,log2_rounding='ceil')", "must be 'rnd' or 'floor'"),
        ("quantized_hswish(4,relu_shift=0)", "must be above zero"),
        ("ternary(threshold='auto')", "threshold='auto' must be a number"),
    ],
)
def test_refused_as_activation(text: str, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        assert read(text).activation


def test_refused_as_weights() -> None:
    with pytest.raises(UnsupportedLayerError, match="automatic scale is infinite"):
        read("quantized_bits(1,alpha='auto')").quantize(np.ones((3, 2)))
    with pytest.raises(UnsupportedLayerError, match=r"scale has shape \(3,\) for weights of shape \(3, 2\)"):
        read("binary(alpha=[1,2,3])").quantize(np.ones((3, 2)))
    with pytest.raises(UnsupportedLayerError, match=r"scale has shape \(3,\) for weights of shape \(3, 2\)"):
        read("quantized_linear(4,alpha=[1,2,3])").quantize(np.ones((3, 2)))
    with pytest.raises(UnsupportedLayerError, match="threshold must be None"):
        read("ternary(threshold=0.5)").for_weights()
    with pytest.raises(UnsupportedLayerError, match="must be 0 to 1"):
        read("binary(alpha='auto',scale_axis=-1)").quantize(np.ones((3, 2)))
