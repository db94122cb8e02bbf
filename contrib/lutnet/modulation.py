"""Keras layers that show bits a number as the share of 1s: over frames, one after the other, or side by side.

Frames are an axis of their own, the second: the batch keeps its size, and LUT layers given `units` as a number treat
every frame as they treat a sample. (BinaryBrain puts frames into the batch.) Bits are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .encoders import Shape, size_of
from .errors import check
from .layers import numbers, register, straight_through


@register
class RealToBinary(keras.layers.Layer):  # type: ignore[misc]
    """Numbers as bits: frame f, slice d of a number x is ``x > (d + (f + 0.5) / frames) / depth``.

    Numbers [batch, features] within [low, high] become bits [batch, frames, features * depth], the slices of one
    feature next to each other. The gradient goes to x in full where it is within the slice.

    Args:
        frames: Bits one after the other.
        depth: Bits side by side.
        low: Lower end of the range of inputs.
        high: Its upper end.
        noise: In place of (f + 0.5) / frames, draw from [0, 1): ``"element"``: for every bit; ``"frame"``: one number
            for a whole frame; None: do not.
        seed: Where the noise starts.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        frames: int = 1,
        depth: int = 1,
        low: float = 0.0,
        high: float = 1.0,
        noise: str | None = None,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(frames > 0 and depth > 0, f"layer {self.name!r}: frames and depth have to be positive")
        check(low < high, f"layer {self.name!r}: low has to be below high, received {low} and {high}")
        check(noise in (None, "element", "frame"), f"layer {self.name!r}: noise is 'element', 'frame' or None")
        self.frames, self.depth, self.low, self.high, self.noise, self.seed = frames, depth, low, high, noise, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any) -> Any:
        """Return the bits."""
        share = (numbers(self, x) - self.low) / (self.high - self.low)
        slices = ops.convert_to_tensor(np.arange(self.depth, dtype=np.float32))
        within = ops.clip(share[:, None, :, None] * self.depth - ops.cast(slices, share.dtype), 0.0, 1.0)
        batch, features = ops.shape(x)[0], size_of(x.shape[-1], self.name)
        thresholds = self._thresholds(batch, features, share.dtype)
        bits = straight_through(ops.cast(within > thresholds, share.dtype), within + 0.0 * thresholds)
        return ops.reshape(bits, (batch, self.frames, features * self.depth))

    def _thresholds(self, batch: Any, features: int, dtype: Any) -> Any:
        """Return the thresholds within a slice: [batch, frames, features, depth], or 1 where they are the same."""
        if self.noise is None:
            levels = (np.arange(self.frames) + 0.5) / self.frames
            return ops.cast(ops.convert_to_tensor(levels.reshape(1, -1, 1, 1)), dtype)
        each = (features, self.depth) if self.noise == "element" else (1, 1)
        return ops.cast(keras.random.uniform((batch, self.frames, *each), seed=self.generator), dtype)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return batch, frames, bits."""
        return (input_shape[0], self.frames, size_of(input_shape[-1], self.name) * self.depth)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = ("frames", "depth", "low", "high", "noise", "seed")
        return {**super().get_config(), **{key: getattr(self, key) for key in own}}


@register
class BinaryToReal(keras.layers.Layer):  # type: ignore[misc]
    """Shares of 1s: answer k is that among the bits k, k + units, k + 2 * units, ... of all frames.

    Bits [batch, frames, features] become numbers within [0, 1], [batch, units]. The gradient is that of a mean.

    Args:
        units: Number of answers; divides the number of features.
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        """Check the number of features."""
        features = size_of(input_shape[-1], self.name)
        check(
            self.units > 0 and features % self.units == 0,
            f"layer {self.name!r}: {features} bits do not make {self.units} equal groups",
        )

    def call(self, x: Any) -> Any:
        """Return the shares."""
        x = numbers(self, x)
        ones = straight_through(ops.cast(x > 0, x.dtype), x)
        return ops.mean(ops.reshape(ones, (ops.shape(x)[0], -1, self.units)), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return batch, units."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "units": self.units}


@register
class BinaryModulation(keras.layers.Layer):  # type: ignore[misc]
    """Layers of bits between numbers: numbers to bits, the layers, bits to numbers.

    Its config lists the encoder of inference and the decoder among the layers, as that of a Sequential of them would:
    this is how kconvert reads it.

    Args:
        layers: The layers inside, that act on the last axis.
        units: Number of answers.
        training_frames: Frames of a sample in training.
        inference_frames: Frames of a sample in inference: more of them answer more finely, and take longer.
        depth: Bits of a number side by side.
        training_noise: See :class:`RealToBinary`.
        inference_noise: See :class:`RealToBinary`.
        seed: Where the noise starts.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        units: int,
        training_frames: int = 1,
        inference_frames: int = 1,
        depth: int = 1,
        training_noise: str | None = None,
        inference_noise: str | None = None,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layers = [
            keras.saving.deserialize_keras_object(layer) if isinstance(layer, dict) else layer for layer in layers
        ]
        self.units, self.training_frames, self.inference_frames = units, training_frames, inference_frames
        self.depth, self.seed = depth, seed
        self.training_noise, self.inference_noise = training_noise, inference_noise
        self.training_encoder = RealToBinary(training_frames, depth, noise=training_noise, seed=seed)
        self.inference_encoder = RealToBinary(inference_frames, depth, noise=inference_noise, seed=seed)
        self.decoder = BinaryToReal(units)

    def build(self, input_shape: Shape) -> None:
        """Build the layers inside."""
        shape = self.inference_encoder.compute_output_shape(input_shape)
        for layer in [*self.layers, self.decoder]:
            if not layer.built:  # one from a file is, already
                layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Return the numbers that come out."""
        x = (self.training_encoder if training else self.inference_encoder)(x)
        for layer in self.layers:
            x = layer(x)  # Keras hands `training` on
        return self.decoder(x)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Return batch, units."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = ("units", "training_frames", "inference_frames", "depth", "training_noise", "inference_noise", "seed")
        chain = (self.inference_encoder, *self.layers, self.decoder)
        layers = [keras.saving.serialize_keras_object(layer) for layer in chain]
        return {**super().get_config(), "layers": layers, **{key: getattr(self, key) for key in own}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the layer that has a config."""
        return cls(**{**config, "layers": config["layers"][1:-1]})
