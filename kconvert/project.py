"""The project folder: what a vendor tool gets, written so that a failure leaves the old folder as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters.readers.neutral import save_spec
from kconvert.errors import InputError, WriteError
from kconvert.firmware import render
from kconvert.samples import read_array
from kconvert.streams import firmware_of

if TYPE_CHECKING:
    from kconvert.model import HLSModel

Array = npt.NDArray[Any]

CONFIG_FILE = "kconvert_config.yml"
MODEL_FILE = "kconvert_model.h5"


def write_project(model: HLSModel) -> Path:
    """Write the project of `model` into its output folder and return the folder; see :meth:`HLSModel.write`."""
    folder = Path(model.settings.output_dir)
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"output_dir {str(folder)!r} is a file, not a folder")
    texts = _texts(model)
    work, made = None, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".kconvert-", dir=folder))
        new = work / "new"
        for name, text in texts.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        save_spec(model.spec, new / MODEL_FILE)
        _swap(new, folder, work / "old")
    except OSError as error:
        raise WriteError(f"cannot write the project into {str(folder)!r}: {error.strerror or error}") from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # it holds the project, unless that could not be written
                folder.rmdir()
    return folder


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Put the entries of `new` in the place of those in `folder`; put everything back if one cannot be moved."""
    old.mkdir()
    done: list[str] = []
    try:
        for entry in sorted(new.iterdir()):
            target = folder / entry.name
            done.append(entry.name)
            if target.exists():
                os.replace(target, old / entry.name)
            os.replace(entry, target)
    except BaseException:
        for name in done:
            target = folder / name
            if target.exists() and not (new / name).exists():
                os.replace(target, new / name)
            if (old / name).exists():
                os.replace(old / name, target)
        raise


def _texts(model: HLSModel) -> dict[str, str]:
    settings, firmware = model.settings, firmware_of(model)
    tool = {
        "project_name": settings.project_name,
        "backend": settings.backend,
        "part": settings.part,
        "clock_period": settings.clock_period,
        "clock_uncertainty": settings.uncertainty,
    }
    inputs, outputs = model.test_bench_data or _default_data(model)
    return {
        **firmware.sources(with_weights=True),
        f"tb/{settings.project_name}_test.cpp": firmware.test_bench(),
        "tb/tb_data/tb_input_features.dat": _rows(inputs),
        "tb/tb_data/tb_output_predictions.dat": _rows(outputs),
        "build_prj.tcl": render("project/build_prj.tcl.j2", **tool),
        "vivado_synth.tcl": render("project/vivado_synth.tcl.j2", **tool),
        CONFIG_FILE: _config_text(model),
    }


def _config_text(model: HLSModel) -> str:
    import yaml

    settings = model.settings
    content = {
        "KerasModel": MODEL_FILE,
        "OutputDir": ".",
        "ProjectName": settings.project_name,
        "Backend": settings.backend,
        "Part": settings.part,
        "ClockPeriod": settings.clock_period,
        "ClockUncertainty": settings.clock_uncertainty,
        "IOType": settings.io_type,
        "InputData": "tb/tb_data/tb_input_features.dat",
        "OutputPredictions": "tb/tb_data/tb_output_predictions.dat",
        "HLSConfig": _plain(model.raw_config),
    }
    return yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return settings as YAML can hold them: types as their strings, numpy numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


# ***** data of the test bench *****


def _rows(arrays: list[Array]) -> str:
    """One line a sample, all tensors in order, each number exact."""
    if not arrays:
        return ""
    flat = np.concatenate([np.asarray(a, dtype=np.float64).reshape(len(a), -1) for a in arrays], axis=1)
    return "".join(" ".join(map(repr, row)) + "\n" for row in flat.tolist())


def _default_data(model: HLSModel, samples: int = 16) -> tuple[list[Array], list[Array]]:
    """Made-up inputs where the user gave none, and Keras' answers to them where the model is a live one."""
    random = np.random.default_rng(0)
    drawn = [(v.known_type(), random.normal(size=(samples, *v.shape)).astype(np.float32)) for v in model.inputs]
    # within range of their types, beyond which a model may refuse them
    inputs = [np.clip(x, kind.min, kind.max) for kind, x in drawn]
    return inputs, _keras_answers(model, inputs)


def _keras_answers(model: HLSModel, inputs: list[Array]) -> list[Array]:
    if model.keras_model is None:
        return []
    answers = model.keras_model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    found = list(answers.values()) if isinstance(answers, Mapping) else answers
    return [np.asarray(a) for a in (found if isinstance(found, list | tuple) else [found])]


def test_bench_data(model: HLSModel, inputs: Any, outputs: Any) -> tuple[list[Array], list[Array]]:
    """Return the samples and answers of the test bench, from arrays or files.

    Raises:
        InputError: a file cannot be read, or a shape does not fit the model.
    """
    read = _tensors(inputs, [v.shape for v in model.inputs], "input_data_tb")
    if outputs is None:
        return read, _keras_answers(model, read)
    answers = _tensors(outputs, [v.shape for v in model.outputs], "output_data_tb")
    if answers and len(answers[0]) != len(read[0]):
        raise InputError(f"output_data_tb has {len(answers[0])} samples, input_data_tb {len(read[0])}")
    return read, answers


def _tensors(source: Any, shapes: list[tuple[int, ...]], what: str) -> list[Array]:
    given = _load_file(Path(source), what) if isinstance(source, str | os.PathLike) else source
    if isinstance(given, list | tuple) and len(given) == len(shapes):
        arrays = [np.asarray(a) for a in given]
    else:
        flat = np.asarray(given)
        if flat.size == 0:
            return []
        sizes = [int(np.prod(s)) for s in shapes]
        flat = flat.reshape(len(flat), -1)
        if flat.shape[1] != sum(sizes):
            raise InputError(f"{what}: expected {sum(sizes)} numbers a sample for shapes {shapes}, got {flat.shape[1]}")
        arrays = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
    for array, shape in zip(arrays, shapes, strict=True):
        if array.dtype.kind not in "fiub" or array.size != len(array) * int(np.prod(shape)):
            raise InputError(f"{what}: {array.dtype} {array.shape} does not fit samples of shape {shape}")
    return [a.reshape(len(a), *s) for a, s in zip(arrays, shapes, strict=True)]


def _load_file(path: Path, what: str) -> Array:
    try:
        return read_array(path)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
