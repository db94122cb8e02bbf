"""What a user may call data: arrays, data sets or iterators, alone or with parts to validate and test with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from .errors import ApproxError, check

BATCH = 128


class Parts(NamedTuple):
    """Each part is a tuple (x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset, a PyDataset or an iterator."""

    train: Any
    validation: Any = None
    test: Any = None


def parts_of(data: Any) -> Parts:
    """Return the parts of ``train``, ``(train, validation)`` or ``(train, validation, test)``.

    Raises:
        ApproxError: it is none of these.
    """
    if isinstance(data, tuple) and 1 <= len(data) <= 3 and all(_is_part(part) for part in data):
        return Parts(*data)
    check(
        _is_part(data),
        "data is a tuple (x, y), a batched tf.data.Dataset, a keras.utils.PyDataset or an iterator, or a tuple of "
        f"such: (train, validation) or (train, validation, test); received {type(data).__name__}",
    )
    return Parts(data)


def _is_part(data: Any) -> bool:
    arrays = isinstance(data, tuple) and 2 <= len(data) <= 3 and not any(_is_part(part) for part in data)
    return arrays or isinstance(data, tf.data.Dataset | keras.utils.PyDataset | Iterator)


def fit_arguments(part: Any, batch_size: int | None) -> dict[str, Any]:
    """Return `part` as keyword arguments of ``fit`` and ``evaluate``."""
    if not isinstance(part, tuple):
        return {"x": _again((), part) if isinstance(part, Iterator) else part}
    named = dict(zip(("x", "y", "sample_weight"), part, strict=False))
    return {**named, "batch_size": batch_size or BATCH}


def first_batches(part: Any, count: int, batch_size: int | None = None) -> tuple[list[tuple[Any, Any]], Any]:
    """Return up to `count` batches (x, y) of numpy arrays, and the part to go on with: an iterator has lost nothing.

    Rows of arrays are taken evenly from the whole, as they may be sorted.

    Raises:
        ApproxError: there is no data.
    """
    rest: Any
    if isinstance(part, tuple):
        batches, rest = _spread(part, count, batch_size or BATCH), part
    elif isinstance(part, tf.data.Dataset):
        batches, rest = list(part.take(count).as_numpy_iterator()), part
    elif isinstance(part, keras.utils.PyDataset):
        known = part.num_batches
        batches, rest = [part[i] for i in range(count if known is None else min(count, known))], part
    else:
        batches = list(itertools.islice(part, count))
        rest = _again(batches, part)
    if not batches:
        raise ApproxError("the data holds no batch")
    return [_x_and_y(batch) for batch in batches], rest


def _spread(part: tuple[Any, ...], count: int, batch_size: int) -> list[Any]:
    size = len(keras.tree.flatten(part[0])[0])
    wanted = min(size, count * batch_size)
    rows = np.linspace(0, size - 1, wanted).astype(int) if size else np.empty(0, int)
    arrays = part[:2]
    return [
        keras.tree.map_structure(lambda array, chosen=chosen: np.asarray(array)[chosen], arrays)
        for chosen in np.array_split(rows, -(-wanted // batch_size) or 1)
        if len(chosen)
    ]


def _again(taken: Iterable[Any], rest: Iterator[Any]) -> Iterator[Any]:  # a generator: Keras knows no other iterators
    yield from taken
    yield from rest


def _x_and_y(batch: Any) -> tuple[Any, Any]:
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.tree.map_structure(np.asarray, x), None if y is None else keras.tree.map_structure(np.asarray, y)
