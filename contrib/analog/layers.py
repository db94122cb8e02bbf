"""Keras layers that multiply on the analog chip or its mock, and train by the host's linear model of it.

In Keras they are called AnalogDense and so on, as other packages' files name their own Dense; the package exports them
as analog.Dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from . import ops, transforms
from .devices import Device, MockDevice, hardware, method_of
from .errors import check, whole
from .parameters import INPUT_RANGE, WAIT_BETWEEN_EVENTS, WEIGHT_RANGE, MockParameter, parse_mock
from .transforms import Transform

register = keras.saving.register_keras_serializable("kconvert_analog")
register(MockParameter)  # an argument of calls, which functional models save
Mock = bool | MockParameter | Mapping[str, Any]
Transforms = tuple[Transform | None, Transform | None]
"""Those of inputs and of weights."""
How = tuple[int, int, Device, float, str]
"""How often inputs are sent, how far apart, on which device, with the gradient of which gain; and the layer's name."""

RELU_SHIFT = 1  # what initial weights reckon with
TYPICAL_WEIGHT = WEIGHT_RANGE[1] / 3


class AnalogLayer(keras.layers.Layer):  # type: ignore[misc]
    """What analog layers share: where they run.

    A layer keeps the MockParameter of the place where it was made, whose gain is also that of its gradient on a device.
    Like `trainable`, `mock` and `device` act on functions that TensorFlow traces from then on: a model that has been
    trained or evaluated is switched by :func:`use_device`, which has its functions traced anew.

    Args:
        mock: True for a mock with the current parameter, or the parameter; False for the chip.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, mock: Mock = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False  # events and weights are whole numbers, which half floats do not hold
        self.supports_jit = False  # a device is not compiled
        self._device: Device | None = None
        self._mock, self.parameter = parse_mock(mock, self._where)
        self._mocked: MockDevice | None = None

    @property
    def _where(self) -> str:
        return f"layer {self.name!r}"

    @property
    def mock(self) -> bool:
        """Whether the layer runs in its mock. It may be set to a MockParameter too."""
        return self._mock

    @mock.setter
    def mock(self, mock: Mock) -> None:
        self._mock, parameter = parse_mock(mock, self._where)
        if not isinstance(mock, bool):
            self.parameter = parameter

    @property
    def device(self) -> Device | None:
        """What the layer runs on where it is not mocked, None for the chip. Setting it turns the mock off, None on."""
        return self._device

    @device.setter
    def device(self, device: Device | None) -> None:
        if device is not None:
            method_of(device, "mac", self._where)
        self._device, self.mock = device, device is None

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def _device_for(self, mock: Mock | None) -> tuple[Device, float]:
        """Return what a call runs on that says `mock`, or nothing, and the gain of its gradient."""
        active, parameter = parse_mock(self.mock if mock is None else mock, self._where)
        if mock is None or isinstance(mock, bool):
            parameter = self.parameter
        if not active:
            return self._device or hardware(), parameter.gain
        if self._mocked is None or self._mocked.parameter != parameter:
            self._mocked = MockDevice(parameter.gain, parameter.noise_std)
        return self._mocked, parameter.gain

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer; the device is not part of it."""
        return {**super().get_config(), "mock": {**self.parameter.get_config(), "active": self.mock}}


def use_device(model: Any, device: Device | None) -> None:
    """Run the analog layers of `model` on `device`, and train them with it in the loop; on their mocks if it is None.

    Weights and the optimizer stay as they are; functions that Keras has traced are dropped.

    Args:
        model: A Keras model, or an analog layer.
        device: One device for all layers.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, AnalogLayer)]
    check(bool(layers), f"{model.name!r} has no analog layer")
    if device is not None:
        method_of(device, "mac", "use_device")
    for layer in layers:
        layer.device = device
    forget_traces(model)


def forget_traces(model: Any) -> None:
    """Have Keras trace the functions of `model` anew."""
    for function in ("train_function", "test_function", "predict_function"):
        if hasattr(model, function):
            setattr(model, function, None)


@register
class InitialWeights(keras.initializers.Initializer):  # type: ignore[misc]
    """Normal numbers of a standard deviation, without those beyond the range of synapses."""

    def __init__(self, std: float, seed: int | None = None) -> None:
        self.std, self.seed = std, seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Return weights."""
        share = math.erf(WEIGHT_RANGE[1] / self.std / math.sqrt(2.0))  # of a normal distribution within range
        draws = keras.random.uniform(shape, -share, share, seed=self.seed)
        weights = tf.math.erfinv(draws) * (math.sqrt(2.0) * self.std)
        return tf.cast(tf.clip_by_value(weights, *map(float, WEIGHT_RANGE)), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal one."""
        return {"std": self.std, "seed": self.seed}


class AnalogKernel(AnalogLayer):
    """What layers with weights share.

    Initial weights bring outputs of typical inputs to the range of a converting ReLU with shift 1: with ``s = 2 *
    sqrt(2) / gain / sqrt(fan_in)``, each input is sent ``ceil(s / 21)`` times, unless told otherwise, and weights are
    normal with standard deviation ``s / num_sends``. Biases are uniform within ``s * sqrt(3) / 31``.
    """

    kernel: Any
    bias: Any

    def __init__(
        self,
        num_sends: int | None,
        wait_between_events: int,
        mock: Mock,
        input_transform: str | Transform | None,
        weight_transform: str | Transform | None,
        use_bias: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(mock=mock, **kwargs)
        self.num_sends = None if num_sends is None else whole(num_sends, 1, f"{self._where}: num_sends")
        self.wait_between_events = whole(wait_between_events, 0, f"{self._where}: wait_between_events")
        self.input_transform = transforms.get(input_transform, self._where)
        self.weight_transform = transforms.get(weight_transform, self._where)
        self.use_bias = use_bias

    def _make_weights(self, kernel_shape: Sequence[int]) -> None:
        spread = 2**RELU_SHIFT * math.sqrt(2.0) / self.parameter.gain / math.sqrt(math.prod(kernel_shape[:-1]))
        self.num_sends = self.num_sends or math.ceil(spread / TYPICAL_WEIGHT)
        clamps = self.weight_transform is transforms.clamp_weight
        self.kernel = self.add_weight(
            shape=tuple(kernel_shape),
            initializer=InitialWeights(spread / self.num_sends),
            constraint=transforms.ClampWeight() if clamps else None,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            width = spread / (INPUT_RANGE[1] / math.sqrt(3.0))
            self.bias = self.add_weight(
                shape=(kernel_shape[-1],), initializer=keras.initializers.RandomUniform(-width, width), name="bias"
            )

    def _run(self, work: Callable[..., Any], x: Any, mock: Mock | None, *own: Any) -> Any:
        """Return ``work(x, kernel, bias, transforms, how, *own)``, `how` being the last arguments of ops.multiply."""
        device, gain = self._device_for(mock)
        how = (self.num_sends, self.wait_between_events, device, gain, self._where)
        both = (self.input_transform, self.weight_transform)
        return tf.cast(ops.at_once(device, work, (x, self.kernel, self.bias), both, how, *own), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer; num_sends is a number once the layer is built."""
        return {
            **super().get_config(),
            "num_sends": self.num_sends,
            "wait_between_events": self.wait_between_events,
            "input_transform": transforms.name_of(self.input_transform),
            "weight_transform": transforms.name_of(self.weight_transform),
            "use_bias": self.use_bias,
        }


def _transformed(x: Any, kernel: Any, both: Transforms) -> tuple[Any, Any]:
    of_input, of_weight = both
    return of_input(x) if of_input else x, of_weight(kernel) if of_weight else kernel


@register
class AnalogDense(AnalogKernel):
    """A dense layer on the chip, along the last axis.

    The order is: transforms, multiplication, mean over `avg` neurons, the chip's addition of the bias.

    Args:
        units: Outputs.
        num_sends: How often each input is sent; None for as often as the initial weights need.
        avg: Neurons for each output. They get equal weights, and their mean, not rounded, is the output.
        wait_between_events: Cycles between two inputs.
        mock: True or a MockParameter for the mock, False for the chip.
        input_transform: None, "scale_input", or a function of the inputs.
        weight_transform: "clamp_weight", "scale_weight", None, or a function of the weights.
        use_bias: Add a bias.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        units: int,
        num_sends: int | None = None,
        avg: int = 1,
        wait_between_events: int = WAIT_BETWEEN_EVENTS,
        mock: Mock = False,
        input_transform: str | Transform | None = None,
        weight_transform: str | Transform | None = "clamp_weight",
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_sends, wait_between_events, mock, input_transform, weight_transform, use_bias, **kwargs)
        self.units, self.avg = whole(units, 1, f"{self._where}: units"), whole(avg, 1, f"{self._where}: avg")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make kernel [inputs, units] and bias [units]."""
        inputs = input_shape[-1]
        check(inputs is not None, f"{self._where}: the last axis of the input has to be known, received {input_shape}")
        self._make_weights((int(inputs or 0), self.units))

    def call(self, x: Any, mock: Mock | None = None) -> Any:
        """Return the outputs for x [..., inputs]; `mock` says where to run this call."""
        return self._run(_dense, x, mock, self.avg)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the input with `units` as the last axis."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "units": self.units, "avg": self.avg}


def _dense(x: Any, kernel: Any, bias: Any, both: Transforms, how: How, avg: int) -> Any:
    x, w = _transformed(x, kernel, both)
    if avg == 1:
        y = ops.multiply(x, w, *how)
    else:
        y = ops.multiply(x, tf.repeat(w, avg, axis=1), *how)
        groups = tf.reshape(y, tf.concat([tf.shape(y)[:-1], [kernel.shape[1], avg]], 0))
        y = tf.ensure_shape(tf.reduce_mean(groups, axis=-1), [*x.shape[:-1], kernel.shape[1]])
    return y if bias is None else ops.accumulate(y, bias, how[2], how[-1])


class AnalogConv(AnalogKernel):
    """What convolutions share; see :class:`AnalogConv1D`."""

    axes: int

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        num_sends: int | None = None,
        wait_between_events: int = WAIT_BETWEEN_EVENTS,
        mock: Mock = False,
        input_transform: str | Transform | None = None,
        weight_transform: str | Transform | None = "clamp_weight",
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_sends, wait_between_events, mock, input_transform, weight_transform, use_bias, **kwargs)
        self.filters, self.padding = whole(filters, 1, f"{self._where}: filters"), padding
        self.kernel_size, self.strides = self._per_axis(kernel_size), self._per_axis(strides)
        check(padding in ("valid", "same"), f"{self._where}: padding is 'valid' or 'same', received {padding!r}")

    def _per_axis(self, value: int | Sequence[int]) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, Sequence) else (value,) * self.axes
        where = f"{self._where}: each of kernel_size and strides"
        check(len(values) == self.axes, f"{where} is one number or {self.axes}, received {value!r}")
        return tuple(whole(v, 1, where) for v in values)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make kernel [axes..., channels, filters] and bias [filters]."""
        channels = input_shape[-1]
        check(
            len(input_shape) == self.axes + 2 and channels is not None,
            f"{self._where}: expected input [batch, {self.axes} axes, channels] with known channels, "
            f"received {input_shape}",
        )
        self._make_weights((*self.kernel_size, int(channels or 0), self.filters))

    def call(self, x: Any, mock: Mock | None = None) -> Any:
        """Return the outputs for x [batch, axes..., channels]; `mock` says where to run this call."""
        return tf.ensure_shape(
            self._run(_conv, x, mock, self.strides, self.padding), self.compute_output_shape(x.shape)
        )

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return [batch, axes..., filters]."""

        def count(size: int | None, k: int, s: int) -> int | None:
            if size is None:
                return None
            return -(-size // s) if self.padding == "same" else (size - k) // s + 1

        return (
            input_shape[0],
            *map(count, input_shape[1:-1], self.kernel_size, self.strides),
            self.filters,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = ("filters", "kernel_size", "strides", "padding")
        return {**super().get_config(), **{key: getattr(self, key) for key in own}}


def _conv(x: Any, kernel: Any, bias: Any, both: Transforms, how: How, strides: tuple[int, ...], padding: str) -> Any:
    x, w = _transformed(x, kernel, both)
    if padding == "same":
        sizes = tf.unstack(tf.shape(x)[1:-1])
        x = tf.pad(x, [(0, 0), *map(_margins, sizes, kernel.shape[:-2].as_list(), strides), (0, 0)])
    return ops.convolve(x, w, bias, strides, *how)


def _margins(size: Any, kernel_size: int, stride: int) -> tuple[Any, Any]:
    """Return the zeros before and after an axis, as Keras pads it."""
    missing = tf.maximum((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return missing // 2, missing - missing // 2


@register
class AnalogConv1D(AnalogConv):
    """A convolution of [batch, length, channels] on the chip; see :func:`kconvert_contrib.analog.conv1d`.

    The order is: transforms, padding with zeros, multiplication, the host's addition of the bias.

    Args:
        filters: Outputs of each window.
        kernel_size: Its size, a number for each axis or one for all.
        strides: Steps from window to window.
        padding: "valid" or "same".
        num_sends: How often each input is sent; None for as often as the initial weights need.
        wait_between_events: Cycles between two inputs.
        mock: True or a MockParameter for the mock, False for the chip.
        input_transform: None, "scale_input", or a function of the inputs.
        weight_transform: "clamp_weight", "scale_weight", None, or a function of the weights.
        use_bias: Add a bias.
        **kwargs: Those of every Keras layer.
    """

    axes = 1


@register
class AnalogConv2D(AnalogConv):
    """A convolution of [batch, height, width, channels] on the chip; arguments are those of :class:`AnalogConv1D`."""

    axes = 2


@register
class AnalogReLU(AnalogLayer):
    """``clip(floor(x), 0, 127)``; see :func:`kconvert_contrib.analog.relu`."""

    shift: int | None = None

    def call(self, x: Any, mock: Mock | None = None) -> Any:
        """Return it of `x`; `mock` says where to run this call."""
        device, _ = self._device_for(mock)
        return tf.cast(ops.at_once(device, ops.rectify, (x,), device, self.shift, self._where), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """Return that of the input."""
        return input_shape


@register
class AnalogConvertingReLU(AnalogReLU):
    """``clip(floor(relu(x) / 2**shift), 0, 31)``; see :func:`kconvert_contrib.analog.converting_relu`.

    Args:
        shift: Of the bits, to the right.
        mock: True or a MockParameter for the mock, False for the chip.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, shift: int = 2, mock: Mock = False, **kwargs: Any) -> None:
        super().__init__(mock=mock, **kwargs)
        self.shift = whole(shift, 0, f"{self._where}: shift")

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "shift": self.shift}
