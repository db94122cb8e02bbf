"""A network on the mock of an analog chip learns the Yin-Yang figure, then moves to a chip and learns to live with it.

The network of BrainScaleS-2's tutorial, 4-128-3, is trained in the mock with its recipe: batches of 350 new points,
Adam with a rate of 1 that falls by 1 % a step, 200 steps. Then it moves to a "chip", here a mock whose neurons differ,
and trains 15 more steps with the chip in the loop. `--recipe better` trains 1000 steps with a rate that falls to 0 and
outputs scaled by 1/10 before the softmax. A map of decisions is drawn as it learns: in a window where there is one
(--window), and in demo/analog_yinyang.png.
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
import matplotlib as mpl
import numpy as np

from kconvert_contrib import analog

OUTPUT = Path(__file__).resolve().parent.parent / "demo" / "analog_yinyang.png"
BATCH = 350
GRID = 64
CLASSES = ("class 0", "class 1", "class 2, dots")
COLOURS = ("#4c72b0", "#dd8452", "#55a868")


def network(parameter: analog.MockParameter, scale: float) -> keras.Model:
    """Return the network; 5 neurons share each output."""
    layers = [
        keras.Input((4,)),
        analog.Dense(128, mock=parameter),
        analog.ConvertingReLU(1, mock=parameter),
        analog.Dense(3, avg=5, mock=parameter),
    ]
    return keras.Sequential([*layers, keras.layers.Rescaling(scale)] if scale != 1 else layers, name="yinyang")


class Map(keras.callbacks.Callback):
    """Draws the classes of a grid of points and the accuracy so far."""

    def __init__(self, window: bool, every: int) -> None:
        super().__init__()
        if not window:
            mpl.use("Agg")
        from matplotlib import pyplot as plt

        self.plt, self.window, self.every, self.steps = plt, window, every, 0
        self.curve: list[tuple[int, float]] = []
        self.title = ""
        self.figure, (self.picture, self.axes) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
        x, y = np.meshgrid(*[np.linspace(0, 1, GRID)] * 2)
        self.points = np.stack([x, y, 1 - x, 1 - y], axis=-1).reshape(-1, 4).astype(np.float32) * 31
        self.inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Draw now and then."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.curve.append((self.steps, logs["accuracy"]))
            self.draw()

    def draw(self) -> None:
        """Draw, and save the figure."""
        classes = np.argmax(self.model(self.points), axis=-1).reshape(GRID, GRID)
        self.picture.clear()
        shown = np.where(self.inside, classes, np.nan)
        self.picture.imshow(
            shown, origin="lower", extent=(0, 1, 0, 1), cmap=mpl.colors.ListedColormap(COLOURS), vmin=0, vmax=2
        )
        self.picture.set(title=self.title or f"step {self.steps}", xticks=(), yticks=())
        patches = [mpl.patches.Patch(color=c, label=n) for c, n in zip(COLOURS, CLASSES, strict=True)]
        self.picture.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False)
        self.axes.clear()
        self.axes.plot(*zip(*self.curve, strict=True))
        self.axes.set(xlabel="step", ylabel="accuracy since the stage began", ylim=(0, 1))
        self.axes.grid(alpha=0.3)
        OUTPUT.parent.mkdir(exist_ok=True)
        self.figure.savefig(OUTPUT)
        if self.window:
            self.plt.pause(0.01)


def accuracy(model: keras.Model, test: analog.datasets.YinYang, runs: int = 5) -> float:
    """Return the share of test points that are told right, the mean of runs with noise of their own."""
    x = (test.x * 31).astype(np.float32)
    return float(np.mean([np.argmax(model(x), axis=-1) == test.y for _ in range(runs)]))


def train(model: keras.Model, data: analog.datasets.YinYang, steps: int, rate: Any, callbacks: list[Any]) -> None:
    """Train on `steps` batches that were never seen."""
    points = data.batches(BATCH)
    x, y = (np.concatenate(parts) for parts in zip(*(next(points) for _ in range(steps)), strict=True))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    x = (x * 31).astype(np.float32)
    model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)


def main() -> None:
    """Train in the mock, move, train on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=("tutorial", "better"), default="tutorial")
    parser.add_argument(
        "--noise", type=float, default=2.0, help="standard deviation, in steps of the output (%(default)s)"
    )
    parser.add_argument("--gain", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--every", type=int, default=20, help="steps from one map to the next (%(default)s)")
    parser.add_argument("--window", action="store_true", help="show the map while it learns")
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    data, test = analog.datasets.YinYang(seed=42, fixed=False), analog.datasets.YinYang(1000, seed=40)
    schedules = keras.optimizers.schedules
    tutorial = options.recipe == "tutorial"
    steps = 200 if tutorial else 1000
    rate = schedules.ExponentialDecay(1.0, 1, 0.99) if tutorial else schedules.CosineDecay(1.0, steps)
    model = network(analog.MockParameter(options.noise, options.gain), 1.0 if tutorial else 0.1)
    view = Map(options.window, options.every)

    start = time.process_time()
    train(model, data, steps, rate, [view])
    took = time.process_time() - start
    print(f"in the mock, noise {options.noise:g}: {accuracy(model, test):.1%} after {steps} steps, {took:.1f} CPU-s")

    pattern = analog.FixedPattern(gain_std=0.15, offset_std=8.0)
    chip = analog.MockDevice(options.gain * 0.85, options.noise, seed=7, fixed_pattern=pattern)
    analog.use_device(model, chip)
    moved = accuracy(model, test)
    train(model, data, 15, schedules.ExponentialDecay(0.2, 1, 0.9), [])
    view.title = "on the chip, after 15 steps there"
    view.draw()
    print(f"on a chip whose neurons differ: {moved:.1%}, after 15 steps in the loop {accuracy(model, test):.1%}")
    print(f"the last map is {OUTPUT}")


if __name__ == "__main__":
    main()
