"""Keras operations on tensors in functional models, where they equal a layer; Keras 2's functions as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import UnsupportedLayerError
from kconvert.profiling import get_ymodel_keras
from tests.layers.common import (
    as_list,
    assert_exact,
    check_layers,
    check_with_32_bits,
    convert,
    inputs_of,
    keras_answers,
)


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    ops = keras.ops
    x, y, block = keras.Input((4, 6), name="x"), keras.Input((5, 6), name="y"), keras.Input((2, 3, 2, 4), name="block")
    outputs = [
        x + x,
        x - ops.relu(x),
        x * x,
        ops.maximum(x, ops.negative(x)),
        x * 2.5,
        x - 1,
        1 - x,
        3 + x,
        x / 4.0,
        ops.divide(x, 3),
        -x,
        ops.square(x),
        ops.maximum(x, 0.0),
        ops.leaky_relu(x, 0.125),
        ops.tanh(x),
        ops.sigmoid(x),
        ops.softmax(x),
        ops.concatenate([x, y], axis=1),
        ops.reshape(x, (-1, 24)),
        ops.transpose(x, (0, 2, 1)),
        ops.matmul(x, ops.transpose(y, (0, 2, 1))),
        ops.matmul(block, ops.transpose(block, (0, 1, 2, 4, 3))),
        ops.mean(x, axis=1),
        ops.mean(block, axis=(2, 3)),
        ops.max(x, axis=-1, keepdims=True),
        ops.expand_dims(x, 1),
        ops.squeeze(ops.expand_dims(x, 2), 2),
        x[:, 1:3],
        x[:, 0],
        x[..., ::-1],
        x[:, 1:, ::2],
        block[:, -1, ..., 2],
    ]
    return keras.Model([x, y, block], outputs)


# Most are exact; tables have 1024 entries, products and quotients are rounded to 2**-10.
@pytest.mark.parametrize("setting", ["default", "narrow-wrap"])
def test_every_operation(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-7)


def test_errors_with_32_bits_are_those_of_the_types(model: Any) -> None:
    check_with_32_bits(model, bound=2**-14)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_answers(model: Any, tmp_path: Path, suffix: str) -> None:
    model.save(tmp_path / f"model{suffix}")
    live, stored = convert(model), convert(tmp_path / f"model{suffix}")
    x = inputs_of(live)
    for one, other in zip(as_list(live.predict(x)), as_list(stored.predict(x)), strict=True):
        assert np.array_equal(one, other)


def test_keras_computes_every_operation_for_a_comparison(model: Any) -> None:
    hls_model = convert(model)
    x = inputs_of(hls_model)
    x = [v.known_type().quantize(np.clip(a, -2, 2)) for v, a in zip(hls_model.inputs, x, strict=True)]
    ours, theirs = hls_model.trace(x), get_ymodel_keras(model, x)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() < 2**-7, name


def test_operations_of_keras_2() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    import tensorflow as tf

    x, y = tf_keras.Input((4, 6), name="x"), tf_keras.Input((4, 6), name="y")
    outputs = [
        x + y,
        x * 2.0,
        1 - x,
        -x,
        x / 4.0,
        tf.math.subtract(x, y),
        tf.nn.relu(x),
        tf.nn.leaky_relu(x, alpha=0.25),
        tf.concat([x, y], 1),
        tf.reshape(x, (-1, 24)),
        tf.transpose(x, (0, 2, 1)),
        tf.reduce_mean(x, 1),
        tf.reduce_max(x, axis=2, keepdims=True),
        tf.matmul(x, y, transpose_b=True),
        x[:, 1:3],
        tf.expand_dims(x, 1),
    ]
    model = tf_keras.Model([x, y], outputs)
    hls_model = convert(model)
    given = inputs_of(hls_model)
    given = [v.known_type().quantize(np.clip(a, -2, 2)) for v, a in zip(hls_model.inputs, given, strict=True)]
    for ours, theirs in zip(assert_exact(hls_model, given), keras_answers(model, given), strict=True):
        assert np.abs(ours - theirs).max() <= 2**-10


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("cumsum", "plain operation Cumsum"),
        ("sort", "plain operation Sort.*supported: Add, "),
        ("batch_mean", "Mean, over axis=0, which equals no layer"),
        ("quotient", "Divide, of two tensors,"),
        ("whole", r"Reshape, to \[24, -1\], whose first axis is not that of the batch"),
        ("top", "Minimum, of a tensor and 2,"),
    ],
)
def test_operations_that_equal_no_layer_are_named(operation: str, message: str) -> None:
    import keras

    ops = keras.ops
    x = keras.Input((4, 6), name="x")
    results = {
        "cumsum": lambda: ops.cumsum(x, axis=1),
        "sort": lambda: ops.sort(x, axis=1),
        "batch_mean": lambda: ops.mean(x, axis=0),
        "quotient": lambda: ops.divide(x, x),
        "whole": lambda: ops.reshape(x, (24, -1)),
        "top": lambda: ops.minimum(x, 2.0),
    }
    with pytest.raises(UnsupportedLayerError, match=message):
        kconvert.convert_from_keras_model(keras.Model(x, results[operation]()))


def test_a_function_of_tensorflow_without_a_counterpart_is_named() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    import tensorflow as tf

    x = tf_keras.Input((4,), name="x")
    with pytest.raises(UnsupportedLayerError, match=r"plain operation tf\.math\.cumsum"):
        kconvert.convert_from_keras_model(tf_keras.Model(x, tf.math.cumsum(x, axis=1)))
