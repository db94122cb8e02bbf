"""Where the arithmetic of a layer happens: a mock of the chip, or the chip.

A device gets whole numbers within range, rounded as it rounds them, and answers in float32. How it differs from the
linear model that gradients are taken of is what training with the device in the loop makes up for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from kconvert.errors import MissingPackageError

from .errors import check
from .noise import normal
from .parameters import (
    COLUMNS,
    INPUT_RANGE,
    OUTPUT_RANGE,
    ROWS,
    WAIT_BETWEEN_EVENTS,
    MockParameter,
    mock_parameter,
    parse_mock,
)

HEMISPHERES = 2


class Device(Protocol):
    """What runs the operations; inputs and answers are float32. The attributes may be missing.

    Attributes:
        in_graph: The methods take and return tensors, and TensorFlow may trace them; otherwise they get arrays, while
            the program runs. False where it is missing.
        rounds_half: "even" or "away": where halves go when numbers become those of the device; "even" where missing.
        limits: The most inputs and outputs that `mac` takes at a time, 128 and 256 of one array of the chip: larger
            products come in parts, which are added as the chip adds. None, or missing, where `mac` sees to that.
    """

    in_graph: bool
    rounds_half: str
    limits: tuple[int, int] | None

    def mac(self, x: Any, w: Any, num_sends: int, wait_between_events: int) -> Any:
        """Multiply x [batch, inputs] in 0..31, sent `num_sends` times, by w [inputs, outputs] in -63..63."""

    def relu(self, x: Any) -> Any:
        """Return `x` as 0..127."""

    def converting_relu(self, x: Any, shift: int) -> Any:
        """Return `x` as 0..31, after a division by 2**shift."""

    def add(self, a: Any, b: Any) -> Any:
        """Return the sum as -128..127; `a` and `b` broadcast to one shape."""

    def argmax(self, x: Any, axis: int) -> Any:
        """Return int64, the first of the largest along `axis`."""


@dataclasses.dataclass(frozen=True, slots=True)
class FixedPattern:
    """How far the neurons of one chip differ from each other.

    Attributes:
        gain_std: Standard deviation of their gains, as a share of the mean.
        offset_std: Standard deviation of what they answer to nothing, in steps of the converter.
    """

    gain_std: float = 0.1
    offset_std: float = 4.0


class MockDevice:
    """A linear model of the chip: gain, noise, the converter's floor and range; and neurons that differ, if asked for.

    ``y = sum over chunks of 128 inputs of clip(floor(x . w * num_sends * gain + noise), -128, 127)``, clipped again.

    Args:
        gain: Output for an input of 1 and a weight of 1, sent once.
        noise_std: Standard deviation of the noise on each chunk's output, in steps of the converter.
        seed: The same seed gives the same noise and the same neurons. Without one, `keras.utils.set_random_seed` says.
        fixed_pattern: Spread of gains and offsets over the neurons; True stands for ``FixedPattern()``. The multiplier
            has two halves of 256 neurons; blocks of 128 inputs and 256 outputs take turns on them.
    """

    in_graph = True
    rounds_half = "even"
    limits: tuple[int, int] | None = None

    def __init__(
        self,
        gain: float = MockParameter().gain,
        noise_std: float = MockParameter().noise_std,
        seed: int | None = None,
        fixed_pattern: FixedPattern | bool = False,
    ) -> None:
        self.parameter = MockParameter(noise_std, gain)
        with tf.init_scope():  # it holds a variable, which outlives the function being traced
            self._seeds = keras.random.SeedGenerator(seed)
        # XLA makes one loop of the noise and what follows; without noise that is not worth a compilation for each shape
        self._fused = tf.function(self._answers, jit_compile=True)
        self.fixed_pattern = FixedPattern() if fixed_pattern is True else (fixed_pattern or None)
        check(
            isinstance(self.fixed_pattern, FixedPattern | None),
            f"fixed_pattern is True, False or a FixedPattern, received {fixed_pattern!r}",
        )
        if self.fixed_pattern:
            rng = np.random.default_rng(self._seeds._initial_seed)
            shape = (HEMISPHERES, COLUMNS)
            self.neuron_gains = rng.normal(1.0, self.fixed_pattern.gain_std, shape).astype(np.float32)
            self.neuron_offsets = rng.normal(0.0, self.fixed_pattern.offset_std, shape).astype(np.float32)

    @property
    def gain(self) -> float:
        """That of `parameter`."""
        return self.parameter.gain

    @property
    def noise_std(self) -> float:
        """That of `parameter`."""
        return self.parameter.noise_std

    def mac(self, x: Any, w: Any, num_sends: int = 1, wait_between_events: int = WAIT_BETWEEN_EVENTS) -> Any:
        """Multiply; the mock does not mind how events are spaced."""
        x, w, gain = _float(x), _float(w), np.float32(num_sends * self.gain)
        if self.noise_std == 0:
            return self._answers(x, w, gain)
        return self._fused(x, w, tf.constant(gain), tf.cast(self._seeds.next(), tf.uint32))

    def _answers(self, x: Any, w: Any, gain: Any, seed: Any = None) -> Any:
        frames, columns = tf.shape(x)[0], w.shape[1]
        answers = []
        for chunk, at in enumerate(range(0, w.shape[0], ROWS)):
            y = tf.matmul(x[:, at : at + ROWS], w[at : at + ROWS]) * gain
            if self.fixed_pattern:
                neuron = self._neurons(chunk, w)
                y = y * self.neuron_gains[neuron] + self.neuron_offsets[neuron]
            if seed is not None:
                count = frames * columns
                noise = tf.reshape(normal(count, seed, chunk * count), tf.shape(y))
                y = y + noise * np.float32(self.noise_std)
            answers.append(_converted(y))
        return _saturate(functools.reduce(tf.add, answers)) if len(answers) > 1 else answers[0]

    def _neurons(self, chunk: int, w: Any) -> tuple[Any, Any]:
        """Return half and place in it of the neuron behind each column."""
        column, chunks = np.arange(w.shape[1]), -(-w.shape[0] // ROWS)
        return (chunk + column // COLUMNS * chunks) % HEMISPHERES, column % COLUMNS

    def relu(self, x: Any) -> Any:
        """Return ``clip(floor(x), 0, 127)``."""
        return tf.clip_by_value(tf.floor(_float(x)), 0.0, float(OUTPUT_RANGE[1]))

    def converting_relu(self, x: Any, shift: int = 2) -> Any:
        """Return ``clip(floor(relu(x) / 2**shift), 0, 31)``."""
        return tf.minimum(tf.floor(self.relu(x) * np.float32(2.0**-shift)), float(INPUT_RANGE[1]))

    def add(self, a: Any, b: Any) -> Any:
        """Return the saturated sum of both, each floored and saturated."""
        return _saturate(_converted(_float(a)) + _converted(_float(b)))

    def argmax(self, x: Any, axis: int = -1) -> Any:
        """Return the first of the largest, which are compared as the converter gives them."""
        return tf.argmax(_converted(_float(x)), axis)


def _float(x: Any) -> Any:
    return tf.cast(x, tf.float32)


def _saturate(y: Any) -> Any:
    return tf.clip_by_value(y, *map(float, OUTPUT_RANGE))


def _converted(y: Any) -> Any:
    return _saturate(tf.floor(y))


class HxtorchDevice:
    """A BrainScaleS-2 chip, driven through the package hxtorch of its makers.

    It was written by the published interface of hxtorch, and run neither on a chip nor with the package: expect to
    check it. What it does on the way, arrays to torch and back, is tested.

    Args:
        initialise: Connect now; otherwise do so yourself, by ``hxtorch.init_hardware()``.

    Raises:
        MissingPackageError: hxtorch or torch is not installed.
    """

    in_graph = False
    rounds_half = "away"
    limits: tuple[int, int] | None = None

    def __init__(self, initialise: bool = True) -> None:
        try:
            self._torch = importlib.import_module("torch")
            hxtorch = importlib.import_module("hxtorch")
        except ImportError as error:
            raise MissingPackageError(
                "an analog layer runs on the chip through the package hxtorch, which comes with the software of "
                "BrainScaleS-2 and is not installed here: pass mock=True, or name another device by use_device"
            ) from error
        # releases before the spiking half came had everything at the top
        self._ops = getattr(hxtorch, "perceptron", hxtorch)
        self._hxtorch = hxtorch
        if initialise:
            hxtorch.init_hardware()

    def release(self) -> None:
        """Disconnect."""
        self._hxtorch.release_hardware()

    def mac(self, x: Any, w: Any, num_sends: int = 1, wait_between_events: int = WAIT_BETWEEN_EVENTS) -> Any:
        """Multiply on the chip, which splits what is larger than its arrays."""
        return self._run("matmul", x, w, num_sends=num_sends, wait_between_events=wait_between_events)

    def relu(self, x: Any) -> Any:
        """Let the chip's processor do it."""
        return self._run("relu", x)

    def converting_relu(self, x: Any, shift: int = 2) -> Any:
        """Let the chip's processor do it."""
        return self._run("converting_relu", x, shift=shift)

    def add(self, a: Any, b: Any) -> Any:
        """Let the chip's processor do it."""
        return self._run("add", *np.broadcast_arrays(a, b))

    def argmax(self, x: Any, axis: int = -1) -> Any:
        """Let the chip's processor do it."""
        return self._run("argmax", x, dim=axis, keepdim=False)

    def _run(self, name: str, *arrays: Any, **options: Any) -> Any:
        tensors = [self._torch.from_numpy(np.array(a, np.float32)) for a in arrays]
        with self._torch.no_grad():
            return getattr(self._ops, name)(*tensors, **options, mock=False).numpy()


@functools.cache
def hardware() -> Device:
    """Return the chip, connected once."""
    return HxtorchDevice()


@functools.lru_cache(maxsize=16)
def mock_device(parameter: MockParameter) -> MockDevice:
    """Return the mock with `parameter` that operations outside of layers share."""
    return MockDevice(parameter.gain, parameter.noise_std)


def measure_mock_parameter(device: Device | None = None, samples: int = 500, seed: int = 0) -> MockParameter:
    """Return gain and noise of a device, as a mock of it needs them.

    One full array, 128 inputs by 256 outputs, gets equal weights and inputs, of which a share is on: the share is the
    one of 20 that brings the median output nearest to the middle of the converter's range; then random inputs at that
    share are compared with their products. The first tries have inputs of 16 and weights of 21; where the device is
    too weak or too strong for all shares, larger or smaller ones follow. Gain is the median over neurons of the ratio,
    noise that of the standard deviation from a line through each neuron's answers. Taken off are the half step that
    the converter's floor costs on average, and the variance of rounding, 1/12.

    Args:
        device: What to measure; the chip if there is none.
        samples: Number of random input vectors.
        seed: That of the inputs.
    """
    device = hardware() if device is None else device
    rng = np.random.default_rng(seed)
    x, weight = _drive(device, rng, samples)
    w = np.full((ROWS, COLUMNS), weight, np.float32)
    y = _measured(device, x, w)
    inside = np.median(y, axis=1) < OUTPUT_RANGE[1] * 3 / 4  # further out, noise would be cut off
    ideal, y = x[inside].sum(axis=1, dtype=np.float64) * weight, y[inside] + 0.5
    gains = ideal @ y / (ideal @ ideal)
    spread = ideal - ideal.mean()
    deviation = y - y.mean(axis=0) - np.outer(spread, spread @ y / ((spread @ spread) or 1.0))
    variance = np.median((deviation**2).sum(axis=0) / (len(y) - 2)) - 1 / 12
    return MockParameter(float(max(variance, 0.0) ** 0.5), float(np.clip(np.median(gains), 1e-9, 1.0)))


def _drive(device: Device, rng: np.random.Generator, samples: int) -> tuple[Any, float]:
    """Return inputs [samples, 128] and the weight that bring outputs near the middle of their range."""
    target, shares = (OUTPUT_RANGE[1] + 1) / 2, 0.85 ** np.arange(20)
    found: list[tuple[float, float, float, float]] = []
    for value, weight in ((16.0, 21.0), (31.0, 63.0), (4.0, 8.0), (2.0, 2.0), (1.0, 1.0)):
        x = value * (rng.random((len(shares), ROWS)) < shares[:, None]).astype(np.float32)
        y = np.median(_measured(device, x, np.full((ROWS, COLUMNS), weight, np.float32)), axis=1)
        found += [(abs(m - target), share, value, weight) for m, share in zip(y, shares, strict=True)]
        if min(found)[0] < target / 4:
            break
    distance, share, value, weight = min(found)
    check(distance < target - 1, "the device answers nothing that its gain could be measured by")
    x = value * (rng.random((samples, ROWS)) < share).astype(np.float32)
    return x, weight


def _measured(device: Device, x: Any, w: Any) -> Any:
    return np.asarray(device.mac(x, w, 1, WAIT_BETWEEN_EVENTS), np.float64)


def method_of(device: Any, method: str, where: str) -> Callable[..., Any]:
    """Return a method of `device`; AnalogError if it has none of that name."""
    found = getattr(device, method, None)
    check(callable(found), f"{where}: {device!r} is not a device that has a method {method}; see analog.Device")
    return found  # type: ignore[return-value]


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def device_of(mock: Any, device: Device | None, where: str) -> tuple[Device, float]:
    """Return what an operation runs on, and the gain of the linear model whose gradient it has."""
    if device is not None:
        method_of(device, "mac", where)
        return device, float(getattr(device, "gain", mock_parameter().gain))
    active, parameter = parse_mock(mock, where)
    return (mock_device(parameter) if active else hardware()), parameter.gain
