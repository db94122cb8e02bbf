"""Training speed and accuracy of BinaryBrain's network of 2,536 look-up tables for MNIST, epoch by epoch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from _measure import spent  # noqa: E402
from predict import RESULTS, machine  # noqa: E402

from kconvert_contrib import lutnet  # noqa: E402
from kconvert_contrib.datasets import load_mnist  # noqa: E402

UNITS = (1024, 512, 256, 256, 128, 360)
PUBLISHED = {0: 0.7378, 1: 0.8348, 4: 0.8849, 9: 0.8993, 15: 0.8948, 31: 0.9097, 63: 0.9077, 127: 0.9099, 255: 0.9118}
"""Test accuracy that the original's notebook prints after an epoch."""
TITLES = ("epoch", "samples /cpu-s", "samples /s", "train accuracy", "test accuracy", "original")
MOST_LINES = 20


def network(momentum: float, seed: int) -> keras.Model:
    """Return the network as the original has it, compiled."""
    luts = [lutnet.DifferentiableLut(n, seed=10 * seed + k, momentum=momentum) for k, n in enumerate(UNITS)]
    pixels = [keras.Input((784,)), lutnet.Binarize(0.5, 0.0, 1.0)]
    model = keras.Sequential([*pixels, *luts, lutnet.AverageLut(60), lutnet.Reduce(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    return model


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train, and yield the figures of every epoch when it is over."""
    digits = load_mnist(options.mnist)
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (digits.x_train, digits.x_test))
    keras.utils.set_random_seed(options.seed)
    model = network(options.momentum, options.seed)
    for epoch in range(options.epochs):
        history: dict[str, list[float]] = {}

        def train(history: dict[str, list[float]] = history) -> None:
            history.update(model.fit(x, digits.y_train, batch_size=options.batch, verbose=0).history)

        took = spent(train)
        loss, accuracy = model.evaluate(x_test, digits.y_test, batch_size=1000, verbose=0)
        yield {
            "epoch": epoch, "per_cpu_s": len(x) / took["cpu_s"], "per_s": len(x) / took["wall_s"], **took,
            "train_loss": history["loss"][0], "train_accuracy": history["accuracy"][0],
            "test_loss": loss, "test_accuracy": accuracy,
        }  # fmt: skip


def shown(epoch: int, last: int) -> bool:
    """Whether the table has a line for this epoch: of a long run only those of the published curve, and some more."""
    return last < MOST_LINES or epoch in PUBLISHED or epoch == last or (epoch + 1) % (16 * (1 + last // 128)) == 0


def line(row: dict[str, Any]) -> str:
    """Return the line of an epoch."""
    published = PUBLISHED.get(row["epoch"])
    speed = [f"{row['per_cpu_s']:,.0f}", f"{row['per_s']:,.0f}"]
    accuracy = [f"{row['train_accuracy']:.4f}", f"{row['test_accuracy']:.4f}"]
    return aligned([str(row["epoch"]), *speed, *accuracy, f"{published:.4f}" if published else "-"])


def aligned(cells: list[str]) -> str:
    """Return the cells under the titles of their columns."""
    return "  ".join(cell.rjust(len(title)) for cell, title in zip(cells, TITLES, strict=True))


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the best of all epochs, and the mean of the last 32, which jitter does not move."""
    best = max(rows, key=lambda row: row["test_accuracy"])
    speed, tail = max(row["per_cpu_s"] for row in rows), [row["test_accuracy"] for row in rows[-32:]]
    return (
        f"fastest epoch: {speed:,.0f} samples a CPU-second; the first one compiles\n"
        f"best test accuracy: {best['test_accuracy']:.4f} after epoch {best['epoch']}; "
        f"mean of the last {len(tail)}: {np.mean(tail):.4f}"
    )


def main() -> None:
    """Measure, print, write results/lutnet.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--momentum", type=float, default=0.9, help="of the running statistics (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow (%(default)s); 0: as many as it likes")
    parser.add_argument("--mnist", metavar="PATH", help="folder of IDX files or mnist.npz; else $KCONVERT_MNIST, Keras")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    RESULTS.mkdir(exist_ok=True)
    before, rows = machine(), []
    print(f"{before['cpu']}, {before['cores']} cores, load {before['load'][0]:.1f}, batch {options.batch}\n")
    print(aligned(list(TITLES)), flush=True)
    for row in measure(options):
        rows.append(row)
        if shown(row["epoch"], options.epochs - 1):
            print(line(row), flush=True)
        (RESULTS / "lutnet.json").write_text(json.dumps({"machine": before, "epochs": rows}, indent=1) + "\n")
    print(f"\n{summary(rows)}")


if __name__ == "__main__":
    main()
