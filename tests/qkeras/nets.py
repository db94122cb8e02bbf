"""Random quantised networks over all layers, quantizers and forms of alpha."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WEIGHTS_PER_ARCHITECTURE = 8
SHUFFLES = 4
INPUT_TYPES = (
    "ap_fixed<6,3,AP_RND,AP_SAT>",
    "ap_fixed<8,3>",
    "ap_ufixed<7,3,AP_TRN,AP_SAT>",
    "ap_fixed<10,4,AP_RND_CONV,AP_SAT>",
    "ap_fixed<16,6>",
)


@dataclass(frozen=True)
class Choice:
    """One random network; those of one architecture share what was compiled, unless their scales need other types."""

    architecture: int
    seed: int

    @property
    def input_type(self) -> str:
        """What the input layer quantises to."""
        return INPUT_TYPES[self.architecture % len(INPUT_TYPES)]


def choices(count: int) -> list[Choice]:
    """Return `count` networks, ordered by architecture."""
    return [Choice(n // WEIGHTS_PER_ARCHITECTURE, n) for n in range(count)]


def build(architecture: int, keras: Any = None) -> Any:
    """Return the live QKeras model of one to four layers that has this number, to be given weights.

    `keras` is the Keras that the installed QKeras extends, if it is not Keras 3.
    """
    if keras is None:
        import keras
    return _Architect(architecture, keras).model()


def randomise(model: Any, seed: int) -> None:
    """Give all layers weights, partly on a grid and partly beyond what their quantizers hold.

    Of SHUFFLES seeds that follow each other, all but the first shuffle the inputs of the first one's weights: the
    network is another, and what is derived of all weights of a channel, scales and so types, is mostly the same.
    """
    random, shuffle = np.random.default_rng(seed - seed % SHUFFLES), np.random.default_rng(seed)
    adaptive = False
    for layer in model.layers:
        if type(layer).__name__ == "QAdaptiveActivation":
            adaptive = True
            low, high = -random.uniform(0, 5), random.uniform(0.1, 9)
            layer.ema_min.assign(np.full(layer.ema_min.shape, low))
            layer.ema_max.assign(np.full(layer.ema_max.shape, high))
            continue
        if not layer.get_weights():
            continue
        rough = bool(random.integers(2))
        arrays = [_array(random, _name(w), w.shape, rough, getattr(layer, "epsilon", None)) for w in layer.weights]
        layer.set_weights([_shuffled(array, shuffle) for array in arrays] if seed % SHUFFLES else arrays)
    if adaptive:  # counts its bits at the end of a call, for the next one
        model(np.zeros((1, *model.input_shape[1:]), dtype=np.float32), training=False)


def _shuffled(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return array if array.ndim < 2 else random.permutation(array.reshape(-1, array.shape[-1])).reshape(array.shape)


def _name(weight: Any) -> str:
    return str(getattr(weight, "path", weight.name)).rpartition("/")[2].partition(":")[0]


def _array(random: np.random.Generator, name: str, shape: Any, rough: bool, epsilon: float | None) -> np.ndarray:
    """Return random values; `rough` ones are normal floats, the others have few bits, and variances an exact root."""
    shape = tuple(shape)
    if "iteration" in name or name == "variable":
        return np.zeros(shape)
    if "variance" in name:
        values = random.uniform(0.1, 3, shape) if rough else 4.0 ** random.integers(-1, 2, shape) - (epsilon or 1e-3)
    elif "gamma" in name:
        values = random.uniform(0.3, 2, shape) if rough else 2.0 ** random.integers(-1, 2, shape)
        values = values * random.choice([1.0, 1.0, 1.0, -1.0], shape)
    elif rough:
        values = random.normal(size=shape)
    else:
        values = np.round(random.normal(size=shape) * 32) / 32
    return np.asarray(values, dtype=np.float32)


def samples(shape: tuple[int, ...], seed: int, count: int = 40) -> np.ndarray:
    """Return inputs on the grid of the input's type and off it, and beyond its range at either end."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, *shape)) * 2
    x[: count // 2] = np.round(x[: count // 2] * 1024) / 1024
    x[-2], x[-1] = 100.0, -100.0
    return x.astype(np.float32)


def _spelled(value: Any) -> str:
    """Return a value as QKeras reads it in a string: numbers of a list stand between spaces."""
    return str(value).replace(",", "") if isinstance(value, list) else repr(value)


class _Architect:
    """Draws the quantizers and the layers of one model."""

    def __init__(self, number: int, keras: Any) -> None:
        import qkeras

        self.random = np.random.default_rng(number)
        self.keras, self.qkeras = keras, qkeras
        self.old = keras.__version__.startswith("2")  # QKeras 0.9, which can do less
        # most networks have few bits: those are the ones that Keras computes without rounding
        self.most_bits = int(self.random.choice([3, 4, 5, 6, 12]))
        self.exact_alpha = bool(self.random.integers(4))
        self.number = 0

    # ***** drawing *****

    def pick(self, *items: Any) -> Any:
        return items[int(self.random.integers(len(items)))]

    def bits(self) -> tuple[int, int]:
        """Return (bits, integer bits)."""
        bits = int(self.random.integers(2, self.most_bits + 1))
        return bits, max(int(self.random.integers(-1, min(5, bits))), 0 if self.old else -1)

    def form(self, name: str, **options: Any) -> Any:
        """Return a quantizer as an object, a string or a config dictionary."""
        form = int(self.random.integers(3))
        name = "quantized_bits" if self.old and name == "quantized_linear" else name
        if any(isinstance(v, list) and len(v) == 1 for v in options.values()):
            form = 2  # QKeras reads no list of one number in a string
        if form == 0:
            return f"{name}({','.join(f'{k}={_spelled(v)}' for k, v in options.items() if v is not None)})"
        if form == 1 and not self.old:  # Keras 2 cannot copy a layer that holds one
            return {"class_name": name, "config": json.loads(json.dumps(options))}
        return getattr(self.qkeras, name)(**options)

    def alpha(self, channels: int | None, automatic: bool = True) -> Any:
        """Return one of the forms of alpha: one per channel only for weights with `channels` on the last axis."""
        exact = [1, 1, 0.5, 2.0] + (["auto_po2", None] if automatic else [])
        rounded = [0.3] + (["auto"] if automatic else [])
        if channels:
            exact.append((2.0 ** self.random.integers(-2, 2, channels)).tolist())
            rounded.append(np.round(self.random.uniform(0.2, 2, channels), 3).tolist())
        return self.pick(*exact) if self.exact_alpha else self.pick(*exact, *rounded, *rounded)

    def weights(self, channels: int | None) -> Any:
        """Return a quantizer of a kernel."""
        bits, integer = self.bits()
        which = str(
            self.pick(
                *["quantized_bits"] * 4, *["quantized_linear"] * 2, "quantized_po2", "quantized_relu_po2", "binary",
                "stochastic_binary", "ternary", "stochastic_ternary", "quantized_relu", "quantized_tanh",
                "quantized_sigmoid", "quantized_hswish",
            )
        )  # fmt: skip
        match which:
            case "quantized_bits" | "quantized_linear":
                # of no other quantizer can QKeras build a layer with one alpha per channel
                alpha = self.alpha(channels if which == "quantized_bits" else None)
                automatic = alpha is None or isinstance(alpha, str)
                negative = automatic or bool(self.random.integers(4))
                symmetric = 1 if automatic else int(self.random.integers(2))
                return self.form(
                    which, bits=bits, integer=integer, symmetric=symmetric, keep_negative=negative, alpha=alpha
                )
            case "binary" | "stochastic_binary" | "ternary" | "stochastic_ternary":
                return self.form(which, alpha=self.alpha(None))
            case "quantized_hswish":
                return self.qkeras.quantized_hswish(bits, integer, alpha=1)
            case "quantized_po2":
                return self.form(which, bits=min(bits, 4), max_value=self.pick(None, 1, 2))
            case "quantized_relu_po2":
                return self.form(which, bits=min(bits, 3), max_value=self.pick(None, 2))
            case "quantized_relu":
                return self.form(which, bits=bits, integer=max(integer, 0))
        return self.form(which, bits=bits, symmetric=bool(self.random.integers(2)))

    def bias(self) -> dict[str, Any]:
        """Return the settings of a bias."""
        if not self.random.integers(6):
            return {"use_bias": False}
        return {"bias_quantizer": self.bias_quantizer()}

    def bias_quantizer(self) -> Any:
        bits, integer = self.bits()
        which = self.pick(*["quantized_bits"] * 4, "quantized_linear", "quantized_po2", "ternary", "binary")
        if which == "quantized_po2":
            return self.form(which, bits=min(bits, 4))
        if which in ("ternary", "binary"):
            return self.form(which, alpha=self.pick(1, 0.5))
        return self.form(which, bits=bits, integer=integer, alpha=self.pick(1, 1, 0.5, "auto_po2"), symmetric=1)

    def activation(self) -> Any:
        """Return a quantizer of a tensor."""
        bits, integer = self.bits()
        which = str(
            self.pick(
                *["quantized_relu"] * 4, *["quantized_bits"] * 3, "quantized_linear", "quantized_tanh",
                "quantized_sigmoid", "quantized_po2", "quantized_relu_po2", "binary", "stochastic_binary", "ternary",
                "stochastic_ternary", "quantized_hswish",
            )
        )  # fmt: skip
        match which:
            case "quantized_relu":
                return self.rectifier(bits, max(integer, 0))
            case "quantized_bits" | "quantized_linear":
                return self.form(
                    which,
                    bits=bits,
                    integer=integer,
                    symmetric=int(self.random.integers(2)),
                    keep_negative=bool(self.random.integers(4)),
                    alpha=self.pick(1, 1, None, None, *self.factors()),
                )
            case "quantized_tanh" | "quantized_sigmoid":
                return self.form(which, bits=bits, symmetric=bool(self.random.integers(2)))
            case "quantized_hswish":
                # with many more steps it is a table that rounds its input, with a warning
                bits, integer = min(bits, 5), min(integer, 2)
                shift, bound = self.pick((2, 4), (2, 4), (3, 6))
                return self.qkeras.quantized_hswish(bits, integer, alpha=1, relu_shift=shift, relu_upper_bound=bound)
            case "quantized_po2":
                return self.form(which, bits=min(bits, 4), max_value=self.pick(None, 1, 2))
            case "quantized_relu_po2":
                slope = self.pick(0, 0.25)
                return self.form(which, bits=min(bits, 3), max_value=self.pick(None, 2), negative_slope=slope)
        more = {"binary": {"use_01": bool(self.random.integers(2))}, "ternary": {"threshold": self.pick(None, 0.5)}}
        return self.form(which, alpha=self.pick(1, 1, None, *self.factors()), **more.get(which, {}))

    def factors(self) -> list[float]:
        """Return numbers that alpha may be."""
        return [0.5, 2.0] if self.exact_alpha else [0.5, 2.0, 0.3]

    def rectifier(self, bits: int, integer: int) -> Any:
        slope = self.pick(0.0, 0.0, 0.25, 0.5, 2.0, 2.0**-5)
        match int(self.random.integers(6)):
            case 0:
                bound = float(self.random.uniform(0.1, 1) * 2.0**integer)
                if self.exact_alpha:
                    bound = np.ceil(bound * 16) / 16
                return self.qkeras.quantized_relu(
                    bits, integer, negative_slope=slope, relu_upper_bound=bound, is_quantized_clip=False
                )
            case 1:
                return self.form("quantized_relu", bits=bits, integer=integer, use_sigmoid=1)
        return self.form("quantized_relu", bits=bits, integer=integer, negative_slope=slope)

    # ***** building *****

    def name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}_{self.number}"

    def model(self) -> Any:
        rank = self.pick(1, 2, 3, 3)
        shape = {1: (6,), 2: (8, 2), 3: (6, 6, 2)}[rank]
        x = inputs = self.keras.Input(shape, name="x")
        count = int(self.random.integers(1, 5))
        for number in range(count):
            last = number == count - 1
            x = self.block(x, last)
        if not self.random.integers(4):
            x = self.flat(x)
            x = self.keras.layers.Activation("softmax", name="softmax")(x)
        return self.keras.Model(inputs, x)

    def flat(self, x: Any) -> Any:
        return x if len(x.shape) == 2 else self.keras.layers.Flatten(name=self.name("flatten"))(x)

    def block(self, x: Any, last: bool) -> Any:
        """Return a layer of weights with what follows it; the last one may stay unquantised."""
        skip = x if not last and not self.random.integers(6) else None
        x = self.weighted(x)
        if not self.random.integers(4):
            x = self.normalisation(x)
        if last and self.random.integers(2):
            return x
        x = self.activated(x)
        if skip is not None:
            x = self.merged(x, skip)
        return self.pooled(x) if not self.random.integers(3) else x

    def activated(self, x: Any) -> Any:
        if not self.random.integers(8):
            options = {"po2_rounding": bool(self.random.integers(2)), "symmetric": bool(self.random.integers(2))}
            kind = self.pick("quantized_relu", "quantized_bits")
            if kind == "quantized_relu":
                options["relu_neg_slope"] = self.pick(0.0, 0.5)
            layer = self.qkeras.QAdaptiveActivation(
                kind, max(self.bits()[0], 3), current_step=9, ema_freeze_delay=2, name=self.name("adaptive"), **options
            )
            return layer(x)
        return self.qkeras.QActivation(self.activation(), name=self.name("act"))(x)

    def merged(self, x: Any, skip: Any) -> Any:
        """Join a tensor with an earlier one, where their shapes allow it."""
        if tuple(x.shape) == tuple(skip.shape) and self.random.integers(2):
            return self.keras.layers.Add(name=self.name("add"))([x, skip])
        if tuple(x.shape[:-1]) == tuple(skip.shape[:-1]):
            return self.keras.layers.Concatenate(name=self.name("concatenate"))([x, skip])
        return x

    def weighted(self, x: Any) -> Any:
        makers: dict[int, tuple[Callable[[Any], Any], ...]] = {
            2: (self.dense, self.dense, self.dense, self.dense_batchnorm),
            3: (self.conv_1d, self.conv_1d, self.separable_1d, self.dense, self.recurrent),
            4: (self.conv_2d, self.conv_2d, self.depthwise, self.separable_2d, self.transpose, self.conv_batchnorm,
                self.depthwise_batchnorm),
        }  # fmt: skip
        if len(x.shape) > 2 and not self.random.integers(5):
            x = self.flat(x)
        # QKeras 0.9 does not have the first, and calls what today's TensorFlow no more has for the others
        missing = (self.dense_batchnorm, self.transpose, self.recurrent) if self.old else ()
        return self.pick(*(make for make in makers[len(x.shape)] if make not in missing))(x)

    def inside(self) -> dict[str, Any]:
        """Return the activation of a layer, which few have."""
        return {"activation": self.activation()} if not self.random.integers(6) else {}

    def dense(self, x: Any) -> Any:
        units = int(self.random.integers(2, 6))
        kernel = self.weights(units)
        return self.qkeras.QDense(
            units, kernel_quantizer=kernel, **self.bias(), **self.inside(), name=self.name("dense")
        )(x)

    def window(self, x: Any) -> dict[str, Any]:
        """Return strides and padding that leave something of an image."""
        small = min(int(n) for n in x.shape[1:-1]) < 3
        return {"padding": "same" if small else self.pick("same", "valid"), "strides": self.pick(1, 1, 2)}

    def conv_1d(self, x: Any) -> Any:
        options = self.bias() | self.inside() | self.window(x)
        return self.qkeras.QConv1D(3, 2, kernel_quantizer=self.weights(3), name=self.name("conv"), **options)(x)

    def conv_2d(self, x: Any) -> Any:
        options = self.bias() | self.inside() | self.window(x)
        size = self.pick(2, 3, (1, 2))
        return self.qkeras.QConv2D(3, size, kernel_quantizer=self.weights(3), name=self.name("conv"), **options)(x)

    def depthwise(self, x: Any) -> Any:
        multiplier = self.pick(1, 1, 2)
        options = self.bias() | self.inside() | self.window(x)
        return self.qkeras.QDepthwiseConv2D(
            2,
            depth_multiplier=multiplier,
            depthwise_quantizer=self.weights(multiplier),
            name=self.name("depthwise"),
            **options,
        )(x)

    def separable_1d(self, x: Any) -> Any:
        return self.separable(self.qkeras.QSeparableConv1D, x)

    def separable_2d(self, x: Any) -> Any:
        return self.separable(self.qkeras.QSeparableConv2D, x)

    def separable(self, layer: Any, x: Any) -> Any:
        options = self.bias() | self.inside() | self.window(x)
        kernels = {"depthwise_quantizer": self.weights(1), "pointwise_quantizer": self.weights(3)}
        return layer(3, 2, name=self.name("separable"), **kernels, **options)(x)

    def transpose(self, x: Any) -> Any:
        options = self.bias() | self.inside() | {"padding": self.pick("same", "valid"), "strides": self.pick(1, 2)}
        bits, integer = self.bits()
        kernel = self.form("quantized_bits", bits=bits, integer=integer, alpha=self.alpha(None, automatic=False))
        return self.qkeras.QConv2DTranspose(2, 3, kernel_quantizer=kernel, name=self.name("transpose"), **options)(x)

    def recurrent(self, x: Any) -> Any:
        layer = self.pick(self.qkeras.QSimpleRNN, self.qkeras.QLSTM, self.qkeras.QGRU)
        bits, integer = int(self.random.integers(2, 7)), int(self.random.integers(0, 2))
        options = {"activation": self.pick(f"quantized_tanh({bits})", f"quantized_relu({bits},{integer})")}
        if layer is not self.qkeras.QSimpleRNN:
            options["recurrent_activation"] = self.pick(f"quantized_sigmoid({bits})", "hard_sigmoid")
        if layer is self.qkeras.QGRU:
            options["reset_after"] = bool(self.random.integers(2))
        for role in ("kernel", "recurrent"):
            options[f"{role}_quantizer"] = self.form(
                "quantized_bits", bits=bits, integer=integer, alpha=self.alpha(None), symmetric=1
            )
        return layer(
            3,
            **options,
            **self.bias(),
            state_quantizer=self.form("quantized_bits", bits=bits, integer=1, alpha=1, symmetric=0),
            return_sequences=bool(self.random.integers(2)),
            go_backwards=not self.random.integers(4),
            name=self.name("recurrent"),
        )(x)

    def folded(self) -> dict[str, Any]:
        """Return the settings of a layer with a normalisation of its own."""
        return {
            "bias_quantizer": self.bias_quantizer(),
            "use_bias": bool(self.random.integers(2)),
            "folding_mode": self.pick("ema_stats_folding", "batch_stats_folding"),
            **self.inside(),
        }

    def dense_batchnorm(self, x: Any) -> Any:
        kernel = self.weights(4)
        return self.qkeras.QDenseBatchnorm(4, kernel_quantizer=kernel, name=self.name("dense_bn"), **self.folded())(x)

    def conv_batchnorm(self, x: Any) -> Any:
        options = self.folded() | self.window(x)
        return self.qkeras.QConv2DBatchnorm(
            3, 2, kernel_quantizer=self.weights(3), name=self.name("conv_bn"), **options
        )(x)

    def depthwise_batchnorm(self, x: Any) -> Any:
        options = self.folded() | self.window(x)
        return self.qkeras.QDepthwiseConv2DBatchnorm(
            2, depthwise_quantizer=self.weights(1), name=self.name("depthwise_bn"), **options
        )(x)

    def normalisation(self, x: Any) -> Any:
        name = self.name("bn")
        if self.random.integers(2):
            return self.keras.layers.BatchNormalization(epsilon=2.0**-10, name=name)(x)
        none = dict.fromkeys(("gamma_quantizer", "beta_quantizer", "mean_quantizer", "variance_quantizer"))
        if self.random.integers(2):
            return self.qkeras.QBatchNormalization(epsilon=2.0**-10, name=name, **none)(x)
        if self.random.integers(2) and not self.old:
            inverse = none | {"inverse_quantizer": self.form("quantized_bits", bits=8, integer=2, alpha=1, symmetric=0)}
            return self.qkeras.QBatchNormalization(epsilon=2.0**-10, name=name, **inverse)(x)
        return self.qkeras.QBatchNormalization(name=name)(x)

    def pooled(self, x: Any) -> Any:
        if len(x.shape) != 4 or min(int(n) for n in x.shape[1:3]) < 2:
            return x
        which = int(self.random.integers(4))
        bits = int(self.random.integers(4, 9))
        mean = self.form("quantized_bits", bits=bits, integer=0, alpha=1, symmetric=0)
        if which == 0:
            return self.qkeras.QAveragePooling2D(
                2, average_quantizer=mean, activation=self.pick(None, self.activation()), name=self.name("mean")
            )(x)
        if which == 1:
            return self.qkeras.QGlobalAveragePooling2D(average_quantizer=mean, name=self.name("global_mean"))(x)
        return self.keras.layers.MaxPooling2D(2, padding=self.pick("valid", "same"), name=self.name("pool"))(x)
