"""The golden kmodels: read, written back, run; against what the original simulator gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kconvert.kpu import KModel
from kconvert.kpu.wire import DataType
from tests.conftest import golden

# The kmodel, what goes in, what came out.
VARIANTS = {
    "model": ("in_u8", "out"),
    "model_l2": ("in_u8", "out_l2"),
    "model_f32in": ("in_f32", "out_f32in"),
    "model_float": ("in_f32", "out_float"),
}


def cases() -> list[Path]:
    return sorted(p for p in golden("kmodel").iterdir() if p.is_dir())


def samples(folder: Path, dtype: str) -> npt.NDArray[Any]:
    return np.stack([np.fromfile(p, dtype) for p in sorted(folder.glob("*.bin"))])


def test_every_kmodel_comes_back_byte_for_byte(tmp_path: Path) -> None:
    files = [file for case in cases() for file in case.glob("*.kmodel")]
    assert files
    for file in files:
        model = KModel.load(file)
        model.save(tmp_path / "back.kmodel")
        assert (tmp_path / "back.kmodel").read_bytes() == file.read_bytes(), file
        assert model.summary()


def test_what_the_meta_data_say() -> None:
    for case in cases():
        meta = json.loads((case / "meta.json").read_text())
        for name, told in meta["kmodels"].items():
            if not (case / f"{name}.kmodel").exists():  # not all of them are given out
                continue
            model = KModel.load(case / f"{name}.kmodel")
            (port,) = model.inputs
            assert port.range.datatype.name.lower() == told["input_type"]
            assert port.range.memory.name.lower() == told["input_mem"]
            assert list(port.shape) == meta["input_shape"]
            assert model.main_memory == told["main_mem"]
            assert len(model.nodes) == len(told["ops"])
            assert [w.size for w in model.outputs] == told["output_bytes"]


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kmodel_answers_as_the_original(variant: str) -> None:
    files = [case / f"{variant}.kmodel" for case in cases() if (case / f"{variant}.kmodel").exists()]
    assert files
    for file in files:
        model = KModel.load(file)
        (port,) = model.inputs
        inputs, outputs = VARIANTS[variant]
        dtype = "<f4" if port.range.datatype is DataType.FLOAT32 else "u1"
        x = samples(file.parent / inputs, dtype).reshape(-1, *port.shape[1:])
        expected = samples(file.parent / outputs, "<f4")
        found = np.concatenate([y.reshape(len(x), -1) for y in model.infer(x)], axis=1)
        if variant == "model_float":
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=str(file))
        else:
            np.testing.assert_array_equal(found, expected, err_msg=str(file))
