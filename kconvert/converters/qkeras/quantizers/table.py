"""The one table of QKeras' quantizers: options, type, response and automatic scale of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kconvert.converters.qkeras.quantizers.functions import (
    binary_response,
    hswish_response,
    levels_type,
    linear_response,
    linear_type,
    no_response,
    relu_response,
    relu_type,
    rounded,
    sigmoid_response,
    tanh_response,
    ternary_response,
)
from kconvert.converters.qkeras.quantizers.powers import po2_response, relu_po2_response
from kconvert.converters.qkeras.quantizers.responses import Activation, Float32
from kconvert.converters.qkeras.quantizers.scales import auto_binary, auto_bits, auto_linear, auto_ternary, no_auto
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert.converters.qkeras.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class Kind:
    """What is known about one quantizer class of QKeras.

    Attributes:
        options: Name and default of every option, in the order of QKeras' positional arguments; at the end those
            that only some version or config has.
        type: Type of the codes.
        response: The function that is stored, without alpha.
        auto: Codes and scale of an array where alpha is automatic.
        powers: Whether values are powers of two.
    """

    options: Mapping[str, Any]
    type: Callable[[Quantizer], FixedType]
    response: Callable[[Quantizer], Activation]
    auto: Callable[[Quantizer, Float32], tuple[Float32, Float32]] = no_auto
    powers: bool = False


def _tail(**options: Any) -> dict[str, Any]:
    """The options that most classes end with."""
    return {"qnoise_factor": 1.0, "var_name": None, **options}


_SCALES = {"elements_per_scale": None, "min_po2_exponent": None, "max_po2_exponent": None}
_STE = {"use_ste": True, "use_variables": False}
_STOCHASTIC = {"alpha": None, "temperature": 6.0, "use_real_sigmoid": True}

QUANTIZERS: Mapping[str, Kind] = {
    "quantized_bits": Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "keep_negative": True, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(**_STE)
        | _SCALES
        | {"post_training_scale": None},
        linear_type,
        linear_response,
        auto_bits,
    ),
    "quantized_linear": Kind(
        {"bits": 8, "integer": 0, "symmetric": 1, "keep_negative": True, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(use_variables=False),
        linear_type,
        linear_response,
        auto_linear,
    ),
    "quantized_hswish": Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(use_variables=False, relu_shift=3, relu_upper_bound=6, keep_negative=True, post_training_scale=None),
        linear_type,
        hswish_response,
        auto_bits,
    ),
    "quantized_relu": Kind(
        {"bits": 8, "integer": 0, "use_sigmoid": 0, "negative_slope": 0.0, "use_stochastic_rounding": False}
        | {"relu_upper_bound": None, "is_quantized_clip": True}
        | _tail(**_STE, enable_fast_inference=False),
        relu_type,
        relu_response,
    ),
    "quantized_tanh": Kind(
        {"bits": 8, "use_stochastic_rounding": False, "symmetric": False, "use_real_tanh": False},
        lambda q: rounded(q["bits"], 1, symmetric=q["symmetric"]),
        tanh_response,
    ),
    "quantized_sigmoid": Kind(
        {"bits": 8, "symmetric": False, "use_real_sigmoid": False, "use_stochastic_rounding": False},
        lambda q: rounded(q["bits"], 0, signed=False),
        sigmoid_response,
    ),
    "quantized_ulaw": Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "u": 255.0},
        no_response(_ULAW := "QKeras does not round its logarithms to a grid, so no type holds its values"),
        no_response(_ULAW),
    ),
    "quantized_po2": Kind(
        {"bits": 8, "max_value": None, "use_stochastic_rounding": False, "quadratic_approximation": False}
        | {"log2_rounding": "rnd"}
        | _tail(**_STE),
        levels_type,
        po2_response,
        powers=True,
    ),
    "quantized_relu_po2": Kind(
        {"bits": 8, "max_value": None, "negative_slope": 0, "use_stochastic_rounding": False}
        | {"quadratic_approximation": False, "log2_rounding": "rnd"}
        | _tail(**_STE),
        levels_type,
        relu_po2_response,
        powers=True,
    ),
    "binary": Kind(
        {"use_01": False, "alpha": None, "training": False, "use_stochastic_rounding": False, "scale_axis": None}
        | _SCALES,
        levels_type,
        binary_response,
        auto_binary,
    ),
    "stochastic_binary": Kind(_STOCHASTIC, levels_type, binary_response, auto_binary),
    "ternary": Kind(
        {"alpha": None, "threshold": None, "use_stochastic_rounding": False, "number_of_unrolls": 5},
        lambda q: FixedType(2, 2),
        ternary_response,
        auto_ternary,
    ),
    "stochastic_ternary": Kind(
        {"alpha": None, "threshold": None, "temperature": 8.0, "use_real_sigmoid": True, "number_of_unrolls": 5},
        lambda q: FixedType(2, 2),
        ternary_response,
        auto_ternary,
    ),
    "bernoulli": Kind(
        _STOCHASTIC,
        no_response(_CHANCE := "QKeras draws random numbers at inference too; use binary(use_01=True) for its mean"),
        no_response(_CHANCE),
    ),
}


def known_quantizers() -> list[str]:
    """Names of the quantizers of QKeras that can be read."""
    return sorted(QUANTIZERS)
