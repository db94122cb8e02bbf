"""Multipliers of our own: every member of every family, with its sources, its table and its cost."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ..errors import ApproxError
from ..multipliers import CODES, ApproximateMultiplier
from . import designs
from .circuit import Value, cpp_body, evaluate, operands, verilog_module


@dataclass(frozen=True)
class Design:
    """One member of a family."""

    name: str
    circuit: Callable[..., Value]
    options: tuple[int | bool, ...] = ()

    @property
    def family(self) -> str:
        """The family's name in prose."""
        return self.circuit.__name__.replace("_", " ")

    def value(self) -> Value:
        """Return the circuit."""
        return self.circuit(*operands(), *self.options)

    def table(self) -> np.ndarray[Any, Any]:
        """Return all its products: int64 [256, 256]."""
        x, y = np.meshgrid(CODES.astype(np.int64), CODES.astype(np.int64), indexing="ij")
        return evaluate(self.value(), x, y)


def _members(name: str, circuit: Callable[..., Value], *options: tuple[int | bool, ...]) -> list[Design]:
    return [Design("_".join([name, *(str(int(option)) for option in some)]), circuit, some) for some in options]


DESIGNS: tuple[Design, ...] = (
    Design("exact", designs.exact),
    *_members(
        "truncated_operands",
        designs.truncated_operands,
        *((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 3), (3, 0), (3, 3), (0, 4), (4, 0), (4, 4), (6, 0)),
    ),
    *_members("truncated_columns", designs.truncated_columns, *((k,) for k in range(2, 10))),
    *(Design(f"compensated_columns_{k}", designs.truncated_columns, (k, True)) for k in range(3, 10)),
    *_members(
        "broken_array",
        designs.broken_array,
        *((1, 3), (1, 4), (1, 5), (1, 7), (2, 5), (2, 6), (2, 8), (3, 7), (3, 9), (4, 8), (4, 10)),
    ),
    *_members("mitchell", designs.mitchell, (7,), (5,), (4,), (3,), (2,)),
    *_members("drum", designs.drum, (6,), (5,), (4,), (3,)),
    *_members("leading_one", designs.leading_one, (6,), (5,), (4,), (3,), (2,)),
    *_members("static_segment", designs.static_segment, (6,), (5,), (4,)),
    *_members("blocks_2x2", designs.blocks_2x2, (2,), (3,), (4,), (7,)),
)
"""Every member, family by family."""


def costs() -> dict[str, dict[str, Any]]:
    """Return what synthesis said of every member, by name: ``area`` in NAND2 equivalents and ``luts``."""
    text = (resources.files(__package__.rpartition(".")[0]) / "data" / "costs.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)["members"]
    return found


@functools.cache
def library() -> tuple[ApproximateMultiplier, ...]:
    """Return all multipliers of our own; the first one is exact.

    The performance_metric is the area of the multiplier as gates, as a share of the exact one's. It is the area of a
    generic mapping and says nothing of power beyond that smaller circuits tend to switch less;
    :func:`kconvert_contrib.approx.costs.costs` has the figures behind it.
    """
    area = {name: cost["area"] for name, cost in costs().items()}
    return tuple(
        ApproximateMultiplier.from_table(
            design.name,
            area[design.name] / area["exact"],
            design.table(),
            cpp_body(design.value()),
            verilog_module(design.value(), design.name),
        )
        for design in DESIGNS
    )


def member(name: str) -> ApproximateMultiplier:
    """Return the multiplier of this name from :func:`library`.

    Raises:
        ApproxError: there is none of this name.
    """
    for one in library():
        if one.name == name:
            return one
    raise ApproxError(f"the library has no multiplier {name!r}; it has {', '.join(d.name for d in DESIGNS)}")
