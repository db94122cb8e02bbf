"""Layers of the intermediate representation that multiply with an approximate multiplier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from kconvert.errors import ConfigError
from kconvert.firmware import render
from kconvert.layers import Conv, Dense, DepthwiseConv, Weighted
from kconvert.layers.activations import Quantize
from kconvert.layers.base import identifier
from kconvert.tables import printable
from kconvert.types import FixedType

from .multipliers import ApproximateMultiplier

CODE_BITS = 8


@dataclass(eq=False, kw_only=True)
class Codes(Quantize):
    """Rounds to the codes that a multiplier takes; that it saturates is part of the model."""


@dataclass(eq=False, kw_only=True)
class Approximate(Weighted):
    """What such layers share; the first base of a class, before the layer that it changes."""

    multiplier: ApproximateMultiplier
    kernel = "nnet_approx.h"

    @property
    def policy(self) -> str:
        """The product policy of nnet_approx.h with the multiplier's struct."""
        return f"nnet::product::approximate<nnet::product::{struct_of(self.multiplier)}>"

    def headers(self) -> dict[str, str]:
        """The multiplier's own header."""
        return {f"multipliers/{struct_of(self.multiplier)}.h": header_of(self.multiplier)}

    def infer_types(self, default: FixedType) -> None:
        """As with exact products: 16 bits hold either."""
        super().infer_types(default)
        for what, kind in (("input", self.in_type()), ("weight", self.typed("weight"))):
            if kind.width != CODE_BITS or not kind.signed:
                raise ConfigError(
                    f"layer {self.name!r}: its multiplier {self.multiplier.name!r} takes signed codes of {CODE_BITS} "
                    f"bits, and the {what} type is {kind}; take that precision out of the settings"
                )

    def describe(self) -> str:
        """Say by which multiplier."""
        return f"{super().describe()}, products by {printable(self.multiplier.name)}"


@dataclass(eq=False, kw_only=True)
class ApproxDense(Approximate, Dense):
    """A Dense whose products are those of `multiplier`."""

    kernel = Approximate.kernel


@dataclass(eq=False, kw_only=True)
class ApproxConv(Approximate, Conv):
    """A Conv whose products are those of `multiplier`; padding is the code 0."""

    kernel = Approximate.kernel


@dataclass(eq=False, kw_only=True)
class ApproxDepthwiseConv(Approximate, DepthwiseConv):
    """A DepthwiseConv whose products are those of `multiplier`; padding is the code 0."""

    kernel = Approximate.kernel


_APPROXIMATE: dict[type[Weighted], type[Approximate]] = {
    Dense: ApproxDense,
    Conv: ApproxConv,
    DepthwiseConv: ApproxDepthwiseConv,
}


def approximate(node: Weighted, multiplier: ApproximateMultiplier) -> Approximate:
    """Return the node that computes what `node` does with the products of a multiplier; neither is connected."""
    options: dict[str, Any] = {field.name: getattr(node, field.name) for field in fields(node) if field.init}
    return _APPROXIMATE[type(node)](**options, multiplier=multiplier)


def struct_of(multiplier: ApproximateMultiplier) -> str:
    """Return the name of a multiplier's struct and header: that of the multiplier, and a hash of what it computes."""
    content = multiplier.cpp.encode() if multiplier.cpp is not None else multiplier.table.tobytes()
    return f"approx_{identifier(multiplier.name)}_{hashlib.sha256(content).hexdigest()[:8]}"


def header_of(multiplier: ApproximateMultiplier) -> str:
    """Return the text of a multiplier's header: its behavioural source, or its table where there is none."""
    struct = struct_of(multiplier)
    products = np.roll(multiplier.table, 128, axis=(0, 1)).T.ravel() if multiplier.cpp is None else None
    rows = "" if products is None else ",\n".join(", ".join(map(str, row)) for row in products.reshape(-1, 32).tolist())
    return render(
        "multipliers/multiplier.h.j2",
        guard=f"{struct.upper()}_H_",
        identifier=struct,
        body=multiplier.cpp,
        products=rows,
    )
