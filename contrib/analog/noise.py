"""Normal noise for the mock, at a fraction of what TensorFlow's own takes.

What the mock takes is mostly its noise: one number for each output of each chunk of 128 inputs. Here a number is a
look-up in a table of 65,536 quantiles, at the upper half of a hash of seed and position (two rounds of C. Wellons'
lowbias32), which XLA fuses with what the noise is added to. The quantiles have variance 1 and end at 4.3.
"""

from __future__ import annotations

import functools
from statistics import NormalDist
from typing import Any

import numpy as np
import tensorflow as tf

BITS = 16


def normal(count: Any, seed: Any, first: Any = 0) -> Any:
    """Return float32 [count], independent and normal with mean 0 and standard deviation 1.

    Args:
        count: How many, a number or a scalar tensor.
        seed: Uint32 [2]; others give other noise.
        first: Position of the first; the noise of a position is always the same.
    """
    position = tf.bitcast(tf.range(first, first + count), tf.uint32)
    bits = _mixed(_mixed(position ^ seed[0]) ^ seed[1])
    return tf.gather(_quantiles(), tf.bitcast(tf.bitwise.right_shift(bits, _word(32 - BITS)), tf.int32))


@functools.cache
def _quantiles() -> Any:
    """Return float32 [65536], the middles of equally likely slices of the normal distribution."""
    half = 2 ** (BITS - 1)
    upper = np.array([NormalDist().inv_cdf((half + i + 0.5) / (2 * half)) for i in range(half)])
    quantiles = np.concatenate([-upper[::-1], upper])
    with tf.init_scope():  # a tensor is handed to what XLA compiles, an array would be compiled into it
        return tf.constant((quantiles / quantiles.std()).astype(np.float32))


def _mixed(word: Any) -> Any:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ tf.bitwise.right_shift(word, _word(shift))) * _word(factor)
    return word ^ tf.bitwise.right_shift(word, _word(16))


def _word(value: int) -> Any:
    return tf.constant(value, tf.uint32)
