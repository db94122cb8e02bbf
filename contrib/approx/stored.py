"""Parameters beside the codes, biases and normalisations: how much of them hardware keeps.

Firmware and its exact emulation compute with the same numbers, so both ask here.
"""

from __future__ import annotations

import numpy.typing as npt

from kconvert.types import FixedType, Overflow, Rounding, exact_type

STORED_BITS = 24
"""As many as the mantissa of a float32 has; a normalised sum of 8-bit products then fits the 53 bits of a double."""
FINER = 8
"""Bits of a bias below the last one of a product of codes: less than a thousandth of the smallest code."""


def bias_type(bias: npt.ArrayLike, exponent: int) -> FixedType:
    """Return the type of the biases of a layer whose products of codes are multiples of ``2 ** exponent``."""
    return _not_finer(exact_type(bias, STORED_BITS), FINER - exponent)


def normalisation_types(scale: npt.ArrayLike, bias: npt.ArrayLike) -> tuple[FixedType, FixedType]:
    """Return the types of the factors and of the offsets of a normalisation: of one resolution."""
    of_scale = exact_type(scale, STORED_BITS)
    return of_scale, _not_finer(exact_type(bias, STORED_BITS), STORED_BITS - of_scale.integer)


def _not_finer(kind: FixedType, fraction: int) -> FixedType:
    if kind.fraction <= fraction:
        return kind
    width = max(kind.integer + fraction, 1 + kind.signed)  # values below the last bit become 0, or it
    return FixedType(width, width - fraction, kind.signed, Rounding.RND, Overflow.SAT)
