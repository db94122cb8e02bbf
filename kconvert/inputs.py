"""Samples as the user gives them: one array, a list in the model's order, or a dict by input layer name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError
from kconvert.layers import Value

if TYPE_CHECKING:
    from kconvert.model import Arrays

Array = npt.NDArray[Any]


def input_arrays(inputs: Sequence[Value], X: Arrays) -> list[Array]:
    """Return the samples in the order of the model's inputs.

    Raises:
        InputError: names, shapes or dtypes do not fit, or the inputs have different numbers of samples.
    """
    arrays = [_checked(value, given) for value, given in zip(inputs, _in_order(inputs, X), strict=True)]
    if len({len(a) for a in arrays}) > 1:
        counts = ", ".join(f"{v.producer.name!r}: {len(a)}" for v, a in zip(inputs, arrays, strict=True))
        raise InputError(f"the inputs have different numbers of samples ({counts})")
    return arrays


def _in_order(inputs: Sequence[Value], X: Any) -> Sequence[Any]:
    names = [v.producer.name for v in inputs]
    if isinstance(X, Mapping):
        if set(X) != set(names):
            raise InputError(f"expected a dict with the inputs {names}, got {sorted(map(str, X))}")
        return [X[name] for name in names]
    listed = isinstance(X, list | tuple)
    if len(names) == 1:
        return X if listed and len(X) == 1 and np.ndim(X[0]) == len(inputs[0].shape) + 1 else [X]
    if not listed or len(X) != len(names):
        what = f"{len(X)} of them" if listed else type(X).__name__
        raise InputError(f"the model has {len(names)} inputs {names}: give a list of arrays, got {what}")
    given: Sequence[Any] = X
    return given


def _checked(value: Value, given: Any) -> Array:
    name = value.producer.name
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {name!r}: cannot make an array of a {type(given).__name__}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"input {name!r}: dtype {array.dtype} is not real numbers")
    if array.ndim == 1 and value.shape == (1,):
        array = array[:, None]
    if array.ndim == 0 or array.shape[1:] != value.shape:
        expected = ", ".join(map(str, ("n", *value.shape)))
        raise InputError(f"input {name!r}: expected shape ({expected}), got {array.shape}")
    return array
