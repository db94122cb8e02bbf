"""The benchmark's models as plain data, built by whichever Keras is at hand (the peer's is older than ours)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A network and what is known of the peer on it.

    Attributes:
        shape: Shape of one input sample.
        layers: (kind, arguments...) in order: conv filters size, pool size, flatten, dense units; conv and dense layers
            are followed by a ReLU, the last one by a softmax.
        batch: Samples of one ``predict`` call.
        peer_rate: Documented samples per CPU-second of hls4ml 1.3.0's ``predict``.
        peer_compile: Documented CPU-seconds of its ``compile``.
    """

    shape: tuple[int, ...]
    layers: tuple[tuple[Any, ...], ...]
    batch: int
    peer_rate: float
    peer_compile: float

    @property
    def classes(self) -> int:
        """Units of the last layer."""
        return int(self.layers[-1][1])


def _dense(*units: int) -> tuple[tuple[Any, ...], ...]:
    return tuple(("dense", n) for n in units)


CASES = {
    "jet": Case((16,), _dense(64, 32, 32, 5), 65536, 10241, 6),
    "mnist": Case((784,), _dense(512, 256, 128, 10), 8192, 101, 9),
    "lenet": Case(
        (28, 28, 1),
        (("conv", 6, 5), ("pool", 2), ("conv", 16, 5), ("pool", 2), ("flatten",), *_dense(120, 84, 10)),
        8192,
        112,
        56,
    ),
    "cnn": Case(
        (32, 32, 3),
        (
            *(("conv", 16, 3), ("pool", 2), ("conv", 16, 3), ("pool", 2), ("conv", 24, 3), ("pool", 2)),
            *(("flatten",), *_dense(42, 64, 10)),
        ),
        4096,
        59,
        110,
    ),
}


def build(case: Case, keras: Any) -> Any:
    """Return `case` as a Sequential model of `keras`, the module, with untrained weights."""
    kinds = {
        "conv": lambda n, size, **more: keras.layers.Conv2D(n, size, **more),
        "dense": lambda n, **more: keras.layers.Dense(n, **more),
        "pool": keras.layers.MaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    stack = [keras.layers.Input(case.shape, name="input_layer")]
    for number, (kind, *arguments) in enumerate(case.layers, 1):
        relu = {"activation": "relu"} if kind in ("conv", "dense") and number < len(case.layers) else {}
        stack.append(kinds[kind](*arguments, **relu, name=f"{kind}{number}"))
    stack.append(keras.layers.Activation("softmax", name="softmax"))
    return keras.Sequential(stack)


def samples(case: Case, count: int, seed: int) -> tuple[Array, Array]:
    """Return made-up data: noisy patterns, one pattern for each class, with values around [-2, 2]; and the labels."""
    pattern_of = np.random.default_rng(0)
    coarse = tuple(-(-n // 4) if len(case.shape) > 1 and axis < 2 else n for axis, n in enumerate(case.shape))
    patterns = pattern_of.normal(size=(case.classes, *coarse))
    if len(case.shape) > 1:  # blobs of 4x4 pixels, which a convolution can tell from noise
        patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)[:, : case.shape[0], : case.shape[1]]
    random = np.random.default_rng(seed)
    labels = random.integers(case.classes, size=count)
    x = 0.5 * patterns[labels] + 0.8 * random.normal(size=(count, *case.shape))
    return x.astype(np.float32), labels


def prepare(name: str, folder: Path) -> tuple[Path, Path]:
    """Return the paths of the trained model (.keras) and of its weights, test inputs and Keras' answers (.npz).

    They are made on first use and kept in `folder`.
    """
    case = CASES[name]
    stem = f"{name}-{hashlib.sha256(repr((case.shape, case.layers)).encode()).hexdigest()[:8]}"
    model_file, data_file = folder / f"{stem}.keras", folder / f"{stem}.npz"
    if not data_file.exists():
        import keras

        folder.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(1)
        model = build(case, keras)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*samples(case, 4000, seed=1), batch_size=64, epochs=3, verbose=0)
        x, labels = samples(case, 2000, seed=2)
        weights = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        model.save(model_file)
        np.savez(data_file, x=x, labels=labels, keras=model.predict(x, verbose=0), **weights)
    return model_file, data_file


def weights_of(data: Any) -> list[Array]:
    """Return the weights in an archive of :func:`prepare`, in Keras' order."""
    return [data[f"w{i}"] for i in range(sum(key.startswith("w") for key in data.files))]


def agreement(y: Array, reference: Array) -> tuple[float, float]:
    """Return the share of samples of the same argmax, and the largest difference."""
    return float(np.mean(y.argmax(-1) == reference.argmax(-1))), float(np.abs(y - reference).max())
