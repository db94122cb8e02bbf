"""The trained read of binary LUT layers in TensorFlow, about a hundred times faster than summing 64 terms a sample.

In binary mode an input is read as 0.25 or 0.75, so everything that a node does with a sample depends on its address
alone. The forward pass is one small smoothing of the tables and a gather. With the gradient dz of a node's read, the
gradient of its table is the smoothed histogram of dz over addresses, and that of input i is dz times the slope of the
smoothed table Z along i: the read is linear in each input, so the slope is ``(Z[i set] - Z[i clear]) / (0.75 - 0.25)``.
XLA fuses each of these functions into a few loops. Inside, the frames are the last axis: rows are gathered and added
whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .tables import VARIANCE_FLOOR, smooth

Norm = tuple[float, float]

compiled = functools.partial(tf.function, jit_compile=True)


def read(x: Any, table: Any, connection: Any, norm: Norm | None = None) -> tuple[Any, Any, Any]:
    """Return the outputs in {0, 1}, float32 [frames, units], and every node's batch mean and variance, [units].

    Args:
        x: Float32 [frames, inputs]; above 0.5 is a 1.
        table: Float32 [units, 2**n].
        connection: Int32 [units, n], the input that each pin reads.
        norm: gamma and beta of the batch normalisation, or None.
    """
    connection = tf.identity(connection)
    matrices = _smoothing(connection.shape[1])

    def outputs(x: Any, table: Any) -> tuple[Any, Callable[..., tuple[Any, Any]]]:
        smoothed, *slopes = tf.unstack(tf.matmul(table, matrices))
        y, place, z, mean, variance = _forward(x, smoothed, connection, norm)

        def gradient(dy: Any, *_: Any) -> tuple[Any, Any]:
            dz, histogram = _backward(dy, place, z, mean, variance, norm, table.shape[1])
            d_table = tf.matmul(histogram, matrices[0])  # which is its own transpose
            return _to_inputs(dz, place, slopes, connection, x.shape[1]), d_table

        return (y, mean, variance), gradient

    # variables would be handed to the gradient in another way than tensors
    y, mean, variance = tf.custom_gradient(outputs)(tf.identity(x), tf.identity(table))
    return y, mean, variance


def judge_wiring(x: Any, dy: Any, table: Any, connection: Any, norm: Norm | None = None) -> tuple[Any, Any]:
    """Return what each node misses, float32 [units, inputs], and what its pins matter, [units, n].

    A node misses an input as much as the loss would fall if the input were added to its read: the size of the
    covariance of the input and the gradient of the read. A pin matters as much as the read changes with it, on average.

    Args:
        x: Float32 [frames, inputs].
        dy: Float32 [frames, units], the gradient of the loss with regard to the layer's output at x.
        table: Float32 [units, 2**n].
        connection: Int32 [units, n].
        norm: gamma and beta of the batch normalisation, or None.
    """
    smoothed, *slopes = tf.unstack(tf.matmul(table, _smoothing(connection.shape[1])))
    _, place, z, mean, variance = _forward(x, smoothed, connection, norm)
    dz, _ = _backward(dy, place, z, mean, variance, norm, table.shape[1])
    bits = tf.cast(x > 0.5, tf.float32)
    missed = tf.abs(tf.matmul(dz, bits - tf.reduce_mean(bits, axis=0)))
    matters = [tf.reduce_mean(tf.abs(tf.gather(_flat(slope), place)), axis=1) for slope in slopes]
    return missed, tf.stack(matters, axis=1)


@functools.cache
def _smoothing(n: int) -> Any:
    """Return float32 [n + 1, 2**n, 2**n], to multiply tables by: what smooths them, and what takes slope i."""
    smoothing, index = smooth(np.eye(2**n, dtype=np.float32)), np.arange(2**n)
    slopes = [(smoothing[:, index | 1 << i] - smoothing[:, index & ~(1 << i)]) * 2 for i in range(n)]
    return np.stack([smoothing, *slopes])


@compiled
def _forward(x: Any, smoothed: Any, connection: Any, norm: Norm | None) -> tuple[Any, ...]:
    """Return answers [frames, units], places in all tables and reads there [units, frames], mean and variance."""
    units, size = smoothed.shape
    bits = tf.transpose(tf.cast(x > 0.5, tf.uint8))
    address = tf.zeros((), tf.uint8)
    for i in range(connection.shape[1]):
        address = address + tf.gather(bits, connection[:, i]) * tf.constant(2**i, tf.uint8)
    place = tf.cast(address, tf.int32) + size * tf.range(units)[:, tf.newaxis]
    z = tf.gather(_flat(smoothed), place)
    mean = tf.reduce_mean(z, axis=1)
    variance = tf.maximum(tf.reduce_mean(tf.square(z - mean[:, tf.newaxis]), axis=1), VARIANCE_FLOOR)
    t = _normalised(z, mean, variance, *norm) if norm else z
    return tf.transpose(tf.cast(t > 0.5, tf.float32)), place, z, mean, variance


@compiled
def _backward(dy: Any, place: Any, z: Any, mean: Any, variance: Any, norm: Norm | None, size: int) -> tuple[Any, Any]:
    """Return the gradient of the reads [units, frames], and its sums over frames with the same address."""
    dz, units = tf.transpose(dy), z.shape[0]
    if norm:  # hard tanh, then batch normalisation
        t = _normalised(z, mean, variance, *norm)
        gamma, beta = norm
        d, normal = gamma * tf.where((t > 0) & (t < 1), dz, 0.0), (t - beta) / gamma
        along = tf.reduce_mean(d * normal, axis=1, keepdims=True)
        centred = d - tf.reduce_mean(d, axis=1, keepdims=True)
        dz = (centred - normal * along) * tf.math.rsqrt(variance)[:, tf.newaxis]
    return dz, tf.reshape(tf.math.unsorted_segment_sum(_flat(dz), _flat(place), units * size), (units, size))


def _normalised(z: Any, mean: Any, variance: Any, gamma: float, beta: float) -> Any:
    return gamma * (z - mean[:, tf.newaxis]) * tf.math.rsqrt(variance)[:, tf.newaxis] + beta


@compiled
def _to_inputs(dz: Any, place: Any, slopes: list[Any], connection: Any, inputs: int) -> Any:
    """Return the gradient of the inputs, the sum of those of the pins that read them."""
    pins = _flat(tf.transpose(connection))
    each = tf.concat([dz * tf.gather(_flat(slope), place) for slope in slopes], axis=0)
    return tf.transpose(tf.math.unsorted_segment_sum(each, pins, inputs))


def _flat(tensor: Any) -> Any:
    return tf.reshape(tensor, (-1,))
