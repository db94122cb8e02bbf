"""The golden cases: models that the original compiler has compiled, with its answers."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu import KModel, compile
from tests.conftest import ROOT, golden

Array = npt.NDArray[Any]

# How the original was called for each of its kmodels, see cmd.txt of a case.
VARIANTS: dict[str, dict[str, Any]] = {
    "model": {},
    "model_l2": {"calibrate_method": "l2"},
    "model_f32in": {"input_type": "float"},
    "model_float": {"inference_type": "float"},
}
_FOLDER = Path(os.environ.get("KCONVERT_TEST_DATA", ROOT.parent / "shared" / "data")) / "kmodel"


@dataclass(frozen=True)
class Case:
    """A model and one way to compile it."""

    name: str
    variant: str

    @property
    def folder(self) -> Path:
        return golden("kmodel") / self.name

    @property
    def meta(self) -> dict[str, Any]:
        data = json.loads((self.folder / "meta.json").read_text())
        found: dict[str, Any] = data["kmodels"][self.variant]
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(json.loads((self.folder / "meta.json").read_text())["input_shape"])

    @property
    def original(self) -> KModel:
        return KModel.load(self.folder / f"{self.variant}.kmodel")

    @property
    def inputs(self) -> Array:
        kind, folder = (np.uint8, "in_u8") if self.meta["input_type"] == "uint8" else (np.float32, "in_f32")
        files = sorted((self.folder / folder).iterdir())
        return np.stack([np.fromfile(f, kind).reshape(self.shape[1:]) for f in files])

    @property
    def expected(self) -> Array:
        """What tflite answers, all outputs in one row."""
        return np.stack([np.fromfile(f, np.float32) for f in sorted(self.folder.glob("tflite_*.bin"))])


def flat(outputs: list[Array]) -> Array:
    return np.concatenate([o.reshape(len(o), -1) for o in outputs], axis=1)


def cases() -> list[Case]:
    """Return all cases; one that does not exist where there is no golden data, so that a test skips."""
    if not _FOLDER.is_dir():
        return [Case("absent", "model")]
    return [
        Case(folder.name, variant)
        for folder in sorted(_FOLDER.iterdir())
        for variant in VARIANTS
        if (folder / f"{variant}.kmodel").exists()
    ]


@functools.cache
def compiled(case: Case) -> KModel:
    folder = case.folder
    return compile(
        folder / "model.tflite",
        folder / "calib",
        dataset_format="raw",
        weights_quantize_threshold=64,  # as the original really has it
        **VARIANTS[case.variant],
    )
