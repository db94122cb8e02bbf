"""Samples for calibration and inference: arrays, or folders of images or raw files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError
from kconvert.packages import import_package
from kconvert.progress import steps

Array = npt.NDArray[Any]
Format = Literal["image", "raw"]
Layout = Literal["auto", "nchw", "nhwc"]

FORMATS = ("image", "raw")
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
MAX_PIXELS = 64 * 1024 * 1024  # of an image file
LEVELS = np.float32(255)


def find_files(path: str | os.PathLike[str], form: Format) -> list[Path]:
    """Return the samples of a folder (and those within it), or the one file, in the order of their names.

    Raises:
        InputError: there are none, or the format is unknown.
    """
    choose(form, FORMATS, "dataset format")
    root = Path(path)
    found = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []
    found = [p for p in found if not p.name.startswith(".")]
    if form == "image":
        found = [p for p in found if p.suffix.lower() in IMAGES]
    if not found:
        kinds = ", ".join(sorted(IMAGES)) if form == "image" else "raw"
        raise InputError(f"dataset {str(root)!r}: it should contain one {kinds} file at least")
    return found


def choose(value: str, allowed: Sequence[str], what: str) -> None:
    """Refuse what is not allowed."""
    if value not in allowed:
        raise InputError(f"unknown {what} {value!r}; choose from {', '.join(allowed)}")


def read_bytes(path: Path, form: Format, shape: tuple[int, ...]) -> Array:
    """Return a sample for an input of uint8: raw bytes, or the pixels of an image.

    Args:
        path: of the file.
        form: of the file.
        shape: [channels, height, width] of the input, or any other for raw files.
    """
    if form == "image":
        return _pixels(path, shape)
    return _raw(path, shape, "u1")


def read_floats(path: Path, form: Format, shape: tuple[int, ...], mean: float, std: float) -> Array:
    """Return a sample of float32: raw float32, or pixels / 255; then (x - mean) / std."""
    values = _pixels(path, shape) / LEVELS if form == "image" else _raw(path, shape, "<f4")
    return _normalised(values.astype(np.float32), mean, std)


def _normalised(values: Array, mean: float, std: float) -> Array:
    return np.asarray((values - np.float32(mean)) / np.float32(std), np.float32)


def _raw(path: Path, shape: tuple[int, ...], kind: str) -> Array:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
    if len(data) != wanted:
        raise InputError(f"{str(path)!r} has {len(data)} bytes; a sample of shape {shape} has {wanted}")
    return np.frombuffer(data, kind).reshape(shape)


def _pixels(path: Path, shape: tuple[int, ...]) -> Array:
    """Return an image as uint8 [channels, height, width], scaled to the input."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"an input of shape {shape} takes no images: they have 1 or 3 channels; use raw files")
    channels, height, width = shape
    pil = import_package("PIL.Image", "reading images", "pillow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pil.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(f"{str(path)!r} has more than {MAX_PIXELS} pixels")
                plain = _eight_bits(image, pil).convert("RGB" if channels == 3 else "L")
                scaled = plain.resize((width, height), pil.Resampling.BILINEAR)
        pixels = np.asarray(scaled, np.uint8).reshape(height, width, channels)
    except (OSError, ValueError, SyntaxError, EOFError, pil.DecompressionBombError) as error:
        raise InputError(f"{str(path)!r} is no image that can be read: {error}") from error
    return pixels.transpose(2, 0, 1)


def _eight_bits(image: Any, pil: Any) -> Any:
    """Return an image of 16 bits with their upper half, where Pillow would saturate; others as they are."""
    if not image.mode.startswith("I"):
        return image
    return pil.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))


def read_dataset(
    dataset: Any, shapes: Sequence[tuple[int, ...]], form: Format, layouts: Sequence[Layout], mean: float, std: float
) -> list[Array]:
    """Return samples of float32 for every input, [samples / batch, batch, ...] in the graph's layout.

    Args:
        dataset: a path; or an array [samples, ...] for one input, a list of them for several. An array of uint8
            holds pixels and is divided by 255.
        shapes: of the inputs, with the batch in front, which is 1 but for models made for another.
        form: of the files, if it is a path.
        layouts: of arrays with four dimensions: "nchw", "nhwc" or both, the preferred one first.
        mean: is subtracted from everything.
        std: everything is then divided by it.

    Raises:
        InputError: there are no samples, they do not fit, or are not finite.
        MissingPackageError: Pillow is needed for images and not installed.
    """
    if not (np.isfinite(mean) and np.isfinite(std)) or std <= 0:
        raise InputError(f"mean {mean} and std {std}: both have to be finite, and std positive")
    if isinstance(dataset, str | os.PathLike):
        if len(shapes) != 1:
            raise InputError(f"the model has {len(shapes)} inputs: give a list of arrays instead of a folder")
        files = find_files(dataset, form)
        read = [read_floats(f, form, shapes[0][1:], mean, std) for f in steps(files, "reading the dataset")]
        found = [np.stack(read)]
    else:
        arrays = list(dataset) if isinstance(dataset, list | tuple) else [dataset]
        if len(arrays) != len(shapes):
            raise InputError(f"the model has {len(shapes)} inputs, and {len(arrays)} arrays were given")
        found = [_from_array(a, s, layouts, mean, std) for a, s in zip(arrays, shapes, strict=True)]
    if len({len(f) for f in found}) != 1 or not len(found[0]):
        raise InputError("the dataset has no samples, or not equally many for all inputs")
    if any(not np.isfinite(f).all() for f in found):
        raise InputError("the dataset holds numbers that are not finite")
    for f, s in zip(found, shapes, strict=True):
        if f.size % np.prod(s, dtype=np.int64):
            raise InputError(f"{len(f)} samples make no whole batches of {s[0]}, for which the model was made")
    return [f.reshape(-1, *s) for f, s in zip(found, shapes, strict=True)]


def _from_array(given: Any, shape: tuple[int, ...], layouts: Sequence[Layout], mean: float, std: float) -> Array:
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise InputError(f"the dataset is of {array.dtype}, not of real numbers")
    if array.dtype == np.uint8:
        array = array / LEVELS
    views = [np.moveaxis(array, -1, 1) if layout == "nhwc" and array.ndim == 4 else array for layout in layouts]
    fitting = [view for view in views if view.shape[1:] in (shape, shape[1:])]
    if not fitting:
        hint = f" as {' or '.join(layouts)}" if array.ndim == 4 else ""
        raise InputError(f"samples of shape {array.shape[1:]} do not fit the input {shape[1:]}{hint}")
    array = fitting[0]
    return _normalised(array.astype(np.float32), mean, std)
