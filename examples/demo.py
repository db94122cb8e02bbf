"""From a trained classifier to bit-exact fixed-point predictions, in one sitting.

Trains a small network on the handwritten digits that come with scikit-learn, converts it at three precisions, and
shows what each of them costs. ``make demo`` runs it; the figures and the HLS project go to ``demo/``.
"""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the network is far too small for a GPU

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kconvert
from kconvert.errors import PrecisionWarning

OUTPUT = Path(__file__).resolve().parent.parent / "demo"
# The first is the default of the package and safe for most networks; then what a careful and a reckless user choose.
PRECISIONS = ("ap_fixed<16,6>", "ap_fixed<8,3>", "ap_fixed<4,2>")
SPEED_SAMPLES = 100_000


def load_data() -> list[np.ndarray]:
    """Return x_train, x_test, y_train, y_test: 8x8 images as rows of 64 numbers, and the digits they show."""
    images, digits = load_digits(return_X_y=True)
    # Pixels are integers from 0 to 16. Divided by 16 they lie in [0, 1]: networks train better on numbers of that size,
    # and every pixel still fits a fixed-point type of 1 integer and 4 fraction bits exactly.
    scaled = (images / 16).astype(np.float32)
    return list(train_test_split(scaled, digits, test_size=0.5, random_state=0, stratify=digits))


def train_model(x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Return a trained network 64-32-32-10. Its batch normalisation costs nothing in hardware: it is folded away."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    pixels = keras.Input((64,), name="pixels")
    hidden = layers.Dense(32, name="fc1")(pixels)
    hidden = layers.BatchNormalization(name="bn1")(hidden)
    hidden = layers.ReLU(name="relu1")(hidden)
    hidden = layers.Dense(32, activation="relu", name="fc2")(hidden)
    model = keras.Model(pixels, layers.Dense(10, activation="softmax", name="digit")(hidden), name="digits")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=20, verbose=0)
    return model


def convert(model: keras.Model, precision: str) -> tuple[kconvert.HLSModel, float]:
    """Return the model in fixed point, compiled, and the seconds the C++ compiler took (nearly none from its cache)."""
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision=precision)
    hls_model = kconvert.convert_from_keras_model(model, config, OUTPUT / "project", project_name="digits")
    return hls_model, seconds(hls_model.compile)


def convert_quietly(model: keras.Model, precision: str) -> tuple[kconvert.HLSModel, float, list[str]]:
    """Return also what kconvert warns of, to be shown after the table."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hls_model, compile_time = convert(model, precision)
    return hls_model, compile_time, [str(w.message) for w in caught if issubclass(w.category, PrecisionWarning)]


def seconds(action: Callable[[], Any]) -> float:
    """Return how long `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def samples_per_second(predict: Callable[[], Any]) -> float:
    """Return the best of three rounds: the first one sets things up, others may be disturbed."""
    return SPEED_SAMPLES / min(seconds(predict) for _ in range(3))


def report(name: str, y: np.ndarray, reference: np.ndarray, truth: np.ndarray, speed: float, compiled: str) -> None:
    """Print one line of the table."""
    decided = y.argmax(axis=1)
    accuracy, agreement = np.mean(decided == truth), np.mean(decided == reference.argmax(axis=1))
    error = np.abs(y - reference).max()
    print(f"{name:<16}{accuracy:>10.1%}{agreement:>12.1%}{error:>12.4f}{compiled:>12}{speed:>14,.0f}", flush=True)


def draw(model: keras.Model, converted: dict[str, kconvert.HLSModel], x: np.ndarray, digits: np.ndarray) -> None:
    """Write the three figures."""
    scores = {"Keras": model.predict(x, verbose=0)} | {name: m.predict(x) for name, m in converted.items()}
    # Four digits show it as well as ten, and can be told apart: those that Keras itself finds hardest.
    found = [np.mean(scores["Keras"][digits == k].argmax(axis=1) == k) for k in range(10)]
    hard = sorted(np.argsort(found)[:4])
    hard_scores = {name: y[:, hard] for name, y in scores.items()}
    figures = {
        # How good is each precision as a classifier?
        "roc.png": kconvert.profiling.roc(digits[:, None] == hard, hard_scores, [f"digit {k}" for k in hard]),
        # In which layer is the precision lost?
        "layers.png": kconvert.profiling.compare(model, converted, x),
        # Do the values fit their types? Left of the shade they vanish, right of it they saturate.
        "ranges.png": kconvert.profiling.numerical(model, converted[PRECISIONS[1]], x),
    }
    for name, figure in figures.items():
        figure.savefig(OUTPUT / name, dpi=120)


def main() -> None:
    """Run the demonstration."""
    OUTPUT.mkdir(exist_ok=True)
    x_train, x_test, y_train, y_test = load_data()
    print(f"training on {len(x_train)} digits, testing on {len(x_test)} ...", flush=True)
    model = train_model(x_train, y_train)
    reference = model.predict(x_test, verbose=0)
    many = np.resize(x_test, (SPEED_SAMPLES, 64))  # the test set over and over

    print(f"\n{'precision':<16}{'accuracy':>10}{'as Keras':>12}{'max error':>12}{'compile s':>12}{'samples/s':>14}")
    # Large batches, for which Keras is at its best.
    keras_speed = samples_per_second(lambda: model.predict(many, batch_size=4096, verbose=0))
    report("Keras (float32)", reference, reference, y_test, keras_speed, "")
    converted, notes = {}, []
    for precision in PRECISIONS:
        hls_model, compile_time, warned = convert_quietly(model, precision)
        converted[precision] = hls_model
        notes += warned
        speed = samples_per_second(functools.partial(hls_model.predict, many))
        report(precision, hls_model.predict(x_test), reference, y_test, speed, f"{compile_time:.2f}")
    print("\nas Keras: share of samples with the same answer; max error: largest difference of a softmax output;")
    print("the predictions in fixed point are those of the hardware, bit for bit")
    for note in notes:
        print(f"note: {note}")

    draw(model, converted, x_test, y_test)
    project = converted[PRECISIONS[0]].write()
    print(f"\nwritten: {', '.join(sorted(p.name for p in OUTPUT.glob('*.png')))} and the HLS project {project}")


if __name__ == "__main__":
    main()
