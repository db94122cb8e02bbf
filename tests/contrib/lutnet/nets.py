"""Small networks of look-up tables in the neutral form, made by hand, and what they answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef

INPUTS = 20
SIZES = (24, 18, 12)


def layer(class_name: str, name: str, source: str, config: dict[str, Any], *weights: np.ndarray) -> LayerSpec:
    return LayerSpec(class_name, name, config, ((TensorRef(source),),), weights)


def luts(name: str, source: str, inputs: int, units: Any, *, pins: int = 6, seed: int = 0) -> LayerSpec:
    """A trained layer without batch normalisation whose tables are `table_bits` of the same seed."""
    bits, wires = table_bits(units, pins, seed), connections(inputs, units, pins, seed)
    config = {"units": units, "n_inputs": pins, "connection": "random", "binary": False}
    return layer("StochasticLut", name, source, {**config, "lut_binarize": True}, bits.astype(np.float32), wires)


BITS = layer("Binarize", "bits", "x", {"threshold": 0.5, "low": 0.0, "high": 1.0})


def table_bits(units: Any, pins: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((int(np.prod(units)), 2**pins)) < 0.5


def connections(inputs: int, units: Any, pins: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 100).integers(inputs, size=(int(np.prod(units)), pins))


def answer(bits: np.ndarray, units: Any, *, pins: int = 6, seed: int = 0) -> np.ndarray:
    """What `luts` answers to bits [n, inputs], one look-up at a time."""
    tables, wires = table_bits(units, pins, seed), connections(bits.shape[-1], units, pins, seed)
    out = np.zeros((len(bits), len(tables)), bool)
    for sample, row in enumerate(bits.astype(bool)):
        for unit, pins_of in enumerate(wires):
            out[sample, unit] = tables[unit, sum(int(row[i]) << k for k, i in enumerate(pins_of))]
    return out


def input_layer(*shape: int) -> LayerSpec:
    return LayerSpec("InputLayer", "x", {"batch_shape": [None, *shape]}, ((),))


def model(*layers: LayerSpec, shape: tuple[int, ...] = (INPUTS,)) -> ModelSpec:
    return ModelSpec("net", (input_layer(*shape), *layers), (TensorRef("x"),), (TensorRef(layers[-1].name),))


def stack(*tail: LayerSpec) -> ModelSpec:
    """Binarize, three layers of look-up tables called lut0 to lut2, and what `tail` adds."""
    layers = [BITS]
    sizes = (INPUTS, *SIZES)
    for k, units in enumerate(SIZES):
        layers.append(luts(f"lut{k}", layers[-1].name, sizes[k], units, seed=k))
    return model(*layers, *tail)


def stack_answers(x: np.ndarray) -> list[np.ndarray]:
    """What the layers of :func:`stack` answer: the bits of the input, then those of every layer."""
    found = [np.asarray(x) > 0.5]
    for k, units in enumerate(SIZES):
        found.append(answer(found[-1], units, seed=k))
    return found


def samples(count: int = 70, *shape: int, seed: int = 5) -> np.ndarray:
    """Inputs on the grid of the default type, some of them exactly 0.5."""
    return (np.random.default_rng(seed).integers(0, 9, (count, *(shape or (INPUTS,)))) / 8).astype(np.float32)
