"""A network of look-up tables for MNIST, trained on a CPU: accuracy, look-up tables, and the curve of both.

Pixels are compared with half of their range, which is their highest bit: the encoding takes no logic. Two layers of
6-input tables and sums of 75 bits for each digit follow. While it trains, pins that matter little move to pixels that
their node misses. MNIST comes from Keras, or from the folder or file that KCONVERT_MNIST names.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # the package beside this folder, installed or not

import keras
import numpy as np

from kconvert_contrib import lutnet
from kconvert_contrib.datasets import load_mnist

OUTPUT = Path(__file__).resolve().parent.parent / "demo"
BATCH = 250  # divides 60,000: a smaller last batch would be compiled on its own


def network(units: list[int], steps: int) -> keras.Model:
    """Return the network, compiled; the learning rate falls to a tenth in 12 epochs of `steps`."""
    luts = [lutnet.DifferentiableLut(n, seed=k + 1, momentum=0.95) for k, n in enumerate(units)]
    pixels = [keras.Input((784,)), lutnet.Binarize(127.5, 0.0, 1.0)]
    model = keras.Sequential([*pixels, *luts, lutnet.GroupSum(10, tau=4.0)], name="digits")
    rate = keras.optimizers.schedules.ExponentialDecay(3e-3, steps, 0.83)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


class Progress(keras.callbacks.Callback):
    """One line an epoch: time, accuracy in training and on the test images."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y, self.start, self.curve = x, y, time.perf_counter(), []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure and print."""
        test = self.model.evaluate(self.x, self.y, batch_size=1000, verbose=0)[1]
        self.curve.append((logs["accuracy"], test))
        took = time.perf_counter() - self.start
        print(f"epoch {epoch + 1:3d}  {took:5.0f} s  train {logs['accuracy']:.4f}  test {test:.4f}", flush=True)


def plot(curve: list[tuple[float, float]], file: Path) -> None:
    """Draw accuracy over epochs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for values, label in zip(zip(*curve, strict=True), ("training", "test"), strict=True):
        axes.plot(range(1, len(values) + 1), values, marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
    plt.close(figure)


def main() -> None:
    """Train, count, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--units", default="1800,750", help="nodes of each layer; 10 divides the last (%(default)s)")
    parser.add_argument("--no-rewiring", action="store_true", help="keep the random wiring")
    options = parser.parse_args()
    digits = load_mnist()
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) for a in (digits.x_train, digits.x_test))
    keras.utils.set_random_seed(1)
    model = network([int(n) for n in options.units.split(",")], len(x) // BATCH)
    progress = Progress(x_test, digits.y_test)
    rewire = [] if options.no_rewiring else [lutnet.Rewire(x, digits.y_train)]
    model.fit(x, digits.y_train, batch_size=BATCH, epochs=options.epochs, verbose=0, callbacks=[*rewire, progress])

    layers = [layer for layer in model.layers if isinstance(layer, lutnet.DifferentiableLut)]
    print(f"{sum(len(layer.lut_tables()) for layer in layers)} look-up tables before any optimisation, none to encode")
    OUTPUT.mkdir(exist_ok=True)
    model.save(OUTPUT / "lutnet_mnist.keras")
    plot(progress.curve, OUTPUT / "lutnet_mnist.png")
    print(f"model and curve are in {OUTPUT}")


if __name__ == "__main__":
    main()
