"""What a trained LUT layer is in hardware: truth tables and wiring, computed by numpy alone.

The functions take a layer's class name, its config dictionary and its weight arrays, from a live layer as well as
from a file, so that nothing here needs Keras. A table has ``2**n_inputs`` entries; input i of a node is bit i of the
address, input 0 the least significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError, ModelError

Bits = npt.NDArray[np.bool_]

LUT_LAYERS = ("AverageLut", "DifferentiableLut", "MaxLut", "StochasticLut")
"""Class names of the layers whose nodes are look-up tables."""


VARIANCE_FLOOR = 1e-5
"""The smallest variance that the batch normalisation inside a LUT layer divides by the root of."""


@dataclass(frozen=True, slots=True)
class LutArray:
    """The nodes of one layer.

    Attributes:
        tables: bool [units, 2**n_inputs], the answer at every address.
        connections: int64 [units, n_inputs], the index in the layer's (flattened) input that each pin reads.
        low: What the Keras layer answers where the table holds 0.
        high: What it answers where the table holds 1.
    """

    tables: Bits
    connections: npt.NDArray[np.int64]
    low: float = 0.0
    high: float = 1.0

    @property
    def words(self) -> npt.NDArray[np.uint64]:
        """The tables as uint64 [units]; bit a is the answer at address a."""
        weights = np.left_shift(np.uint64(1), np.arange(self.tables.shape[1], dtype=np.uint64))
        return np.asarray(np.where(self.tables, weights, np.uint64(0)).sum(axis=1, dtype=np.uint64))

    def __call__(self, bits: npt.ArrayLike) -> Bits:
        """Answer of every node, bool [..., units], to bits [..., inputs] (anything above 0.5 is a 1)."""
        index = addresses(np.asarray(bits) > 0.5, self.connections)
        return np.asarray(self.tables[np.arange(len(self.tables)), index])


def addresses(bits: Bits, connections: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return int64 [..., units], the address each node reads its table at, of bits [..., inputs].

    Raises:
        InputError: there are fewer inputs than the wiring reads.
    """
    if bits.shape[-1] <= connections.max(initial=-1):
        raise InputError(f"the nodes read input {connections.max()}, but there are only {bits.shape[-1]} inputs")
    powers = np.left_shift(1, np.arange(connections.shape[1]))
    return np.asarray(np.where(bits[..., connections], powers, 0).sum(axis=-1))


def smooth(table: Any, xp: Any = np) -> Any:
    """Return the multilinear reads of `table`, float32 [units, 2**n], at the corners of the cube [0.25, 0.75]**n.

    That is the n-fold Kronecker power of [[3/4, 1/4], [1/4, 3/4]] times each table. Every step is one addition that
    rounds; the factors are powers of two, so any machine and any library (`xp`: numpy or keras.ops) gets the same bits.
    """
    units, size = table.shape
    for i in range(size.bit_length() - 1):
        pairs = xp.reshape(table, (units, -1, 2, 2**i))
        table = xp.reshape(pairs * 0.5 + xp.sum(pairs, axis=2, keepdims=True) * 0.25, (units, size))
    return table


def differentiable_tables(
    table: Any,
    *,
    binary: bool = True,
    lut_binarize: bool = False,
    statistics: Sequence[Any] = (),
    gamma: float = 0.3,
    beta: float = 0.5,
    xp: Any = np,
) -> Any:
    """Return bool [units, 2**n], the truth tables of a trained layer.

    With the read z of a corner, an entry is ``gamma * (z - mean) / sqrt(variance) + beta > 0.5``. It is decided without
    root or quotient, by products that round once each, so that a layer and the table exported from it cannot differ.

    Args:
        table: Float32 [units, 2**n], the trained tables.
        binary: Inputs are read as 0.25 and 0.75; otherwise as 0 and 1.
        lut_binarize: Entries above 0.5 are read as 1, others as 0.
        statistics: Running mean and variance, float32 [units] each, where the layer has batch normalisation.
        gamma: Its constant gain, above 0.
        beta: Its constant offset.
        xp: numpy, or keras.ops for tensors.
    """
    read = xp.where(table > 0.5, 1.0, 0.0) if lut_binarize else table
    read = xp.asarray(read, "float32") if xp is np else xp.cast(read, "float32")
    read = smooth(read, xp) if binary else read
    if not statistics:
        return read > 0.5
    mean, variance = (xp.reshape(s, (-1, 1)) for s in statistics)
    distance, needed = read - mean, (0.5 - beta) / gamma
    return distance * abs(distance) > variance * (needed * abs(needed))


def majority_table(n_inputs: int) -> Bits:
    """Return bool [2**n]: are more than half of the inputs 1? A tie is 0."""
    index = np.arange(2**n_inputs)
    ones = sum((index >> i) & 1 for i in range(n_inputs))
    return np.asarray(2 * ones > n_inputs)


def any_table(n_inputs: int) -> Bits:
    """Return bool [2**n]: is any input 1?"""
    return np.arange(2**n_inputs) > 0


def lut_array(class_name: str, config: Mapping[str, Any], weights: Sequence[npt.NDArray[Any]]) -> LutArray:
    """Return the tables and wiring of a layer.

    Args:
        class_name: One of :data:`LUT_LAYERS`.
        config: The layer's config dictionary.
        weights: Its arrays in Keras' order (``layer.weights``).

    Raises:
        ModelError: the class is none of these, or the arrays do not fit the config.
    """
    if class_name not in LUT_LAYERS:
        raise ModelError(f"{class_name!r} is no layer of look-up tables (these are: {', '.join(LUT_LAYERS)})")
    n_inputs = int(config["n_inputs"])
    if class_name in ("AverageLut", "MaxLut"):
        (connections,) = _expect(class_name, weights, 1)
        table = (majority_table if class_name == "AverageLut" else any_table)(n_inputs)
        tables = np.tile(table, (len(connections), 1))
        return LutArray(tables, connections.astype(np.int64), float(config["low"]), float(config["high"]))
    norm = bool(config.get("batch_norm", False))
    trained, wiring, *statistics = _expect(class_name, weights, 4 if norm else 2)
    tables = differentiable_tables(
        trained,
        binary=config["binary"],
        lut_binarize=config["lut_binarize"],
        statistics=statistics,
        gamma=config.get("gamma", 0.3),
        beta=config.get("beta", 0.5),
    )
    connections = wiring.astype(np.int64)
    if tables.shape != (len(connections), 2**n_inputs) or connections.shape[1] != n_inputs:
        raise ModelError(f"{class_name}: tables {tables.shape} and wiring {connections.shape} do not fit each other")
    return LutArray(tables, connections)


def _expect(class_name: str, weights: Sequence[npt.NDArray[Any]], count: int) -> Sequence[npt.NDArray[Any]]:
    if len(weights) != count:
        raise ModelError(f"{class_name}: expected {count} weight arrays, received {len(weights)}")
    return [np.asarray(w) for w in weights]
