"""How much slower analog layers are in the mock than float Dense layers of the same shape, batch 350.

Prints CPU milliseconds of a forward pass and of one with gradients, as TensorFlow runs them on one thread, and their
ratio. Noise is most of what the mock takes: every chunk of 128 inputs has its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np
import tensorflow as tf
from _measure import cpu_seconds

from kconvert_contrib import analog

BATCH = 350
SHAPES = ((4, 128), (128, 3), (128, 128), (500, 128), (512, 256), (784, 512))


def milliseconds(works: list[Callable[[], Any]], rounds: int, seconds: float) -> list[float]:
    """Return the CPU time of one call of each, the median of rounds that take turns."""
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, taken, strict=True):
            start, calls = cpu_seconds(), 0
            while cpu_seconds() - start < seconds:
                work()
                calls += 1
            times.append((cpu_seconds() - start) / calls * 1e3)
    return [statistics.median(times) for times in taken]


def forward_of(layer: Any, x: Any) -> Callable[[], Any]:
    """Return a compiled forward pass."""
    return tf.function(lambda: layer(x))  # type: ignore[no-any-return]


def training_of(layer: Any, x: Any) -> Callable[[], Any]:
    """Return a compiled pass with gradients of inputs and weights."""

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))  # whose gradient needs the answer
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return step  # type: ignore[no-any-return]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="CPU time of one measurement (%(default)s)")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(1)
    print(f"{'shape':>9}  {'pass':8}  {'float':>7}  {'noise 0':>13}  {'noise 2':>13}")
    for inputs, units in SHAPES:
        x = tf.Variable(rng.uniform(0, 31, (BATCH, inputs)).astype(np.float32))
        parameters = (analog.MockParameter(noise) for noise in (0.0, 2.0))
        layers = [keras.layers.Dense(units), *(analog.Dense(units, mock=p) for p in parameters)]
        for name, make in (("forward", forward_of), ("training", training_of)):
            float_ms, *mock_ms = milliseconds([make(layer, x) for layer in layers], options.rounds, options.seconds)
            ratios = "".join(f"  {ms:6.2f} ({ms / float_ms:3.1f}x)" for ms in mock_ms)
            print(f"{inputs:4} x {units:3}  {name:8}  {float_ms:7.2f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
