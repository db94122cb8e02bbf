"""The layers against what numpy makes of their formulas, in all modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kconvert_contrib import approx
from kconvert_contrib.approx import ApproxError, ApproximateMultiplier

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

CODES = np.arange(-128, 128)
TRUNCATED = ApproximateMultiplier.from_function("truncated", 0.5, lambda x, y: (x >> 2) * (y >> 1) * 8)
# Products of code 0 are wrong (padding!), the operands are not alike, and there are many terms.
ODD = ApproximateMultiplier.from_function("odd", 0.3, lambda x, y: (x * y | 5) + x // 3 - (abs(x * y) >> 7))
SHIFTED = ApproximateMultiplier.from_function("shifted", 0.3, lambda x, y: x * y + y // 2 + 3)  # two terms, wrong at 0

S_X, S_W = 1 / 32, 1 / 64

LAYERS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "dense": ("ApproxDense", {"units": 5}, (6, 9)),
    "dense of frames": ("ApproxDense", {"units": 3, "use_bias": False, "activation": "relu"}, (2, 4, 5)),
    "valid": ("ApproxConv2D", {"filters": 3, "kernel_size": (3, 2), "strides": (2, 1)}, (2, 7, 6, 2)),
    "same": ("ApproxConv2D", {"filters": 4, "kernel_size": 3, "padding": "same", "strides": 2}, (2, 6, 5, 3)),
    "dilated": ("ApproxConv2D", {"filters": 2, "kernel_size": 2, "padding": "same", "dilation_rate": 2}, (2, 6, 5, 2)),
    "depthwise": ("ApproxDepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, (2, 5, 6, 3)),
}


def made(case: str, seed: int = 1) -> tuple[Any, np.ndarray]:
    """A built layer with drawn weights, and inputs some of which are clipped."""
    name, config, shape = LAYERS[case]
    rng = np.random.default_rng(seed)
    layer = getattr(approx, name)(**config)
    layer.build((None, *shape[1:]))
    layer.kernel.assign(rng.normal(0, 0.8, layer.kernel.shape))
    if layer.bias is not None:
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    layer.input_scale.assign(S_X)
    layer.weight_scale.assign(S_W)
    return layer, rng.normal(0, 3, shape).astype(np.float32)


def coded(x: Any, scale: float) -> np.ndarray:
    return np.clip(np.rint(np.asarray(x, np.float64) / scale), -127, 127).astype(int)


def expected(layer: Any, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The layer's answer with all products from a table [256, 256], spelled out place by place."""
    xq, wq = coded(x, S_X), coded(layer.kernel.numpy(), S_W)
    y = dense(xq, wq, table) if wq.ndim == 2 else convolved(layer, xq, wq, table)
    y = y * S_X * S_W + (0 if layer.bias is None else layer.bias.numpy().astype(np.float64))
    return np.maximum(y, 0) if layer.activation.__name__ == "relu" else y


def dense(xq: np.ndarray, wq: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table[xq[..., None] + 128, wq + 128].sum(axis=-2)


def convolved(layer: Any, xq: np.ndarray, wq: np.ndarray, table: np.ndarray) -> np.ndarray:
    kh, kw = wq.shape[:2]
    (sh, sw), (dh, dw) = layer.strides, layer.dilation_rate
    shape = layer.compute_output_shape(xq.shape)
    if layer.padding == "same":
        pads = []
        for size, out, k, s, d in zip(xq.shape[1:3], shape[1:3], (kh, kw), (sh, sw), (dh, dw), strict=True):
            total = max((out - 1) * s + (k - 1) * d + 1 - size, 0)
            pads.append((total // 2, total - total // 2))
        xq = np.pad(xq, ((0, 0), *pads, (0, 0)))
    y = np.zeros(shape)
    for row, column in np.ndindex(shape[1:3]):
        rows, columns = row * sh + dh * np.arange(kh), column * sw + dw * np.arange(kw)
        field = xq[:, rows][:, :, columns]  # [n, kh, kw, channels]
        each = table[field[..., None] + 128, wq + 128].sum(axis=(1, 2))  # [n, channels, outputs]
        depthwise = type(layer).__name__ == "ApproxDepthwiseConv2D"
        y[:, row, column] = each.reshape(len(xq), -1) if depthwise else each.sum(axis=1)
    return y


@pytest.mark.parametrize("case", LAYERS)
def test_quantised_and_approximate_layers_do_as_written(case: str):
    layer, x = made(case)
    layer.mode = "quantised"
    np.testing.assert_allclose(layer(x), expected(layer, x, np.multiply.outer(CODES, CODES)), rtol=1e-6, atol=1e-6)
    layer.mode = "approximate"
    for multiplier, emulation in ((TRUNCATED, "low_rank"), (SHIFTED, "low_rank"), (ODD, "table"), (ODD, "auto")):
        layer.emulation = emulation
        layer.assign(multiplier)
        np.testing.assert_allclose(layer(x), expected(layer, x, multiplier.table), rtol=1e-6, atol=1e-6)


def test_many_terms_are_as_exact_as_floats_and_unknown_sizes_are_no_obstacle():
    layer, x = made("same")
    layer.mode, layer.emulation = "approximate", "low_rank"
    layer.assign(ODD)
    np.testing.assert_allclose(layer(x), expected(layer, x, ODD.table), rtol=2e-3, atol=2e-3)
    layer, x = made("depthwise")
    layer.mode = "approximate"
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    for multiplier in (SHIFTED, ODD):
        layer.assign(multiplier)
        compiled = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
        np.testing.assert_allclose(compiled(x), expected(layer, x, multiplier.table), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_are_those_of_exact_products_where_nothing_is_clipped(case: str):
    layer, x = made(case)
    name, config, _ = LAYERS[case]
    plain = getattr(keras.layers, name.removeprefix("Approx"))(**{**config, "activation": None})
    plain.build((None, *x.shape[1:]))
    plain.kernel.assign(coded(layer.kernel.numpy(), S_W) * S_W)
    layer.activation = plain.activation
    x_rounded = (coded(x, S_X) * S_X).astype(np.float32)
    weight = np.random.default_rng(2).normal(size=plain(x).shape).astype(np.float32)
    wanted = gradients(plain, x_rounded, weight)
    wanted[0] *= abs(x / S_X) <= 127
    wanted[1] *= abs(layer.kernel.numpy() / S_W) <= 127
    layer.assign(SHIFTED)
    layer.mode = "approximate"
    for emulation in ("table", "low_rank"):
        layer.emulation = emulation
        layer.assign(SHIFTED)
        for found, value in zip(gradients(layer, x, weight), wanted, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    assert (wanted[0] == 0).any()  # some inputs were clipped


def gradients(layer: Any, x: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) * weight)
    return [np.array(g) for g in tape.gradient(loss, [x, layer.kernel.value])]


def test_float_mode_is_the_layer_of_keras():
    for case, (name, config, shape) in LAYERS.items():
        layer, x = made(case)
        layer.mode = "float"
        plain = getattr(keras.layers, name.removeprefix("Approx"))(**config)
        plain.build((None, *shape[1:]))
        plain.set_weights(layer.get_weights()[: len(plain.weights)])
        np.testing.assert_array_equal(layer(x), plain(x))


def test_noise_is_in_units_of_the_deviation_of_the_sums_and_only_in_training():
    keras.utils.set_random_seed(5)
    layer = approx.ApproxDense(50, mode="noisy")
    layer.build((None, 30))
    layer.bias.assign(np.full(50, 100.0))  # which the noise knows nothing of
    layer.input_scale.assign(S_X)
    layer.weight_scale.assign(S_W)
    x = np.random.default_rng(3).normal(size=(400, 30)).astype(np.float32)
    clean = layer(x)
    layer.sigma.assign(0.25)
    np.testing.assert_array_equal(layer(x), clean)
    noise = np.asarray(layer(x, training=True) - clean, np.float64)
    assert noise.std() / np.std(clean) == pytest.approx(0.25, rel=0.02)
    assert abs(noise.mean()) < 0.02 * noise.std()


def test_the_gradient_of_sigma_is_the_noise_and_passes_through_the_deviation():
    from kconvert_contrib.approx.layers import perturbed

    total, sigma = tf.constant(np.random.default_rng(1).normal(3, 2, (40, 5))), tf.Variable(0.3, dtype=tf.float64)
    keras.utils.set_random_seed(7)
    noise = keras.random.normal((40, 5), dtype="float64")
    keras.utils.set_random_seed(7)
    with tf.GradientTape() as tape:
        tape.watch(total)
        loss = tf.reduce_sum(perturbed(total, sigma) ** 2)
    d_sigma, d_total = tape.gradient(loss, [sigma, total])
    z, eps = np.asarray(total), np.asarray(noise)
    outer = 2 * (z + 0.3 * z.std() * eps)
    assert float(d_sigma) == pytest.approx((outer * eps).sum() * z.std())
    d_std = (z - z.mean()) / (z.size * z.std())
    np.testing.assert_allclose(d_total, outer + 0.3 * (outer * eps).sum() * d_std)
    with tf.GradientTape() as tape:  # all alike: no deviation, and a gradient that is a number
        flat = tf.Variable(np.ones((3, 4)))
        loss = tf.reduce_sum(perturbed(flat, sigma))
    np.testing.assert_allclose(tape.gradient(loss, flat), np.ones((3, 4)))


@pytest.mark.parametrize("case", ["dense of frames", "same", "depthwise"])
def test_weights_stand_in_their_order_and_a_saved_layer_is_complete(case: str, tmp_path: Any):
    layer, x = made(case)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.mode = "approximate"
    layer.assign(ODD)
    layer.sigma.assign(-0.125)
    kernel_and_bias = ["kernel", "bias"] if layer.use_bias else ["kernel"]
    named = [w.name.removeprefix("depthwise_") for w in layer.weights]
    assert named == [*kernel_and_bias, "input_scale", "weight_scale", "sigma", "table"]
    assert len(layer.trainable_weights) == len(kernel_and_bias)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    loaded = again.layers[0]
    assert (loaded.mode, loaded.multiplier.name, loaded.multiplier.performance_metric) == ("approximate", "odd", 0.3)
    np.testing.assert_array_equal(loaded.multiplier.error_map, ODD.error_map)
    assert float(loaded.sigma.numpy()) == -0.125


def test_operands_make_the_outputs():
    exact = np.multiply.outer(CODES, CODES)
    for case in LAYERS:
        layer, x = made(case)
        layer.bias = None
        layer.activation = keras.activations.linear
        rows, kernel, sums = layer.operands(x)
        wanted = expected(layer, x, exact) / (S_X * S_W)
        np.testing.assert_array_equal(sums, wanted.reshape(-1, wanted.shape[-1]))
        if case == "depthwise":
            per_channel = rows.reshape(-1, 3, 9).astype(int)
            kernel = kernel.reshape(9, 3, 2).astype(int)
            np.testing.assert_array_equal(np.einsum("pcf,fcm->pcm", per_channel, kernel).reshape(-1, 6), sums)
        else:
            np.testing.assert_array_equal(rows.astype(int) @ kernel.astype(int), sums)


def test_options_that_cannot_be_met_are_named():
    with pytest.raises(ApproxError, match="mode is one of"):
        approx.ApproxDense(3, mode="int8")
    with pytest.raises(ApproxError, match="channels_first"):
        approx.ApproxConv2D(3, 3, data_format="channels_first")
    with pytest.raises(ApproxError, match="float32"):
        approx.ApproxDense(3, dtype="mixed_float16")
    with pytest.raises(ApproxError, match="not built"):
        approx.ApproxDense(3).assign(ODD)
    layer, x = made("dense")
    layer.mode = "approximate"
    with pytest.raises(ApproxError, match="no multiplier"):
        layer(x)
