"""Model files: .keras archives, .h5 files and architecture json, read without Keras."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kconvert.converters.readers.architecture import Graph, flatten, parse_model
from kconvert.converters.readers.neutral import load_spec
from kconvert.converters.readers.weights import Weights, import_h5py, read_weights, with_all_weights
from kconvert.converters.spec import ModelSpec
from kconvert.errors import ModelError

_SUPPORTED = ".keras, .h5, .hdf5, or .json with weights="
_HDF5 = (".h5", ".hdf5")
# A zip member of more bytes than this counts as an attack if it unpacks to this many times its stored size
_SIZE_FLOOR, _MAX_EXPANSION = 1 << 26, 1000


def read_file(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None, *, allow_unsafe: bool) -> ModelSpec:
    """Read a model file; arguments and errors as `kconvert.converters.readers.read_model`."""
    path = _existing(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        raw, version = _json(path.read_bytes(), path.name), None
    elif suffix == ".keras":
        raw, version = _keras_config(path, allow_unsafe)
    elif suffix in _HDF5:
        copy = _project_copy(path)
        if copy is not None and weights is None:
            return copy
        raw, version = _h5_config(path)
    else:
        raise ModelError(f"{path.name}: a model file is {_SUPPORTED}, not {suffix or 'without a suffix'!r}")
    version = version or (raw.get("keras_version") if isinstance(raw, dict) else None)
    with _naming(path):
        graph = parse_model(raw)
        spec = replace(flatten(graph), keras_version=version, source=path.name)
    hint = "build and train the model before saving it"
    stored: dict[str, Weights] = {}
    if weights is None and suffix == ".json":
        hint = "give the file that holds them: weights='... .h5'"
    else:
        stored = _weights(path if weights is None else _existing(weights), graph, allow_unsafe)
    with _naming(path):
        return with_all_weights(spec, stored, hint)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder; a model file is {_SUPPORTED}")
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    return path


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of a `ModelError`, and turn what odd contents raise into one."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{path.name}: {error}") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name}: damaged or not written by Keras ({error})") from error


def _json(data: bytes | str, where: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ModelError(f"{where}: not valid json at {place}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: not valid json: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ModelError(f"{where}: the json is nested too deeply to be a model") from error


# ---- .keras


def _member(path: Path, name: str, allow_unsafe: bool) -> bytes | None:
    """Return the contents of one member of a .keras archive, or None. Nothing is ever written to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                return None
            info = archive.getinfo(name)
            if info.file_size > max(_SIZE_FLOOR, _MAX_EXPANSION * info.compress_size) and not allow_unsafe:
                raise ModelError(
                    f"{path.name}: {name} would unpack from {info.compress_size} to {info.file_size} bytes; "
                    "allow_unsafe=True reads it anyway"
                )
            return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{path.name}: not a .keras archive, or a damaged one ({error})") from error


def _keras_config(path: Path, allow_unsafe: bool) -> tuple[Any, str | None]:
    config = _member(path, "config.json", allow_unsafe)
    if config is None:
        raise ModelError(f"{path.name}: no config.json in the archive, so it is not a Keras model")
    metadata = _json(_member(path, "metadata.json", allow_unsafe) or b"{}", f"{path.name}/metadata.json")
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return _json(config, f"{path.name}/config.json"), version


# ---- .h5


@contextmanager
def _open_h5(path: Path, allow_unsafe: bool = False) -> Iterator[Any]:
    """Open an HDF5 file, or the one inside a .keras archive."""
    h5py = import_h5py()
    file: Any = path
    if path.suffix.lower() == ".keras":
        data = _member(path, "model.weights.h5", allow_unsafe)
        if data is None:
            raise ModelError(f"{path.name}: no model.weights.h5 in the archive")
        file = io.BytesIO(data)
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise ModelError(f"{path.name}: not an HDF5 file, or a truncated one ({error})") from error
    with opened, _naming(path):
        yield opened


def _project_copy(path: Path) -> ModelSpec | None:
    """Return the model if the file is the copy that a project folder keeps."""
    with _open_h5(path) as file:
        return load_spec(file, path.name)


def _h5_config(path: Path) -> tuple[Any, str | None]:
    with _open_h5(path) as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
        if config is None:
            raise ModelError(
                "this file holds weights only; give the architecture too: read the model's .json "
                f"(model.to_json()) with weights={path.name!r}"
            )
    version = version.decode() if isinstance(version, bytes) else version
    return _json(config, f"{path.name}, attribute model_config"), version


def _weights(path: Path, graph: Graph, allow_unsafe: bool) -> dict[str, Weights]:
    if path.suffix.lower() not in (*_HDF5, ".keras"):
        raise ModelError(f"{path.name}: weights are read from .h5, .hdf5 or .keras files")
    with _open_h5(path, allow_unsafe) as file:
        return read_weights(file, graph, allow_unsafe=allow_unsafe)
