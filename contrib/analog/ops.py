"""The operations of the chip as functions of tensors: forward on a device, backward by the host's linear model.

They take tensors, arrays and lists of numbers, of any type, and answer in float32. In a functional model of Keras, use
the layers.

Every function takes `mock`, True or a MockParameter for the mock, False for the chip, and `device`, which comes first
where it is given. Gradients are those of exact products and of halves of lines: they see neither rounding nor floor nor
saturation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .devices import Device, MockDevice, device_of, method_of
from .errors import AnalogError, RangeError, check, whole
from .parameters import COLUMNS, INPUT_RANGE, OUTPUT_RANGE, ROWS, WAIT_BETWEEN_EVENTS, WEIGHT_RANGE

check(
    keras.backend.backend() == "tensorflow",
    f"analog layers run on the TensorFlow backend of Keras, and this is {keras.backend.backend()!r}: "
    "set KERAS_BACKEND=tensorflow",
)


def matmul(
    x: Any,
    w: Any,
    num_sends: int = 1,
    wait_between_events: int = WAIT_BETWEEN_EVENTS,
    mock: Any = False,
    *,
    device: Device | None = None,
    name: str = "matmul",
) -> Any:
    """Return x [..., K] times w [K, N] or [K], as the analog multiplier gives it: whole numbers in -128..127.

    ``dL/dx = gain * num_sends * dL/dy . w^T`` and ``dL/dw = x^T . gain * num_sends * dL/dy``, of `x` and `w` before
    they are rounded.

    Args:
        x: Rounded to 0..31.
        w: Rounded to -63..63.
        num_sends: How often every input is sent, each time adding to the output.
        wait_between_events: Cycles between two of them; the mock does not mind.
        mock: See the module.
        device: See the module.
        name: What to call the operation in errors.

    Raises:
        RangeError: An input or weight is out of range. Within a function that TensorFlow has compiled it is a
            tf.errors.InvalidArgumentError of the same words.
    """
    how = _how(num_sends, wait_between_events, mock, device, name)
    return at_once(how[2], multiply, (x, w), *how)


def _how(num_sends: int, wait: int, mock: Any, device: Device | None, name: str) -> tuple[int, int, Device, float, str]:
    """Return the last arguments of :func:`multiply`, checked."""
    device, gain = device_of(mock, device, name)
    sends = whole(num_sends, 1, f"{name}: num_sends")
    return sends, whole(wait, 0, f"{name}: wait_between_events"), device, gain, name


def at_once(device: Any, work: Callable[..., Any], tensors: Sequence[Any], *settings: Any) -> Any:
    """Return ``work(*tensors, *settings)``, the tensors in float32 or None.

    Where the program runs on a mock, a call that comes again is one traced function: TensorFlow takes 2 to 10 times
    longer for the same operations one by one. Other devices are called as they are, traceable or not.
    """
    known = [None if t is None else tf.cast(t, tf.float32) for t in tensors]
    if type(device) is not MockDevice or not tf.executing_eagerly() or tf.config.functions_run_eagerly():
        return work(*known, *settings)
    shapes = [None if t is None else tuple(t.shape) for t in known]
    frames = shapes[0] or ()
    call = _call(work, ((None, *frames[1:]) if len(frames) > 1 else frames, *shapes[1:]), settings)
    call.times += 1
    if call.times > 1:
        with contextlib.suppress(tf.errors.InvalidArgumentError):  # what follows raises a RangeError for it
            return call.traced(*(t for t in known if t is not None))
    return work(*known, *settings)


@dataclasses.dataclass(eq=False)
class _Call:
    """A function for tensors of known shapes, None for none."""

    work: Callable[..., Any]
    shapes: Sequence[Any]
    settings: Sequence[Any]
    times: int = 0

    @functools.cached_property
    def traced(self) -> Callable[..., Any]:
        """The function as TensorFlow runs it."""

        def traced(*given: Any) -> Any:
            rest = iter(given)
            return self.work(*(None if shape is None else next(rest) for shape in self.shapes), *self.settings)

        signature = [tf.TensorSpec(shape, tf.float32) for shape in self.shapes if shape is not None]
        return tf.function(traced, autograph=False).get_concrete_function(*signature)  # type: ignore[no-any-return]


_call = functools.lru_cache(maxsize=512)(_Call)


def multiply(x: Any, w: Any, num_sends: int, wait_between_events: int, device: Device, gain: float, name: str) -> Any:
    """Do what :func:`matmul` says on `device`, with the gradient of a linear model of `gain`."""
    check(
        x.shape.rank != 0 and w.shape.rank in (1, 2) and x.shape[-1] == w.shape[0] and w.shape[0] > 0,
        f"{name}: expected x [..., K] and w [K, N] or [K], K from 1, received shapes {tuple(x.shape)} and "
        f"{tuple(w.shape)}",
    )
    frames = tf.reshape(x, (-1, w.shape[0]))
    matrix = w if w.shape.rank == 2 else w[:, tf.newaxis]
    y = _mac(frames, matrix, num_sends, wait_between_events, device, gain, name)
    tail = w.shape[1:].as_list()
    shape = [*x.shape[:-1].as_list(), *tail]
    return tf.ensure_shape(tf.reshape(y, tf.concat([tf.shape(x)[:-1], np.array(tail, np.int32)], 0)), shape)


def _mac(x: Any, w: Any, num_sends: int, wait: int, device: Device, gain: float, name: str) -> Any:
    factor = np.float32(num_sends * gain)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(x: Any, w: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradient(dy: Any) -> tuple[Any, Any]:
            scaled = dy * factor
            return tf.matmul(scaled, w, transpose_b=True), tf.matmul(x, scaled, transpose_a=True)

        y = _tiled(device, *_in_range(_rounded(x, device), _rounded(w, device), name), num_sends, wait, name)
        return y, gradient

    return forward(x, w)


def _tiled(device: Device, x: Any, w: Any, num_sends: int, wait: int, name: str) -> Any:
    """Return what the device makes of whole x [batch, K] and w [K, N], part by part where it takes no more at a time.

    Parts are added as the chip's processor does: exactly, with one saturation at the end.
    """

    def product(x: Any, w: Any) -> Any:
        return run(device, "mac", (x, w), (x.shape[0], w.shape[1]), OUTPUT_RANGE, name, num_sends, wait)

    rows, columns = getattr(device, "limits", None) or w.shape
    across = []
    for right in range(0, max(w.shape[1], 1), max(columns, 1)):
        down = range(0, w.shape[0], rows)
        parts = [product(x[:, at : at + rows], w[at : at + rows, right : right + columns]) for at in down]
        across.append(tf.clip_by_value(tf.add_n(parts), *map(float, OUTPUT_RANGE)) if len(parts) > 1 else parts[0])
    return tf.concat(across, axis=1) if len(across) > 1 else across[0]


def _rounded(x: Any, device: Device) -> Any:
    if getattr(device, "rounds_half", "even") == "even":
        return tf.round(x)
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _in_range(x: Any, w: Any, name: str) -> tuple[Any, Any]:
    """Return both as they are, or raise."""
    tensors = {f"{name}: an input": (x, *INPUT_RANGE), f"{name}: a weight": (w, *WEIGHT_RANGE)}
    fits = [tf.reduce_all((t >= low) & (t <= high)) for t, low, high in tensors.values()]  # which a NaN does not
    texts = [f"{what} is outside of {low}..{high} after rounding:" for what, (_, low, high) in tensors.items()]

    def outside(tensor: Any, low: int, high: int) -> Any:
        return tf.boolean_mask(tensor, ~((tensor >= low) & (tensor <= high)))

    if tf.executing_eagerly():
        for fit, text, limited in zip(fits, texts, tensors.values(), strict=True):
            if not fit:
                raise RangeError(f"{text} {float(outside(*limited)[0]):g}")
        return x, w

    def complain() -> Any:
        found = [outside(*limited)[:1] for limited in tensors.values()]
        where = tf.where(fits[0], texts[1], texts[0])
        return tf.debugging.Assert(False, [where, tf.concat(found, 0)[0]])

    with tf.control_dependencies([tf.cond(fits[0] & fits[1], tf.no_op, complain)]):
        return tf.identity(x), tf.identity(w)


def run(
    device: Device,
    method: str,
    tensors: Sequence[Any],
    shape: Any,
    limits: tuple[float, float],
    name: str,
    *settings: Any,
    dtype: Any = tf.float32,
) -> Any:
    """Return what a method of `device` makes of the tensors and settings: of `shape`, within `limits`.

    Raises:
        AnalogError: it is not, on a device that answers in arrays; within compiled functions an InvalidArgumentError.
    """
    work = method_of(device, method, name)
    if getattr(device, "in_graph", False):
        return work(*tensors, *settings)

    def answer(*arrays: Any) -> Any:
        y, expected = np.asarray(work(*arrays, *settings)), tf.TensorShape(shape)
        same = expected.is_compatible_with(y.shape)
        check(same, f"{name}: {method} of the device answered shape {y.shape}, expected was {tuple(expected)}")
        fits = bool(np.all((y >= limits[0]) & (y <= limits[1])))
        check(fits, f"{name}: {method} of the device answered numbers outside of {limits[0]:g}..{limits[1]:g}")
        return y.astype(dtype.as_numpy_dtype)

    if tf.executing_eagerly():
        return tf.convert_to_tensor(answer(*(tensor.numpy() for tensor in tensors)))
    return tf.ensure_shape(tf.numpy_function(answer, tensors, dtype), shape)


def conv1d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    num_sends: int = 1,
    wait_between_events: int = WAIT_BETWEEN_EVENTS,
    mock: Any = False,
    *,
    device: Device | None = None,
    name: str = "conv1d",
) -> Any:
    """Return the convolution of x [batch, length, channels] with kernel [size, channels, filters], unpadded.

    Each window is one row of :func:`matmul`, channel by channel: the 128 inputs of a chunk are the positions of the
    first channels. `bias`, [filters] or None, is added as the host adds, without floor and saturation.
    """
    how = _how(num_sends, wait_between_events, mock, device, name)
    return at_once(how[2], convolve, (x, kernel, bias), _strides(stride, 1, name), *how)


def conv2d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    num_sends: int = 1,
    wait_between_events: int = WAIT_BETWEEN_EVENTS,
    mock: Any = False,
    *,
    device: Device | None = None,
    name: str = "conv2d",
) -> Any:
    """Return that of x [batch, height, width, channels] with kernel [height, width, channels, filters]; see conv1d."""
    how = _how(num_sends, wait_between_events, mock, device, name)
    return at_once(how[2], convolve, (x, kernel, bias), _strides(stride, 2, name), *how)


def _strides(stride: int | Sequence[int], axes: int, name: str) -> tuple[int, ...]:
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride,) * axes
    check(len(strides) == axes, f"{name}: expected {axes} strides, received {stride}")
    return tuple(whole(s, 1, f"{name}: a stride") for s in strides)


def convolve(
    x: Any,
    kernel: Any,
    bias: Any,
    strides: Sequence[int],
    num_sends: int,
    wait_between_events: int,
    device: Device,
    gain: float,
    name: str,
) -> Any:
    """Return the unpadded convolution over as many axes as there are strides; see :func:`conv1d`."""
    axes = len(strides)
    check(
        x.shape.rank == kernel.shape.rank == axes + 2 and x.shape[-1] == kernel.shape[-2],
        f"{name}: expected x [batch, {axes} axes, channels] and a kernel [{axes} axes, channels, filters], received "
        f"shapes {tuple(x.shape)} and {tuple(kernel.shape)}",
    )
    patches = windows(x, kernel.shape[:axes].as_list(), strides, name)
    weights = tf.reshape(tf.transpose(kernel, (axes, *range(axes), axes + 1)), (-1, kernel.shape[-1]))
    y = multiply(patches, weights, num_sends, wait_between_events, device, gain, name)
    if bias is None:
        return y
    expected = (kernel.shape[-1],)
    check(tuple(bias.shape) == expected, f"{name}: expected a bias {expected}, received shape {tuple(bias.shape)}")
    return y + bias


def windows(x: Any, size: Sequence[int], strides: Sequence[int], name: str) -> Any:
    """Return [batch, axes..., channels * positions], the windows of x [batch, axes..., channels], channels first."""
    counts = [None if n is None else (n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], size, strides, strict=True)]
    check(
        all(n is None or n > 0 for n in counts),
        f"{name}: the kernel {tuple(size)} is larger than the input {tuple(x.shape[1:-1])}",
    )
    sizes = [(tf.shape(x)[i + 1] - k) // s + 1 for i, (k, s) in enumerate(zip(size, strides, strict=True))]
    positions = []
    for place in np.ndindex(*size):
        along = [slice(p, p + (n - 1) * s + 1, s) for p, n, s in zip(place, sizes, strides, strict=True)]
        positions.append(x[(slice(None), *along)])
    stacked = tf.stack(positions, axis=-1)
    width = x.shape[-1] * len(positions)
    y = tf.reshape(stacked, [tf.shape(x)[0], *sizes, width])
    return tf.ensure_shape(y, [x.shape[0], *counts, width])


def expanded_conv1d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    stride: int = 1,
    num_expansions: int | None = None,
    num_sends: int = 1,
    wait_between_events: int = WAIT_BETWEEN_EVENTS,
    mock: Any = False,
    *,
    device: Device | None = None,
    name: str = "expanded_conv1d",
) -> Any:
    """Return what :func:`conv1d` returns, with several neighbouring windows in one multiplication.

    `num_expansions` copies of the kernel, each `stride` further on, fill the array; without a number, as many as go
    into 256 columns and, by the kernel's length alone, 128 rows.
    """
    how = _how(num_sends, wait_between_events, mock, device, name)
    if num_expansions is not None:
        num_expansions = whole(num_expansions, 1, f"{name}: num_expansions")
    return at_once(how[2], _expanded, (x, kernel, bias), *_strides(stride, 1, name), num_expansions, *how)


def _expanded(
    x: Any,
    kernel: Any,
    bias: Any,
    stride: int,
    num_expansions: int | None,
    num_sends: int,
    wait_between_events: int,
    device: Device,
    gain: float,
    name: str,
) -> Any:
    check(
        kernel.shape.rank == 3 and x.shape.rank == 3 and x.shape[1] is not None,
        f"{name}: expected x [batch, length, channels] and a kernel [size, channels, filters], received shapes "
        f"{tuple(x.shape)} and {tuple(kernel.shape)}",
    )
    size, _, filters = kernel.shape
    copies = num_expansions or max(min(COLUMNS // filters, (ROWS - size) // stride + 1), 1)
    reach = stride * (copies - 1)
    shifted = [tf.pad(kernel, ((e * stride, reach - e * stride), (0, 0), (0, 0))) for e in range(copies)]
    length = (x.shape[1] - size) // stride + 1
    check(length > 0, f"{name}: the kernel of {size} is larger than the input of {x.shape[1]}")
    steps = -(-length // copies)
    missing = max(stride * copies * (steps - 1) + size + reach - x.shape[1], 0)
    padded = tf.pad(x, ((0, 0), (0, missing), (0, 0)))
    wide = tf.concat(shifted, axis=-1)
    biases = None if bias is None else tf.tile(bias, [copies])
    y = convolve(padded, wide, biases, (stride * copies,), num_sends, wait_between_events, device, gain, name)
    return tf.reshape(y[:, :steps], (-1, steps * copies, filters))[:, :length]


def relu(x: Any, mock: Any = False, *, device: Device | None = None) -> Any:
    """Return ``clip(floor(x), 0, 127)``; the gradient passes where x > 0."""
    device, _ = device_of(mock, device, "relu")
    return at_once(device, rectify, (x,), device, None, "relu")


def converting_relu(x: Any, shift: int = 2, mock: Any = False, *, device: Device | None = None) -> Any:
    """Return ``clip(floor(relu(x) / 2**shift), 0, 31)``, inputs of the next multiplication.

    The gradient is ``dy / 2**shift`` where x > 0, also where the output is 31.
    """
    device, _ = device_of(mock, device, "converting_relu")
    return at_once(device, rectify, (x,), device, whole(shift, 0, "converting_relu: shift"), "converting_relu")


def rectify(x: Any, device: Device, shift: int | None, name: str) -> Any:
    """Do what :func:`converting_relu` says on `device`; without a shift, what :func:`relu` says."""
    slope = np.float32(2.0 ** -(shift or 0))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(x: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(dy: Any) -> Any:
            return tf.where(x > 0, dy * slope, 0.0)

        if shift is None:
            return run(device, "relu", (x,), x.shape, (0, OUTPUT_RANGE[1]), name), gradient
        return run(device, "converting_relu", (x,), x.shape, INPUT_RANGE, name, shift), gradient

    return forward(x)


def add(a: Any, b: Any, mock: Any = False, *, device: Device | None = None) -> Any:
    """Return ``clip(clip(floor(a)) + clip(floor(b)))``, all to -128..127; the gradient goes to both.

    `a` and `b` broadcast to one shape.
    """
    device, _ = device_of(mock, device, "add")
    return at_once(device, accumulate, (a, b), device, "add")


def accumulate(a: Any, b: Any, device: Device, name: str) -> Any:
    """Do what :func:`add` says on `device`."""
    try:
        shape = tf.broadcast_static_shape(a.shape, b.shape)
    except ValueError as error:
        raise AnalogError(f"{name}: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit for an addition") from error

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(a: Any, b: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradient(dy: Any) -> tuple[Any, Any]:
            shapes = tf.shape(a), tf.shape(b)
            axes = tf.raw_ops.BroadcastGradientArgs(s0=shapes[0], s1=shapes[1])
            return tuple(tf.reshape(tf.reduce_sum(dy, along), own) for along, own in zip(axes, shapes, strict=True))

        return run(device, "add", (a, b), shape, OUTPUT_RANGE, name), gradient

    return forward(a, b)


def argmax(x: Any, axis: int | None = -1, mock: Any = False, *, device: Device | None = None) -> Any:
    """Return int64, the first of the largest along `axis`, compared as the converter gives them; no gradient.

    With an `axis` of None, `x` counts as one row.
    """
    device, _ = device_of(mock, device, "argmax")
    x = tf.cast(x, tf.float32)
    if axis is None:
        x, axis = tf.reshape(x, (-1,)), -1
    rank = x.shape.rank
    check(-rank <= axis < rank, f"argmax: axis {axis} is none of an input of shape {tuple(x.shape)}")
    shape = x.shape.as_list()
    del shape[axis]
    return run(device, "argmax", (x,), shape, (0, np.inf), "argmax", axis, dtype=tf.int64)
