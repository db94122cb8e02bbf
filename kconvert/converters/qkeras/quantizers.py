"""QKeras quantizers in fixed point: what each does to weights and to activations, and the type of the result.

This is the one table from which configuration, weights and activations take what a quantizer means. It needs
numpy only, so a model read from files converts without QKeras or Keras. All arithmetic that decides a result is
done in float32 in the order QKeras does it.

What QKeras computes is ``x + (q - x)`` in float32 (the straight-through form that gives it a gradient), not the
quantised value ``q`` itself; this module describes ``q``. The two are equal wherever ``q - x`` is exact, and
differ by at most the float32 rounding of that difference, which is large only where `x` lies far outside the range.

Options without effect at inference are accepted and ignored: ``use_stochastic_rounding``, ``use_ste``,
``var_name``, ``use_variables``, ``temperature`` and ``use_real_sigmoid`` of the stochastic quantizers.
``qnoise_factor`` does have an effect: below 1 QKeras mixes the unquantised value into its result.

"Hard" tanh and sigmoid are those of QKeras' default, ``set_internal_sigmoid("hard")``; no model file says which
one was set.
"""

from __future__ import annotations

import abc
import ast
import bisect
import functools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from kconvert.errors import PrecisionError, PrecisionWarning, UnsupportedLayerError, did_you_mean
from kconvert.types import MAX_PARSED_WIDTH, FixedType, Overflow, Rounding, exact_type

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[Any]

_EPSILON = np.float32(1e-7)  # keras.config.epsilon(), which a model file does not record
_LOG2 = np.float32(np.log(2.0))
_PO2_ITERATIONS = 5


# -------------------------------------------------------------------- what an activation computes


@dataclass(frozen=True, kw_only=True)
class Activation(abc.ABC):
    """What a quantizer computes at inference: ``alpha * store(self(x))``, with `store` assigning to its type.

    Attributes:
        alpha: Factor of the stored value.
    """

    alpha: float = 1.0

    @abc.abstractmethod
    def __call__(self, x: Floats) -> Floats:
        """Return the values to store, in the dtype of `x`."""


@dataclass(frozen=True)
class Convert(Activation):
    """Nothing but the store."""

    def __call__(self, x: Floats) -> Floats:
        """Return `x`."""
        return x


@dataclass(frozen=True)
class Rectify(Activation):
    """A ReLU: ``clip(x if x > 0 else negative_slope * x, lower_bound, upper_bound)``.

    Attributes:
        negative_slope: Zero or a power of two.
        upper_bound: A value of the type, or None where the type's own saturation is all.
        lower_bound: The same at the other end.
    """

    negative_slope: float = 0.0
    upper_bound: float | None = None
    lower_bound: float | None = None

    def __call__(self, x: Floats) -> Floats:
        """Return the rectified values."""
        y = np.where(x > 0, x, x * x.dtype.type(self.negative_slope))
        return _clip(y, self.lower_bound, self.upper_bound)


@dataclass(frozen=True)
class Affine(Activation):
    """``max(scale * x + bias, lower_bound)``.

    Attributes:
        scale: Factor.
        bias: Summand.
        lower_bound: A value of the type, or None where the type's own saturation is all.
    """

    scale: float
    bias: float = 0.0
    lower_bound: float | None = None

    def __call__(self, x: Floats) -> Floats:
        """Return the transformed values."""
        number = x.dtype.type
        return _clip(x * number(self.scale) + number(self.bias), self.lower_bound, None)


@dataclass(frozen=True)
class Table(Activation):
    """A function without a closed fixed-point form; to be tabulated.

    Attributes:
        name: ``"tanh"``, ``"sigmoid"`` or ``"hard_swish"``.
        function: Maps numbers, element by element, to float32 as QKeras does, up to the last bits in which
            implementations of float32 tanh and exp differ.
    """

    name: str
    function: Callable[[npt.ArrayLike], Float32]

    def __call__(self, x: Floats) -> Floats:
        """Return the function of `x`."""
        return self.function(x).astype(x.dtype)


@dataclass(frozen=True)
class Steps(Activation):
    """A step function: ``levels[number of thresholds that x reaches]``.

    Attributes:
        thresholds: Ascending; each is exact in float32.
        levels: One more than thresholds, values of the type; not always ascending.
        inclusive: For each threshold whether ``x == threshold`` reaches it.
    """

    thresholds: tuple[float, ...]
    levels: tuple[float, ...]
    inclusive: tuple[bool, ...]

    def __call__(self, x: Floats) -> Floats:
        """Return the levels of `x`."""
        reached = np.zeros(x.shape, dtype=np.intp)
        for threshold, inclusive in zip(self.thresholds, self.inclusive, strict=True):
            reached += x >= threshold if inclusive else x > threshold
        return np.asarray(self.levels)[reached].astype(x.dtype)


def _clip(x: Floats, lower: float | None, upper: float | None) -> Floats:
    return x if lower is None and upper is None else np.clip(x, lower, upper)


# -------------------------------------------------------------------- the quantizer


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
                self._refuse(
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
            self._refuse(str(error))

    @property
    def activation(self) -> Activation:
        """What a QActivation with this quantizer computes at inference.

        Raises:
            UnsupportedLayerError: It depends on the data or on chance, or is no fixed-point function.
        """
        scale = self._scale
        if isinstance(self.options.get("alpha"), str):
            self._refuse(f"alpha={self.options['alpha']!r} scales an activation by what is in the batch; give a number")
        if scale is None:
            return self._response
        if scale.size != 1:
            self._refuse(f"an activation cannot have one alpha for each of {scale.size} channels; give one number")
        alpha = float(scale.reshape(-1)[0])
        response = replace(self._response, alpha=alpha)
        if self.name != "quantized_linear" or alpha == 1:
            return response
        # Only quantized_linear divides by alpha what it multiplies by alpha after rounding.
        if isinstance(response, Steps):
            return replace(response, thresholds=tuple(t * alpha for t in response.thresholds))
        return Affine(scale=1 / alpha, alpha=alpha)

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
        response = self._response
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
    def _response(self) -> Activation:
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
        kept = _smallest_type(values)
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
            kept = _smallest_type(values)
        if kept is None:
            self._refuse(f"its weights need more than {MAX_PARSED_WIDTH} bits; give it fewer bits or a max_value")
        return Quantized(values, kept, None)

    def _on_last_axis(self, x: Float32, scale: Float32) -> npt.NDArray[np.float64]:
        if not np.all(np.isfinite(scale)):
            self._refuse("its automatic scale is infinite or not a number for these weights")
        if scale.size > 1 and (scale.size != scale.shape[-1] or scale.size != x.shape[-1]):
            self._refuse(
                f"its scale has shape {scale.shape} for weights of shape {x.shape}; "
                "only one scale, or one for each channel of the last axis, converts"
            )
        return scale.astype(np.float64).reshape(-1) if scale.ndim else scale.astype(np.float64)

    def _refuse(self, why: str) -> NoReturn:
        raise UnsupportedLayerError(f"layer {self.layer!r}, quantizer {self._shown}: {why}")

    @property
    def _shown(self) -> str:
        return str(self) if isinstance(self.options, MappingProxyType) else self.name

    def _literal(self, option: str, value: object) -> Any:
        """Return a number, text, None or tuple of numbers for what a config holds."""
        try:
            plain = _plain(value)
        except (TypeError, ValueError):
            self._refuse(f"{option}={value!r} cannot be read; give a number, a string or an array of numbers")
        if option in ("bits", "integer"):
            whole = plain[0] if isinstance(plain, tuple) and len(plain) == 1 else plain
            if not isinstance(whole, (int, float)) or whole != int(whole):
                self._refuse(f"{option}={plain!r} must be one whole number")
            return int(whole)
        return plain

    def _check(self) -> None:
        o = self.options
        if "bits" in o and o["bits"] < 1:
            self._refuse("bits must be 1 or more")
        alpha = o.get("alpha")
        if isinstance(alpha, str) and alpha not in ("auto", "auto_po2"):
            self._refuse(f"alpha={alpha!r} must be a number, an array, None, 'auto' or 'auto_po2'")
        if self.name == "quantized_linear" and self._scale is not None and not np.all(self._scale > 0):
            self._refuse(f"alpha={alpha!r} must be above zero")
        if o.get("qnoise_factor", 1) != 1:
            self._refuse("qnoise_factor must be 1; below it QKeras mixes the unquantised value into the result")
        if o.get("training"):
            self._refuse("training=True draws random numbers; only the inference form converts")
        if o.get("elements_per_scale") is not None:
            self._refuse("elements_per_scale is not supported; only one scale for each channel of the last axis")
        if o.get("post_training_scale") is not None and not isinstance(alpha, str):
            self._refuse("post_training_scale needs alpha='auto' or 'auto_po2'")
        if isinstance(alpha, str) and o.get("threshold") is not None:
            self._refuse("threshold must be None where alpha is automatic")


def known_quantizers() -> list[str]:
    """Names of the quantizers of QKeras that can be read."""
    return sorted(QUANTIZERS)


# -------------------------------------------------------------------- reading


def read_quantizer(layer_name: str, raw: object) -> Quantizer | None:
    """Read a quantizer as a layer's config or a live layer holds it.

    Args:
        layer_name: Name of the layer, for messages.
        raw: None; a string such as ``"quantized_bits(6,0,alpha=1)"`` or ``"binary"``; a config dictionary of
            Keras 2 or 3; or a QKeras object, whose attributes say more than its config (QKeras leaves out
            scale_axis, is_quantized_clip, use_real_sigmoid of bernoulli, and others).

    Returns:
        The quantizer, or None for None.

    Raises:
        UnsupportedLayerError: It is unknown, or its options cannot be read.
    """
    if raw is None:
        return None
    if isinstance(raw, str):
        name, options = _parse_call(layer_name, raw)
        return Quantizer(name, options, layer_name)
    if isinstance(raw, Mapping):
        config, class_name = raw.get("config"), raw.get("class_name")
        if isinstance(config, str):  # Keras 3 wraps a function: {"class_name": "function", "config": "hard_tanh"}
            return read_quantizer(layer_name, config)
        if isinstance(class_name, str):
            return Quantizer(class_name.rsplit(">", 1)[-1], dict(config or {}), layer_name)
    elif isinstance(raw, type) or callable(raw):
        known = QUANTIZERS[type(raw).__name__].options if type(raw).__name__ in QUANTIZERS else {}
        found = {option: getattr(raw, option) for option in known if hasattr(raw, option)}
        return Quantizer(getattr(raw, "__name__", type(raw).__name__), found, layer_name)
    raise UnsupportedLayerError(f"layer {layer_name!r}: cannot read its quantizer {raw!r}")


def _parse_call(layer: str, text: str) -> tuple[str, dict[str, Any]]:
    """Read ``name`` or ``name(1, key=literal)``; arrays may be spelled as numpy prints them."""
    spelled = re.sub(r"(?<=[\d.\]])\s+(?=[-+\d.\[])", ",", text.strip())
    try:
        tree = ast.parse(spelled, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        name = ast.unparse(call.func).rsplit(".", 1)[-1]
        args = [ast.literal_eval(a) for a in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise UnsupportedLayerError(
            f"layer {layer!r}: cannot read the quantizer {text!r}; write it as 'quantized_bits(6, 0, alpha=1)', "
            "with plain numbers, strings and lists"
        ) from None
    known = list(QUANTIZERS[name].options) if name in QUANTIZERS else [f"argument {i}" for i in range(len(args))]
    if len(args) > len(known):
        raise UnsupportedLayerError(f"layer {layer!r}: quantizer {text!r} has more than {len(known)} arguments")
    by_place = dict(zip(known, args, strict=False))
    twice = sorted(by_place.keys() & named)
    if twice:
        raise UnsupportedLayerError(f"layer {layer!r}: quantizer {text!r} gives {twice[0]!r} twice")
    return name, by_place | named


def _plain(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):  # Keras 3: {"class_name": "__numpy__", "config": {"value": ..., "dtype": ...}}
        inner = value.get("config", value)
        if not isinstance(inner, Mapping) or "value" not in inner:
            raise ValueError
        return _plain(inner["value"])
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 1:
        raise ValueError
    plain = array.tolist()
    return tuple(plain) if array.ndim else plain


# -------------------------------------------------------------------- types and value sets


def _rounded(width: int, integer: int, signed: bool = True, symmetric: object = False) -> FixedType:
    overflow = Overflow.SAT_SYM if symmetric and signed else Overflow.SAT
    return FixedType(width, integer, signed, Rounding.RND_CONV, overflow)


def _smallest_type(values: npt.ArrayLike) -> FixedType | None:
    """Return the smallest type that holds all these values, or None if it has more than 64 bits."""
    kept = exact_type(values, MAX_PARSED_WIDTH)
    return None if kept.overflow is Overflow.SAT else kept  # which is how it shows that it is not exact


def _levels_type(q: Quantizer) -> FixedType:
    """The type of a step function; QKeras decides by thresholds, so nothing rounds or saturates."""
    response = q._response
    kept = _smallest_type(response.levels) if isinstance(response, Steps) else None
    if kept is None:
        q._refuse(f"its values need more than {MAX_PARSED_WIDTH} bits; give it fewer bits or a max_value")
    return kept


def _linear_type(q: Quantizer) -> FixedType:
    """Type of quantized_bits, quantized_linear and quantized_hswish."""
    signed = bool(q.options.get("keep_negative", True))
    if isinstance(q["alpha"], str) and q.name != "quantized_linear":
        # The automatic scale of quantized_bits keeps signs and is symmetric, whatever keep_negative says.
        return _rounded(q["bits"], q["integer"] + signed, symmetric=True)
    if _is_sign(q):
        return _levels_type(q)
    return _rounded(q["bits"], q["integer"] + signed, signed, q["symmetric"])


def _relu_type(q: Quantizer) -> FixedType:
    slope = q["negative_slope"]
    if slope == 0:
        return _rounded(q["bits"], q["integer"], signed=False)
    more = max(0, int(np.log2(slope)))  # a slope above 1 reaches further down than up
    return _rounded(q["bits"] + more, q["integer"] + 1 + more)


# -------------------------------------------------------------------- functions, without alpha


def _is_sign(q: Quantizer) -> bool:
    return q["bits"] == 1 and bool(q.options.get("keep_negative", True))


def _linear_response(q: Quantizer) -> Activation:
    if not _is_sign(q):
        return Convert()
    if q.name == "quantized_bits":
        return _sign(-1.0, 1.0)
    # quantized_linear rounds x/scale - 1/2, and that difference reaches -1/2 a little below zero.
    half = 2.0 ** (q["integer"] - 1)
    return Steps(thresholds=(-(2.0**-24) * half,), levels=(-half, half), inclusive=(True,))


def _sign(low: float, high: float) -> Steps:
    return Steps(thresholds=(0.0,), levels=(low, high), inclusive=(True,))


def _binary_response(q: Quantizer) -> Activation:
    return _sign(0.0 if q.options.get("use_01") else -1.0, 1.0)


def _ternary_response(q: Quantizer) -> Activation:
    threshold = 0.33 if q["threshold"] is None else q["threshold"]
    if not isinstance(threshold, (int, float)):
        q._refuse(f"threshold={threshold!r} must be a number where alpha is not automatic")
    t = max(float(np.float32(threshold)), 0.0)
    return Steps(thresholds=(-t, t), levels=(-1.0, 0.0, 1.0), inclusive=(False, True))


def _relu_response(q: Quantizer) -> Activation:
    slope, bits = float(q["negative_slope"]), q["bits"]
    if q["use_sigmoid"]:
        q._refuse("use_sigmoid is not supported: its highest value is off the grid of its other values")
    if slope < 0 or (slope and np.log2(slope) % 1):
        q._refuse(f"negative_slope={slope} must be zero or a power of two")
    step = 2.0 ** (q["integer"] - bits + (slope != 0))
    end = 2.0 ** q["integer"]
    if 0 < slope * end < step:
        q._refuse(f"negative_slope={slope} is below the step of its {bits} bits; give a larger one, or 0")
    upper = end - step if slope > 1 else None
    bound = q["relu_upper_bound"]
    if bound and not q["is_quantized_clip"] and bound < end - step:
        if bound < 0 or bound % step:
            q._refuse(f"relu_upper_bound={bound} must be a multiple of its step, {step}; QKeras does not round it")
        upper = float(bound)
    return Rectify(slope, upper, -slope * end if slope else None)


def _tanh_response(q: Quantizer) -> Activation:
    return Table("tanh", _tanh) if q["use_real_tanh"] else Convert()


def _sigmoid_response(q: Quantizer) -> Activation:
    lowest = 2.0 ** -q["bits"] if q["symmetric"] else None
    if q["use_real_sigmoid"]:
        return Table("sigmoid", functools.partial(_sigmoid, lowest=lowest or 0.0))
    return Affine(scale=0.5, bias=0.5, lower_bound=lowest)


def _hswish_response(q: Quantizer) -> Activation:
    shift, bound = q["relu_shift"], q["relu_upper_bound"]
    if not shift > 0 or not bound > 0:
        q._refuse("relu_shift and relu_upper_bound must be above zero")
    if q["bits"] == 1:
        q._refuse("with 1 bit it is the sign of x; use binary()")
    return Table("hard_swish", functools.partial(_hard_swish, shift=np.float32(shift), bound=np.float32(bound)))


def _tanh(x: npt.ArrayLike) -> Float32:
    return np.tanh(np.asarray(x, dtype=np.float64)).astype(np.float32)


def _sigmoid(x: npt.ArrayLike, lowest: float) -> Float32:
    halved = np.tanh(np.asarray(x, dtype=np.float64) / 2)  # exp would overflow
    return np.maximum(0.5 + 0.5 * halved, lowest).astype(np.float32)


def _hard_swish(x: npt.ArrayLike, shift: np.float32, bound: np.float32) -> Float32:
    number: Float32 = np.asarray(x, dtype=np.float32)
    rectified: Float32 = number * np.clip(number + shift, np.float32(0), bound) / bound
    return rectified


def _no_response(why: str) -> Callable[[Quantizer], NoReturn]:
    def refuse(q: Quantizer) -> NoReturn:
        q._refuse(why)

    return refuse


# -------------------------------------------------------------------- powers of two


@dataclass(frozen=True)
class _Exponents:
    """How QKeras picks the exponent of a power of two."""

    lowest: int
    highest: int
    max_value: float | None
    quadratic: bool
    floor: bool

    def __call__(self, magnitude: Float32) -> Float32:
        x = np.maximum(magnitude, _EPSILON)
        if self.max_value is not None:
            x = np.minimum(x, np.float32(self.max_value))
        with np.errstate(divide="ignore"):
            log2 = np.log(np.sqrt(x) if self.quadratic else x) / _LOG2
        picked = np.clip(np.floor(log2) if self.floor else np.rint(log2), self.lowest, self.highest)
        # What lies below epsilon gets the lowest exponent, which the quadratic form does not double here.
        return np.where(magnitude < _EPSILON, np.float32(self.lowest), (1 + self.quadratic) * picked)


def _exponents(q: Quantizer, sign_bits: int) -> _Exponents:
    limit = q["max_value"]
    if limit is not None and limit < 0:
        q._refuse("max_value must not be negative")
    if q["log2_rounding"] not in ("rnd", "floor"):
        q._refuse(f"log2_rounding={q['log2_rounding']!r} must be 'rnd' or 'floor'")
    bits = q["bits"] - sign_bits - (limit is None or limit > 1)  # one bit for the sign of the exponent
    if bits < 0:
        q._refuse(f"{q['bits']} bits leave none for the exponent")
    if bits > 8:
        q._refuse(f"exponents of {bits} bits are out of the range of float32; give it fewer bits")
    quadratic = bool(q["quadratic_approximation"])
    highest = 2**bits - 1
    highest = highest // 2 * 2 if quadratic else highest
    floor = q["log2_rounding"] == "floor"
    if quadratic and not floor and limit and np.log2(limit) % 2 == 1:
        q._refuse(
            f"max_value={limit} lies exactly between two even powers, where QKeras' answer depends on the place of a "
            "value in its array; double or halve it"
        )
    return _Exponents(-(2**bits), highest, None if limit is None else float(limit), quadratic, floor)


@functools.lru_cache(maxsize=256)
def _powers(exponents: _Exponents) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return thresholds and levels of the magnitude, from zero up.

    A threshold is the smallest float32 that QKeras' float32 logarithm takes to the next exponent. The logarithm here
    is numpy's. Its last bit can differ from TensorFlow's, which itself differs between full vectors and the rest of
    an array; that moves a threshold by at most 8 units in the last place, or 16 with ``log2_rounding="floor"``.
    """
    bits_of = functools.partial(np.ndarray.view, dtype=np.int32)
    first = int(bits_of(np.array(_EPSILON)))
    last = int(bits_of(np.array(np.finfo(np.float32).max)))

    def exponent(bits: int) -> float:
        return float(exponents(np.array(bits, dtype=np.int32).view(np.float32)))

    step = 1 + exponents.quadratic
    thresholds, picked = [float(_EPSILON)], [float(exponents.lowest), exponent(first)]
    while picked[-1] < exponent(last):
        start = bisect.bisect_left(range(first, last), picked[-1] + step, key=exponent)
        thresholds.append(float(np.array(first + start, dtype=np.int32).view(np.float32)))
        picked.append(exponent(first + start))
    if picked[0] == picked[1]:
        del thresholds[0], picked[0]
    return tuple(thresholds), tuple(2.0**e for e in picked)


def _po2_response(q: Quantizer) -> Activation:
    thresholds, levels = _powers(_exponents(q, sign_bits=1))
    return _two_sided(thresholds, levels, 1.0)


def _relu_po2_response(q: Quantizer) -> Activation:
    """A ReLU that never gives zero: without a slope, everything below epsilon becomes the smallest power."""
    slope = float(q["negative_slope"])
    if slope < 0 or (slope and np.log2(slope) % 1):
        q._refuse(f"negative_slope={slope} must be zero or a power of two")
    thresholds, levels = _powers(_exponents(q, sign_bits=0))
    if slope == 0:
        return Steps(thresholds, levels, (True,) * len(thresholds))
    return _two_sided(thresholds, levels, slope)


def _two_sided(thresholds: Sequence[float], levels: Sequence[float], slope: float) -> Steps:
    down = tuple(-t / slope for t in reversed(thresholds))
    return Steps(
        thresholds=(*down, 0.0, *thresholds),
        levels=(*(-v for v in reversed(levels)), *levels),
        inclusive=(*(False for _ in down), True, *(True for _ in thresholds)),
    )


# -------------------------------------------------------------------- automatic scales


def _axes(q: Quantizer, x: Float32) -> tuple[int, ...]:
    """The axes that share a scale: all but `scale_axis`, which is the last one unless it is given."""
    kept = q.options.get("scale_axis")
    if kept is None:
        return tuple(range(x.ndim - 1))
    keep = kept if isinstance(kept, tuple) else (kept,)
    if not all(isinstance(k, int) and 0 <= k < x.ndim for k in keep):
        q._refuse(f"scale_axis={kept!r} must be 0 to {x.ndim - 1} for weights of shape {x.shape}")
    return tuple(a for a in range(x.ndim) if a not in keep)


def _mean(x: Float32, axes: tuple[int, ...]) -> Float32:
    if axes == tuple(range(x.ndim - 1)):
        # Row by row, the order in which TensorFlow adds small arrays.
        rows = x.reshape(-1, x.shape[-1])
        mean: Float32 = rows.mean(axis=0, dtype=np.float32).reshape((1,) * len(axes) + (-1,))
    else:
        mean = x.mean(axis=axes, keepdims=True, dtype=np.float32)
    return mean


def _power_of_two(scale: Float32) -> Float32:
    """The power of two next to a scale, on the logarithmic axis."""
    power: Float32 = np.exp2(np.rint(np.log(scale + _EPSILON) / _LOG2)).astype(np.float32)
    return power


def _least_squares(q: Quantizer, x: Float32, codes: Float32, axes: tuple[int, ...]) -> Float32:
    """The scale with the least squared error; of a vector every element gets its own."""
    if x.ndim > 1:
        scale = _mean(x * codes, axes) / (_mean(codes * codes, axes) + _EPSILON)
    else:
        scale = x * codes / (codes * codes + _EPSILON)
    if q["alpha"] != "auto_po2":
        return scale
    scale = _power_of_two(scale)
    low, high = q.options.get("min_po2_exponent"), q.options.get("max_po2_exponent")
    clipped: Float32 = _clip(scale, None if low is None else 2.0**low, None if high is None else 2.0**high)
    return clipped


def _auto_bits(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of quantized_bits: the largest magnitude gets the largest code."""
    x = q._response(x) if q.name == "quantized_hswish" else x
    axes = _axes(q, x) if x.ndim > 1 else (0,)
    m_i = np.float32(2.0 ** q["integer"])
    m = np.float32(2.0 ** (q["bits"] - bool(q.options.get("keep_negative", True))))
    highest = np.float32(2 ** (q["bits"] - 1) - 1)
    x = x / m_i

    def codes(scale: Float32) -> Float32:
        magnitude = np.floor(np.abs(x) / scale + np.float32(0.5))
        signed: Float32 = np.sign(x) * np.where(magnitude < highest, magnitude, highest)
        return signed

    if q["post_training_scale"] is not None:
        scale = np.asarray(q["post_training_scale"], dtype=np.float32) / m
    else:
        scale = np.max(np.abs(x), axis=axes, keepdims=True) * 2 / (highest * 2)
        if q["alpha"] == "auto_po2":
            scale = _power_of_two(scale)
            for _ in range(_PO2_ITERATIONS):
                least_axes = axes if x.ndim > 1 else ()
                scale = _least_squares(q, x, codes(scale), least_axes)
    return m_i * codes(scale) / m, scale * m


def _auto_linear(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of quantized_linear, which never clips the largest magnitude but of a power of two."""
    signed, sign = bool(q["keep_negative"]), _is_sign(q)
    high = np.float32(0.5 if sign else 2.0 ** (q["bits"] - signed) - 1)
    low = np.float32(-0.5 if sign else -signed * (high + 1 - bool(q["symmetric"])))
    shift = np.float32(0.5 if sign else 0.0)
    unit = np.float32(2.0 ** (q["integer"] - q["bits"] + signed))
    axes = _axes(q, x)

    def codes(scale: Float32) -> Float32:
        rounded: Float32 = np.rint(np.clip(x / scale, low, high) - shift) + shift
        return rounded

    largest = np.max(np.abs(x), axis=axes, keepdims=True) * 2 if signed else np.max(x, axis=axes, keepdims=True)
    scale = np.maximum(largest / (high - low), _EPSILON)
    if q["alpha"] == "auto_po2":
        scale = _power_of_two(scale)
        for _ in range(1 if sign else _PO2_ITERATIONS):
            scale = _least_squares(q, x, codes(scale), axes)
    return codes(scale) * unit, scale / unit


def _auto_binary(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    codes = q._response(x)
    return codes, _least_squares(q, x, codes, _axes(q, x))


def _auto_ternary(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of ternary: threshold and scale are found in turns."""
    axes = tuple(range(x.ndim - 1))
    scale = 2 * np.max(np.abs(x), axis=axes if x.ndim > 1 else None, keepdims=True) / np.float32(3)
    scale = _power_of_two(scale) if q["alpha"] == "auto_po2" else scale
    codes = np.zeros_like(x)
    if q["number_of_unrolls"] < 1:
        q._refuse("number_of_unrolls must be 1 or more")
    for _ in range(q["number_of_unrolls"]):
        scaled = x / scale
        # Written as QKeras' straight-through rounding, which turns the infinity of a zero scale into NaN.
        rounded = scale * (scaled + (np.rint(scaled) - scaled))
        codes = (np.abs(rounded) >= scale / 2) * np.sign(x)
        scale = _least_squares(q, x, codes, axes)
    return codes, scale


def _no_auto(q: Quantizer, x: Float32) -> NoReturn:
    q._refuse("it has no automatic alpha")


# -------------------------------------------------------------------- the table


@dataclass(frozen=True)
class _Kind:
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
    auto: Callable[[Quantizer, Float32], tuple[Float32, Float32]] = _no_auto
    powers: bool = False


def _tail(**options: Any) -> dict[str, Any]:
    """The options that most classes end with."""
    return {"qnoise_factor": 1.0, "var_name": None, **options}


_SCALES = {"elements_per_scale": None, "min_po2_exponent": None, "max_po2_exponent": None}
_STE = {"use_ste": True, "use_variables": False}
_STOCHASTIC = {"alpha": None, "temperature": 6.0, "use_real_sigmoid": True}

QUANTIZERS: Mapping[str, _Kind] = {
    "quantized_bits": _Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "keep_negative": True, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(**_STE)
        | _SCALES
        | {"post_training_scale": None},
        _linear_type,
        _linear_response,
        _auto_bits,
    ),
    "quantized_linear": _Kind(
        {"bits": 8, "integer": 0, "symmetric": 1, "keep_negative": True, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(use_variables=False),
        _linear_type,
        _linear_response,
        _auto_linear,
    ),
    "quantized_hswish": _Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "alpha": None}
        | {"use_stochastic_rounding": False, "scale_axis": None}
        | _tail(use_variables=False, relu_shift=3, relu_upper_bound=6, keep_negative=True, post_training_scale=None),
        _linear_type,
        _hswish_response,
        _auto_bits,
    ),
    "quantized_relu": _Kind(
        {"bits": 8, "integer": 0, "use_sigmoid": 0, "negative_slope": 0.0, "use_stochastic_rounding": False}
        | {"relu_upper_bound": None, "is_quantized_clip": True}
        | _tail(**_STE, enable_fast_inference=False),
        _relu_type,
        _relu_response,
    ),
    "quantized_tanh": _Kind(
        {"bits": 8, "use_stochastic_rounding": False, "symmetric": False, "use_real_tanh": False},
        lambda q: _rounded(q["bits"], 1, symmetric=q["symmetric"]),
        _tanh_response,
    ),
    "quantized_sigmoid": _Kind(
        {"bits": 8, "symmetric": False, "use_real_sigmoid": False, "use_stochastic_rounding": False},
        lambda q: _rounded(q["bits"], 0, signed=False),
        _sigmoid_response,
    ),
    "quantized_ulaw": _Kind(
        {"bits": 8, "integer": 0, "symmetric": 0, "u": 255.0},
        _no_response(_ULAW := "QKeras does not round its logarithms to a grid, so no type holds its values"),
        _no_response(_ULAW),
    ),
    "quantized_po2": _Kind(
        {"bits": 8, "max_value": None, "use_stochastic_rounding": False, "quadratic_approximation": False}
        | {"log2_rounding": "rnd"}
        | _tail(**_STE),
        _levels_type,
        _po2_response,
        powers=True,
    ),
    "quantized_relu_po2": _Kind(
        {"bits": 8, "max_value": None, "negative_slope": 0, "use_stochastic_rounding": False}
        | {"quadratic_approximation": False, "log2_rounding": "rnd"}
        | _tail(**_STE),
        _levels_type,
        _relu_po2_response,
        powers=True,
    ),
    "binary": _Kind(
        {"use_01": False, "alpha": None, "training": False, "use_stochastic_rounding": False, "scale_axis": None}
        | _SCALES,
        _levels_type,
        _binary_response,
        _auto_binary,
    ),
    "stochastic_binary": _Kind(_STOCHASTIC, _levels_type, _binary_response, _auto_binary),
    "ternary": _Kind(
        {"alpha": None, "threshold": None, "use_stochastic_rounding": False, "number_of_unrolls": 5},
        lambda q: FixedType(2, 2),
        _ternary_response,
        _auto_ternary,
    ),
    "stochastic_ternary": _Kind(
        {"alpha": None, "threshold": None, "temperature": 8.0, "use_real_sigmoid": True, "number_of_unrolls": 5},
        lambda q: FixedType(2, 2),
        _ternary_response,
        _auto_ternary,
    ),
    "bernoulli": _Kind(
        _STOCHASTIC,
        _no_response(_CHANCE := "QKeras draws random numbers at inference too; use binary(use_01=True) for its mean"),
        _no_response(_CHANCE),
    ),
}
