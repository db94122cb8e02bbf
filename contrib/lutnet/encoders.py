"""Keras layers between numbers and bits: what makes bits of pixels, and scores of bits."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import keras
import numpy as np
from keras import ops

from .errors import check
from .layers import numbers, register, straight_through

Shape = Sequence[int | None]


def size_of(axis: int | None, name: str) -> int:
    """Return the size of an axis that has to be known."""
    check(axis is not None, f"layer {name!r}: the size of the last axis has to be known")
    return int(axis or 0)


@register
class Binarize(keras.layers.Layer):  # type: ignore[misc]
    """``high`` where the input is above `threshold`, else ``low``; the gradient passes where -1 < input < 1.

    Args:
        threshold: Inputs above it are ``high``.
        low: The answer to others.
        high: The answer to them.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, threshold: float = 0.0, low: float = -1.0, high: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold, self.low, self.high = threshold, low, high

    def call(self, x: Any) -> Any:
        """Return the input in two levels."""
        x = numbers(self, x)
        levels = ops.cast(ops.where(x > self.threshold, self.high, self.low), self.compute_dtype)
        return straight_through(levels, ops.clip(x, -1.0, 1.0))

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "threshold": self.threshold, "low": self.low, "high": self.high}


@register
class Thermometer(keras.layers.Layer):  # type: ignore[misc]
    """Bits that say how high an input is: bit b of a feature is 1 where the feature is above its threshold b.

    Features [..., features] become bits [..., features * bits], those of one feature next to each other, the lowest
    threshold first. Thresholds are a weight, [features, bits] or, the same for all features, [1, bits]. There is no
    gradient to the features.

    Args:
        bits: Thresholds of a feature.
        kind: ``"uniform"``: evenly spaced within the range; ``"gaussian"``: at the quantiles of a normal distribution;
            ``"distributive"``: at the quantiles of the data given to :meth:`adapt`, feature by feature.
        low: Lower end of the range of inputs.
        high: Its upper end. A normal distribution has its mean amid them, and 3 standard deviations to each.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, bits: int, kind: str = "uniform", low: float = 0.0, high: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        kinds = ("uniform", "gaussian", "distributive")
        check(bits > 0, f"layer {self.name!r}: bits has to be positive, received {bits}")
        check(kind in kinds, f"layer {self.name!r}: kind is one of {', '.join(kinds)}; received {kind!r}")
        check(low < high, f"layer {self.name!r}: low has to be below high, received {low} and {high}")
        self.bits, self.kind, self.low, self.high = bits, kind, low, high

    def build(self, input_shape: Shape) -> None:
        """Make the thresholds."""
        features = size_of(input_shape[-1], self.name) if self.kind == "distributive" else 1
        share = np.arange(1, self.bits + 1) / (self.bits + 1)
        levels = self.low + (self.high - self.low) * share
        if self.kind == "gaussian":
            normal = NormalDist((self.low + self.high) / 2, (self.high - self.low) / 6)
            levels = np.array([normal.inv_cdf(s) for s in share])
        self.thresholds = self.add_weight(shape=(features, self.bits), trainable=False, name="thresholds")
        self.thresholds.assign(np.tile(levels, (features, 1)))

    def adapt(self, data: Any) -> None:
        """Set the thresholds of a ``"distributive"`` encoder to the quantiles of `data`, [samples, ..., features]."""
        check(self.kind == "distributive", f"layer {self.name!r}: only a distributive encoder adapts to data")
        data = np.asarray(data, np.float32)
        if not self.built:
            self.build(data.shape)
        share = np.arange(1, self.bits + 1) / (self.bits + 1)
        self.thresholds.assign(np.quantile(data.reshape(-1, data.shape[-1]), share, axis=0).T)

    def call(self, x: Any) -> Any:
        """Return the bits, 0 and 1."""
        x = numbers(self, x)
        bits = ops.cast(x[..., None] > ops.cast(self.thresholds, x.dtype), self.compute_dtype)
        return ops.reshape(bits, (*ops.shape(x)[:-1], x.shape[-1] * self.bits))

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return bits for features."""
        return (*input_shape[:-1], size_of(input_shape[-1], self.name) * self.bits)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = {"bits": self.bits, "kind": self.kind, "low": self.low, "high": self.high}
        return {**super().get_config(), **own}


@register
class Patches(keras.layers.Layer):  # type: ignore[misc]
    """The window at every place of an image, as one axis: LUT layers after it are convolutions.

    Images [batch, height, width, channels] become [batch, rows, columns, kernel height * kernel width * channels].

    Args:
        kernel_size: Height and width of the window, or one number for both.
        strides: Its steps.
        padding: ``"valid"``, or ``"same"`` with zeros around the image.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(padding in ("valid", "same"), f"layer {self.name!r}: padding is 'valid' or 'same', received {padding!r}")
        self.kernel_size, self.strides, self.padding = _pair(kernel_size), _pair(strides), padding
        sizes = (*self.kernel_size, *self.strides)
        check(min(sizes) > 0, f"layer {self.name!r}: kernel_size and strides have to be positive, received {sizes}")

    def build(self, input_shape: Shape) -> None:
        """Check that images have a place for the window."""
        check(
            len(input_shape) == 4,
            f"layer {self.name!r}: expected images [n, height, width, channels], received {input_shape}",
        )
        fits = all(size is None or size >= k for size, k in zip(input_shape[1:3], self.kernel_size, strict=True))
        check(
            fits or self.padding == "same",
            f"layer {self.name!r}: a window {self.kernel_size} does not fit into {input_shape[1:3]}",
        )

    def call(self, x: Any) -> Any:
        """Return the windows."""
        return ops.image.extract_patches(
            x, self.kernel_size, strides=self.strides, padding=self.padding, data_format="channels_last"
        )

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = {"kernel_size": self.kernel_size, "strides": self.strides, "padding": self.padding}
        return {**super().get_config(), **own}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


@register
class Reduce(keras.layers.Layer):  # type: ignore[misc]
    """Mean of every `units`-th input: answer k is the mean of the inputs k, k + units, k + 2 * units, ...

    Args:
        units: Number of answers; divides the number of inputs.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        """Check the number of inputs."""
        _check_groups(self.name, self.units, size_of(input_shape[-1], self.name))

    def call(self, x: Any) -> Any:
        """Return the means."""
        return ops.mean(ops.reshape(numbers(self, x), (*ops.shape(x)[:-1], -1, self.units)), axis=-2)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return one number for each unit."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "units": self.units}


@register
class GroupSum(keras.layers.Layer):  # type: ignore[misc]
    """Sums of groups of neighbouring inputs, divided by a temperature: the scores of classes.

    Args:
        units: Number of groups; divides the number of inputs.
        tau: The temperature. It changes what training sees, and no answer about the largest.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, units: int, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check(tau > 0, f"layer {self.name!r}: tau has to be above 0, received {tau}")
        self.units, self.tau = units, tau

    def build(self, input_shape: Shape) -> None:
        """Check the number of inputs."""
        _check_groups(self.name, self.units, size_of(input_shape[-1], self.name))

    def call(self, x: Any) -> Any:
        """Return the scores."""
        return ops.sum(ops.reshape(numbers(self, x), (*ops.shape(x)[:-1], self.units, -1)), axis=-1) / self.tau

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return one score for each group."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "units": self.units, "tau": self.tau}


def _check_groups(name: str, units: int, inputs: int) -> None:
    check(units > 0 and inputs % units == 0, f"layer {name!r}: {inputs} inputs do not make {units} equal groups")
