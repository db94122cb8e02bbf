"""Files of samples, read and written a part at a time: .npy, .npz, .csv, and text with a sample a line (.txt, .dat).

A text line holds the numbers of all inputs (or outputs) of one sample in order, as in ``tb_data``. No file has to fit
into memory, and a file being written appears under its name when it is complete.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError, WriteError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

TEXT = {".csv": ",", ".txt": " ", ".dat": " "}
FORMATS = (".npy", ".npz", *TEXT)
CHUNK_BYTES = 1 << 26
"""What a part of the samples, with all that is computed of it, should take at most."""


# ***** reading *****


class _Source(Protocol):
    """Arrays whose first axis is that of the samples."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> Shape:
        """Shape of a sample."""

    def parts(self, rows: int) -> Iterator[Array]:
        """Yield the samples in order, `rows` at a time."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples for a model with inputs of known shapes.

    Attributes:
        sources: One for each input, or one whose columns are those of all inputs.
        shapes: Shapes of the inputs without the batch axis.
    """

    sources: Sequence[_Source]
    shapes: Sequence[Shape]

    def __len__(self) -> int:
        return len(self.sources[0])

    def parts(self, rows: int) -> Iterator[list[Array]]:
        """Yield the arrays of all inputs, `rows` samples at a time."""
        for arrays in zip(*(source.parts(rows) for source in self.sources), strict=True):
            yield self._fitted(arrays)

    def all(self) -> list[Array]:
        """Return the arrays of all inputs."""
        return next(self.parts(max(len(self), 1)), [np.empty((0, *shape)) for shape in self.shapes])

    def _fitted(self, arrays: Sequence[Array]) -> list[Array]:
        sizes = [math.prod(shape) for shape in self.shapes]
        if len(arrays) < len(sizes):
            arrays = np.split(arrays[0], np.cumsum(sizes)[:-1], axis=1)
        return [a.reshape(len(a), *shape) for a, shape in zip(arrays, self.shapes, strict=True)]


def open_samples(paths: Sequence[Path], shapes: Mapping[str, Shape]) -> Samples:
    """Return the samples in files: one for each input in order, or one for all of them.

    Args:
        paths: The files. A .npz holds an array for each input under its name, or the arrays in order.
        shapes: Shapes by the names of the inputs, in order.

    Raises:
        InputError: a file cannot be read or does not fit the inputs.
    """
    sources = [source for path in paths for source in _sources(path, list(shapes))]
    names = ", ".join(map(str, paths))
    sizes = [math.prod(shape) for shape in shapes.values()]
    if len(sources) == len(sizes):
        wanted = list(shapes.values())
    elif len(sources) == 1:
        wanted = [(sum(sizes),)]
    else:
        raise InputError(f"{names}: {len(sources)} arrays for the {len(sizes)} inputs {', '.join(shapes)}")
    for source, shape in zip(sources, wanted, strict=True):
        if source.shape != shape and not (len(source) == 0 or source.shape == (math.prod(shape),)):
            raise InputError(f"{names}: expected samples of shape {shape}, got {source.shape}")
    if len({len(source) for source in sources}) > 1:
        counts = ", ".join(str(len(source)) for source in sources)
        raise InputError(f"{names}: the inputs have different numbers of samples ({counts})")
    return Samples(sources, list(shapes.values()))


def read_array(path: Path) -> Array:
    """Return the one array in a file of any of the formats; text as [samples, numbers].

    Raises:
        InputError: the file cannot be read, or holds several arrays.
    """
    sources = _sources(path, [])
    if len(sources) != 1:
        raise InputError(f"{path} holds {len(sources)} arrays instead of one")
    (source,) = sources
    return next(source.parts(max(len(source), 1)), np.empty((0, *source.shape)))


def _sources(path: Path, names: Sequence[str]) -> list[_Source]:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: samples are read from {', '.join(FORMATS)} files")
    try:
        if suffix == ".npy":
            return [_InMemory(_checked(np.load(path, mmap_mode="r", allow_pickle=False), str(path)))]
        if suffix == ".npz":
            return _members(path, names)
        return [_Text.open(path, TEXT[suffix])]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path}: {error}") from error


def _checked(array: Array, where: str) -> Array:
    if array.dtype.kind not in "fiub" or not array.ndim:
        what = f"dtype {array.dtype} is not real numbers" if array.ndim else "a single number is no samples"
        raise InputError(f"{where}: {what}")
    return array if array.ndim > 1 else array[:, None]


@dataclass(frozen=True, slots=True)
class _InMemory:
    """An array, of which only what is used need be in memory (``numpy.memmap``)."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> Shape:
        return self.array.shape[1:]

    def parts(self, rows: int) -> Iterator[Array]:
        for start in range(0, len(self.array), rows):
            yield np.asarray(self.array[start : start + rows])


def _members(path: Path, names: Sequence[str]) -> list[_Source]:
    """Return the arrays of a .npz by the names of the inputs, or else in their own order."""
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(".npy")]
    by_name = [f"{name}.npy" for name in names]
    return [_Member.open(path, name) for name in (by_name if set(by_name) == set(found) else found)]


@dataclass(frozen=True, slots=True)
class _Member:
    """An array in a .npz, unpacked as it is read."""

    path: Path
    name: str
    whole: Shape
    dtype: np.dtype[Any]

    @classmethod
    def open(cls, path: Path, name: str) -> _Source:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            shape, in_order, dtype = _header(file)
            if in_order and len(shape) > 1:
                _checked(np.empty((0,) * len(shape), dtype), f"{path}/{name}")
                return cls(path, name, shape, dtype)
        with np.load(path, allow_pickle=False) as arrays:
            return _InMemory(_checked(arrays[name.removesuffix(".npy")], f"{path}/{name}"))

    def __len__(self) -> int:
        return self.whole[0]

    @property
    def shape(self) -> Shape:
        return self.whole[1:]

    def parts(self, rows: int) -> Iterator[Array]:
        size = self.dtype.itemsize * math.prod(self.shape)
        with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as file:
            _header(file)
            for start in range(0, len(self), rows):
                count = min(rows, len(self) - start)
                data = file.read(count * size)
                if len(data) < count * size:
                    raise InputError(f"{self.path}: the array {self.name} ends early")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape)


def _header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Return shape, whether the samples follow each other, and dtype, from the start of a .npy."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, not fortran, dtype


@dataclass(frozen=True, slots=True)
class _Text:
    """A text file, a sample a line; a csv file may begin with a line of titles."""

    path: Path
    delimiter: str
    lines: int
    columns: int
    titles: bool

    @classmethod
    def open(cls, path: Path, delimiter: str) -> _Text:
        with path.open(encoding="utf-8-sig") as file:
            lines = (text for _, text in _filled(file))
            first = next(lines, "")
            titles = delimiter == "," and bool(first) and not _is_number(first.split(",")[0])
            first = next(lines, "") if titles else first
            count = sum(1 for _ in lines) + bool(first)
        return cls(path, delimiter, count, len(first.split("," if delimiter == "," else None)) if first else 0, titles)

    def __len__(self) -> int:
        return self.lines

    @property
    def shape(self) -> Shape:
        return (self.columns,)

    def parts(self, rows: int) -> Iterator[Array]:
        with self.path.open(encoding="utf-8-sig") as file:
            lines = _filled(file)
            if self.titles:
                next(lines)
            while part := list(islice(lines, rows)):
                yield self._parsed(part)

    def _parsed(self, lines: list[tuple[int, str]]) -> Array:
        texts = [text for _, text in lines]
        try:
            array = np.loadtxt(texts, delimiter="," if self.delimiter == "," else None, ndmin=2)
        except ValueError:
            array = np.empty((0, 0))
        if array.shape == (len(lines), self.columns):
            return array
        for number, text in lines:
            words = text.split("," if self.delimiter == "," else None)
            if len(words) != self.columns:
                raise InputError(f"{self.path}, line {number}: expected {self.columns} numbers, got {len(words)}")
            for word in words:
                if not _is_number(word):
                    raise InputError(f"{self.path}, line {number}: {word.strip()[:40]!r} is no number")
        raise InputError(f"{self.path}, lines {lines[0][0]} to {lines[-1][0]}: these are no numbers")


def _filled(file: IO[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are neither empty nor a comment, with their numbers."""
    for number, line in enumerate(file, 1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# ***** writing *****


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path` to write, which takes its place at the end; if something fails, it is gone.

    Raises:
        WriteError: the folder is missing or cannot be written.
    """
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder")
    try:
        folder = tempfile.mkdtemp(prefix=".kconvert-", dir=path.parent)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
    try:
        new = Path(folder) / path.name
        yield new
        os.replace(new, path)
    except OSError as error:
        raise (
            error if isinstance(error, WriteError) else WriteError(f"cannot write {path}: {error.strerror or error}")
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Sink(Protocol):
    """Where arrays go, some samples at a time."""

    def write(self, arrays: Sequence[Array]) -> None:
        """Add the next samples: float64 arrays in the order of the names."""


@contextmanager
def open_sink(path: Path, shapes: Mapping[str, Shape], count: int) -> Iterator[Sink]:
    """Open a file for `count` samples of arrays with these names and shapes; the suffix chooses the format.

    A .npy holds one array, a .npz each under its name, a text file a sample a line with the numbers of all in order.

    Raises:
        InputError: the suffix is unknown, or is .npy and there are several arrays.
        WriteError: the file cannot be written; an older one is then as it was.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: results are written to {', '.join(FORMATS)} files")
    if suffix == ".npy" and len(shapes) > 1:
        raise InputError(f"{path}: a .npy holds one array, and there are {len(shapes)} outputs; write a .npz")
    with replacing(path) as new:
        if suffix in TEXT:
            with new.open("w", encoding="utf-8") as file:
                yield _TextSink(file, TEXT[suffix])
            return
        parts = [new] if suffix == ".npy" else [new.with_name(f"{i}.npy") for i in range(len(shapes))]
        with ExitStack() as opened:
            files = [opened.enter_context(part.open("wb")) for part in parts]
            for binary, shape in zip(files, shapes.values(), strict=True):
                header = {"descr": "<f8", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(binary, header)
            yield _ArraySink(files)
        if suffix == ".npz":
            with zipfile.ZipFile(new, "w") as archive:
                for part, name in zip(parts, member_names(shapes), strict=True):
                    archive.write(part, name)


def member_names(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Return names of the files in a .npz: those given, unless one would lead elsewhere when it is unpacked."""
    safe = []
    for number, name in enumerate(names):
        inside = name and not name.startswith("/") and not {"..", ".", ""} & set(name.split("/"))
        plain = inside and "\\" not in name and ":" not in name.split("/")[0] and name.isprintable()
        safe.append(f"{name}.npy" if plain else f"array_{number}.npy")
    return safe


@dataclass(frozen=True, slots=True)
class _ArraySink:
    """Files of .npy, written in order: the pages of a memory map that a full disk has no room for kill the process."""

    files: Sequence[IO[bytes]]

    def write(self, arrays: Sequence[Array]) -> None:
        for file, array in zip(self.files, arrays, strict=True):
            file.write(np.ascontiguousarray(array, "<f8").data)


@dataclass(frozen=True, slots=True)
class _TextSink:
    file: IO[str]
    delimiter: str

    def write(self, arrays: Sequence[Array]) -> None:
        flat = np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)
        self.file.writelines(self.delimiter.join(map(repr, row)) + "\n" for row in flat.tolist())


def chunk_rows(numbers: int) -> int:
    """Return how many samples to compute at once, each with this many numbers in and out."""
    return max(1, min(1 << 16, CHUNK_BYTES // (8 * max(numbers, 1))))
