"""The neutral form of a model as an HDF5 file: the copy that a project folder keeps of its model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from kconvert.converters.readers.weights import import_h5py
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ModelError

ATTRIBUTE = "kconvert_model"


def save_spec(spec: ModelSpec, path: Path) -> None:
    """Write `spec`; the same model always gives the same contents."""
    layers = [{**dataclasses.asdict(dataclasses.replace(layer, weights=())), "weights": None} for layer in spec.layers]
    architecture = {**dataclasses.asdict(dataclasses.replace(spec, layers=())), "layers": layers}
    with import_h5py().File(path, "w") as file:
        text = np.frombuffer(json.dumps(architecture).encode(), dtype=np.uint8)
        file.create_dataset(ATTRIBUTE, data=text)
        for number, layer in enumerate(spec.layers):
            for index, array in enumerate(layer.weights):
                file.create_dataset(f"weights/{number}/{index}", data=array)


def load_spec(file: Any, source: str) -> ModelSpec | None:
    """Return the model in an open HDF5 file that :func:`save_spec` wrote, or None if it holds no such thing."""
    if ATTRIBUTE not in file:
        return None
    try:
        raw = json.loads(np.asarray(file[ATTRIBUTE]).tobytes().decode())
        layers = []
        for number, layer in enumerate(raw["layers"]):
            group = file.get(f"weights/{number}", {})
            arrays = tuple(np.asarray(group[str(i)]) for i in range(len(group)))
            calls = tuple(tuple(TensorRef(**ref) for ref in call) for call in layer.pop("calls"))
            names = tuple(layer.pop("weight_names"))
            layers.append(LayerSpec(**{**layer, "calls": calls, "weights": arrays, "weight_names": names}))
        refs = {key: tuple(TensorRef(**ref) for ref in raw.pop(key)) for key in ("inputs", "outputs")}
        return ModelSpec(**{**raw, **refs, "layers": tuple(layers)})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{source}: damaged copy of a model: {error!r}") from error
