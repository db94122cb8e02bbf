"""A quantizer with its options, and what can be asked of it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from kconvert.converters.qkeras.quantizers.bisection import Changes
from kconvert.converters.qkeras.quantizers.functions import smallest_type
from kconvert.converters.qkeras.quantizers.literals import literal
from kconvert.converters.qkeras.quantizers.responses import Activation, Convert, Float32, Steps, Table
from kconvert.converters.qkeras.quantizers.table import QUANTIZERS, known_quantizers
from kconvert.errors import PrecisionError, PrecisionWarning, UnsupportedLayerError, did_you_mean
from kconvert.types import MAX_PARSED_WIDTH, FixedType


@dataclass(frozen=True)
class Quantized:
    """A quantised array; its values are ``codes * scale``.

    Attributes:
        codes: float64, every element a value of `type`.
        type: Type of the codes.
        scale: float64 numbers that float32 holds, shape ``()``, ``(1,)`` or ``(channels,)`` for the last axis of
            `codes`; None for 1. Rounding ``codes * scale`` to float32 gives QKeras' value.
    """

    codes: npt.NDArray[np.float64]
    type: FixedType
    scale: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Quantizer:
    """A QKeras quantizer with its options.

    Attributes:
        name: QKeras' class name.
        options: Every option of the class, defaults filled in; arrays are tuples of numbers.
        layer: Name of the layer it belongs to, for messages.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""

    def __post_init__(self) -> None:
        kind = QUANTIZERS.get(self.name)
        if kind is None:
            raise UnsupportedLayerError(
                f"layer {self.layer!r}: unknown quantizer {self.name!r}{did_you_mean(self.name, QUANTIZERS)} "
                f"(known: {', '.join(known_quantizers())})"
            )
        for option in self.options:
            if option not in kind.options:
                self.refuse(
                    f"it has no option {option!r}{did_you_mean(option, kind.options)} "
                    f"(its options: {', '.join(kind.options)})"
                )
        read = {key: self._literal(key, value) for key, value in {**kind.options, **self.options}.items()}
        object.__setattr__(self, "options", MappingProxyType(read))
        self._check()

    def __str__(self) -> str:
        default = QUANTIZERS[self.name].options
        given = (f"{k}={v!r}" for k, v in self.options.items() if v != default[k])
        return f"{self.name}({','.join(given)})"

    def for_weights(self) -> Quantizer:
        """Return the quantizer as a layer applies it to its kernel.

        QKeras layers call ``_set_trainable_parameter`` of some of their quantizers, which turns an ``alpha`` of
        None into ``"auto_po2"`` (and makes quantized_bits and quantized_linear symmetric). They do so for the
        kernel, depthwise, pointwise and recurrent quantizers of every layer that has one, and for the gamma and
        variance quantizers of QBatchNormalization; not for biases, beta, mean, states, activations or averages.
        """
        if self.options.get("alpha", 1) is not None:
            return self
        symmetric = {"symmetric": True} if "symmetric" in self.options else {}
        return replace(self, options={**self.options, "alpha": "auto_po2", **symmetric})

    @property
    def type(self) -> FixedType:
        """Type of the codes, with the rounding and saturation that QKeras applies.

        Raises:
            UnsupportedLayerError: No type of 64 bits holds every value, or the quantizer does not convert.
        """
        try:
            return QUANTIZERS[self.name].type(self)
        except PrecisionError as error:
            self.refuse(str(error))

    @property
    def is_binary(self) -> bool:
        """Whether its codes are plus and minus one step of its type."""
        response = self.response
        if not isinstance(response, Steps) or len(response.levels) != 2:
            return False
        return response.levels == (-self.type.step, self.type.step)

    @property
    def activation(self) -> Activation:
        """What a QActivation with this quantizer computes at inference.

        Raises:
            UnsupportedLayerError: It depends on the data or on chance, or is no fixed-point function.
        """
        scale = self._scale
        if isinstance(self.options.get("alpha"), str):
            self.refuse(f"alpha={self.options['alpha']!r} scales an activation by what is in the batch; give a number")
        if scale is None:
            return self.response
        factors = scale.reshape(-1).tolist()
        alpha = factors[0] if len(factors) == 1 else tuple(factors)
        response = replace(self.response, alpha=alpha)
        if self.name != "quantized_linear":
            return response
        # Only quantized_linear divides by alpha what it multiplies by alpha after rounding.
        if not isinstance(response, Steps):
            return Convert(divisor=alpha, alpha=alpha)
        if isinstance(alpha, tuple):
            self.refuse("with 1 bit it cannot have one alpha for each channel; give one number")
        return replace(response, thresholds=tuple(t * alpha for t in response.thresholds))

    def changes(self) -> Changes:
        """Return where the code of an activation changes; its alpha must be one number."""
        response, kind = self.activation, self.type
        turns = response.turns if isinstance(response, Table) else ()
        return Changes(lambda x: kind.to_raw(response(x)), turns)

    def quantize(self, weights: npt.ArrayLike) -> Quantized:
        """Quantise a weight or bias array as QKeras does at inference.

        Where the scale comes from a mean of the data (``"auto"`` of binary and ternary), it can differ from
        QKeras' in the last bits of float32, because TensorFlow's order of summation is its own.

        Args:
            weights: Any shape, channels last; rounded to float32 as Keras stores them.

        Raises:
            UnsupportedLayerError: The quantizer does not convert, or its scale does not lie on the last axis.
        """
        x = np.asarray(weights, dtype=np.float32)
        kind = QUANTIZERS[self.name]
        if isinstance(self.options.get("alpha"), str):
            with np.errstate(all="ignore"):
                codes, scales = kind.auto(self, x)
            return Quantized(np.asarray(codes, dtype=np.float64) + 0.0, self.type, self._on_last_axis(x, scales))
        response = self.response
        if kind.powers and isinstance(response, Steps):
            return self._quantize_po2(response, x)
        scale = None if self._scale is None else self._on_last_axis(x, self._scale)
        if scale is not None and self.name == "quantized_linear":
            x = np.divide(x, scale, dtype=np.float32)
        return Quantized(self.type.quantize(response(x)), self.type, scale)

    # ---------------------------------------------------------------- inside

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @functools.cached_property
    def response(self) -> Activation:
        """What is stored of an activation, without alpha."""
        return QUANTIZERS[self.name].response(self)

    @property
    def _scale(self) -> Float32 | None:
        """A numeric alpha, unless it is 1."""
        alpha = self.options.get("alpha")
        if alpha is None or isinstance(alpha, str):
            return None
        scale = np.asarray(alpha, dtype=np.float32)
        return None if np.all(scale == 1) else scale

    def _quantize_po2(self, steps: Steps, x: Float32) -> Quantized:
        # The type of all values is wide; weights rarely use them all.
        values = steps(x.astype(np.float64))
        kept = smallest_type(values)
        if kept is None:
            smallest = min(abs(level) for level in steps.levels)
            tiny = np.abs(values) == smallest
            warnings.warn(
                f"layer {self.layer!r}, quantizer {self}: {int(tiny.sum())} weights next to zero, which QKeras "
                f"takes as its smallest power of two, {smallest}, are taken as zero",
                PrecisionWarning,
                stacklevel=3,
            )
            values = np.where(tiny, 0.0, values)
            kept = smallest_type(values)
        if kept is None:
            self.refuse(f"its weights need more than {MAX_PARSED_WIDTH} bits; give it fewer bits or a max_value")
        return Quantized(values, kept, None)

    def _on_last_axis(self, x: Float32, scale: Float32) -> npt.NDArray[np.float64]:
        if not np.all(np.isfinite(scale)):
            self.refuse("its automatic scale is infinite or not a number for these weights")
        if scale.size > 1 and (scale.size != scale.shape[-1] or scale.size != x.shape[-1]):
            self.refuse(
                f"its scale has shape {scale.shape} for weights of shape {x.shape}; "
                "only one scale, or one for each channel of the last axis, converts"
            )
        return scale.astype(np.float64).reshape(-1) if scale.ndim else scale.astype(np.float64)

    def refuse(self, why: str) -> NoReturn:
        """Raise :class:`UnsupportedLayerError` that names the layer and the quantizer."""
        raise UnsupportedLayerError(f"layer {self.layer!r}, quantizer {self._shown}: {why}")

    @property
    def _shown(self) -> str:
        return str(self) if isinstance(self.options, MappingProxyType) else self.name

    def _literal(self, option: str, value: object) -> Any:
        """Return a number, text, None or tuple of numbers for what a config holds."""
        try:
            found = literal(value)
        except (TypeError, ValueError):
            self.refuse(f"{option}={value!r} cannot be read; give a number, a string or an array of numbers")
        if option in ("bits", "integer"):
            whole = found[0] if isinstance(found, tuple) and len(found) == 1 else found
            if not isinstance(whole, (int, float)) or whole != int(whole):
                self.refuse(f"{option}={found!r} must be one whole number")
            return int(whole)
        return found

    def _check(self) -> None:
        o = self.options
        if "bits" in o and o["bits"] < 1:
            self.refuse("bits must be 1 or more")
        alpha = o.get("alpha")
        if isinstance(alpha, str) and alpha not in ("auto", "auto_po2"):
            self.refuse(f"alpha={alpha!r} must be a number, an array, None, 'auto' or 'auto_po2'")
        if self.name == "quantized_linear" and self._scale is not None and not np.all(self._scale > 0):
            self.refuse(f"alpha={alpha!r} must be above zero")
        if o.get("qnoise_factor", 1) != 1:
            self.refuse("qnoise_factor must be 1; below it QKeras mixes the unquantised value into the result")
        if o.get("training"):
            self.refuse("training=True draws random numbers; only the inference form converts")
        if o.get("elements_per_scale") is not None:
            self.refuse("elements_per_scale is not supported; only one scale for each channel of the last axis")
        if o.get("post_training_scale") is not None and not isinstance(alpha, str):
            self.refuse("post_training_scale needs alpha='auto' or 'auto_po2'")
        if isinstance(alpha, str) and o.get("threshold") is not None:
            self.refuse("threshold must be None where alpha is automatic")
