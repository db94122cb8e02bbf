"""Training speed and accuracy of BinaryBrain's network of 2,536 look-up tables for MNIST, epoch by epoch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from _measure import spent  # noqa: E402
from predict import RESULTS, machine, table  # noqa: E402

from kconvert_contrib import lutnet  # noqa: E402
from kconvert_contrib.datasets import load_mnist  # noqa: E402

UNITS = (1024, 512, 256, 256, 128, 360)
PUBLISHED = {0: 0.7378, 1: 0.8348, 4: 0.8849, 9: 0.8993, 31: 0.9097, 63: 0.9077, 127: 0.9099, 255: 0.9118}
"""Test accuracy that the original's notebook prints after an epoch."""


def network(momentum: float) -> keras.Model:
    """Return the network as the original has it, compiled."""
    luts = [lutnet.DifferentiableLut(n, seed=k + 1, momentum=momentum) for k, n in enumerate(UNITS)]
    pixels = [keras.Input((784,)), lutnet.Binarize(0.5, 0.0, 1.0)]
    model = keras.Sequential([*pixels, *luts, lutnet.AverageLut(60), lutnet.Reduce(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    return model


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train, and return the figures of every epoch."""
    digits = load_mnist(options.mnist)
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (digits.x_train, digits.x_test))
    keras.utils.set_random_seed(1)
    model, rows = network(options.momentum), []
    for epoch in range(options.epochs):
        history: dict[str, list[float]] = {}

        def train(history: dict[str, list[float]] = history) -> None:
            history.update(model.fit(x, digits.y_train, batch_size=options.batch, verbose=0).history)

        took = spent(train)
        loss, accuracy = model.evaluate(x_test, digits.y_test, batch_size=1000, verbose=0)
        rows.append({
            "epoch": epoch, "per_cpu_s": len(x) / took["cpu_s"], "per_s": len(x) / took["wall_s"], **took,
            "train_loss": history["loss"][0], "train_accuracy": history["accuracy"][0],
            "test_loss": loss, "test_accuracy": accuracy,
        })  # fmt: skip
        if sys.stderr.isatty():
            print(f"epoch {epoch}: {accuracy:.4f}, {rows[-1]['per_cpu_s']:,.0f} samples a CPU-second", file=sys.stderr)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table; the first epoch compiles, which is part of its time."""
    lines = [["epoch", "samples /cpu-s", "samples /s", "train accuracy", "test accuracy", "original"]]
    for row in rows:
        published = PUBLISHED.get(row["epoch"])
        speed = [f"{row['per_cpu_s']:,.0f}", f"{row['per_s']:,.0f}"]
        accuracy = [f"{row['train_accuracy']:.4f}", f"{row['test_accuracy']:.4f}"]
        lines.append([str(row["epoch"]), *speed, *accuracy, f"{published:.4f}" if published else "-"])
    print(table(lines))


def main() -> None:
    """Measure, print, write results/lutnet.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--momentum", type=float, default=0.9, help="of the running statistics (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow (%(default)s); 0: as many as it likes")
    parser.add_argument("--mnist", metavar="PATH", help="folder of IDX files or mnist.npz; else $KCONVERT_MNIST, Keras")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    RESULTS.mkdir(exist_ok=True)
    before = machine()
    rows = measure(options)
    best = max(row["per_cpu_s"] for row in rows)
    print(f"{before['cpu']}, {before['cores']} cores, load {before['load'][0]:.1f}, batch {options.batch}\n")
    show(rows)
    print(f"\nbest epoch: {best:,.0f} samples a CPU-second; the first one compiles")
    (RESULTS / "lutnet.json").write_text(json.dumps({"machine": before, "epochs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
