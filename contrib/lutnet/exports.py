"""Files that projects around LUT networks exchange: integer tables of a dense layer for C++, test vectors as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, InputError, WriteError
from kconvert.firmware import render
from kconvert.plugins import add_templates

MOST_BITS = 32

add_templates("kconvert_contrib.lutnet")


def quantize(x: npt.ArrayLike, bits: int, scale: float) -> npt.NDArray[np.int64]:
    """Return `x` in units of `scale`, rounded to nearest with ties up, within the signed integers of `bits` bits.

    Raises:
        ConfigError: `bits` is not 1 to 32, or `scale` is not positive.
        InputError: a value is NaN or infinite.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MOST_BITS:
        raise ConfigError(f"bits={bits!r}: an integer from 1 to {MOST_BITS} is needed")
    if not (np.isfinite(scale) and scale > 0):
        raise ConfigError(f"scale={scale!r}: a positive number is needed")
    values = np.asarray(x, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{values.size - int(np.isfinite(values).sum())} of {values.size} values are NaN or infinite")
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return np.asarray(np.clip(np.floor(values / scale + 0.5), low, high).astype(np.int64))


def export_hls_header(
    layer: Any, path: str | Path, *, bits: int = 16, scale: float = 1 / 256, bias_bits: int | None = None
) -> Path:
    """Write weights and bias of a dense layer as integer tables of C++.

    The file defines ``WLEN``, the number of inputs, ``const ap_int<WBITS> W_tbl[units][WLEN]`` and
    ``const ap_int<BBITS> b_tbl[units]``, in units of `scale`; ``WBITS`` and ``BBITS`` may be defined before it is
    included. Whoever includes it includes ``ap_int.h``.

    Args:
        layer: A Keras Dense layer, a model that has just one, or the kernel [inputs, units] and bias [units] as a pair.
        path: The file.
        bits: Bits of a weight.
        scale: What 1 stands for.
        bias_bits: Bits of a bias; as many as of a weight if left out.

    Raises:
        ConfigError: bits or scale are not valid, there is no Dense layer or several, or a kernel and bias do not fit
            each other.
        InputError: a value is NaN or infinite.
        WriteError: the file cannot be written.
    """
    if hasattr(layer, "layers"):
        dense = [inner for inner in layer.layers if hasattr(inner, "kernel") and len(inner.kernel.shape) == 2]
        if len(dense) != 1:
            raise ConfigError(f"the model has {len(dense)} Dense layers: give the one to export")
        (layer,) = dense
    arrays = [
        np.asarray(a, dtype=np.float64) for a in (layer.get_weights() if hasattr(layer, "get_weights") else layer)
    ]
    shapes = [a.shape for a in arrays]
    if not 1 <= len(arrays) <= 2 or arrays[0].ndim != 2 or shapes[1:] not in ([], [shapes[0][1:]]):
        raise ConfigError(f"expected a dense layer: a kernel [inputs, units] and a bias [units], received {shapes}")
    bias = arrays[1] if len(arrays) == 2 else np.zeros(shapes[0][1])
    weight_table, bias_table = quantize(arrays[0].T, bits, scale), quantize(bias, bias_bits or bits, scale)
    guard = re.sub(r"\W", "_", Path(path).name.upper(), flags=re.ASCII)
    guard = f"{guard if guard[:1].isalpha() else 'TABLES_' + guard.lstrip('_')}_"
    text = render(
        "exports/dense_tables.h.j2",
        guard=guard,
        scale=repr(float(scale)),
        bits=bits,
        bias_bits=bias_bits or bits,
        weights=weight_table.tolist(),
        bias=bias_table.tolist(),
    )
    return _write(Path(path), text)


def export_vectors(x: npt.ArrayLike, labels: npt.ArrayLike, path: str | Path, *, threshold: float = 0.5) -> Path:
    """Write test vectors as text: a line for each sample, its label, then a 0 or 1 for each of its elements.

    Args:
        x: Samples [n, ...]; an element above `threshold` is a 1. They are written in C order: images row by row.
        labels: Whole numbers [n].
        path: The file.
        threshold: Where a 1 starts.

    Raises:
        InputError: there are not as many labels as samples, or labels are not whole numbers.
        WriteError: the file cannot be written.
    """
    samples, numbers = np.asarray(x), np.asarray(labels).reshape(-1)
    if samples.ndim < 2 or len(samples) != len(numbers):
        raise InputError(f"expected samples [n, ...] and n labels, received {samples.shape} and {np.shape(labels)}")
    if not (numbers == np.floor(numbers)).all():
        raise InputError("labels have to be whole numbers")
    bits = (samples.reshape(len(samples), -1) > threshold).astype(int).tolist()
    lines = (
        f"{label} {' '.join(map(str, row))}\n" for label, row in zip(numbers.astype(int).tolist(), bits, strict=True)
    )
    return _write(Path(path), "".join(lines))


def _write(path: Path, text: str) -> Path:
    """Write a file that appears whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        return fresh.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
