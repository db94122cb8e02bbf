"""Keras layers whose nodes are look-up tables, and those that go with them.

A layer given `units` as a number acts on the last axis: whatever stands before it are frames, as samples are, so that a
network of such layers after :class:`Patches` is a convolution. Given a shape, it reads the whole sample and answers in
that shape. Inputs above 0.5 are a 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .errors import check, is_whole
from .tables import VARIANCE_FLOOR, LutArray, any_table, differentiable_tables, lut_array, majority_table
from .wiring import check_kind, wire

register = keras.saving.register_keras_serializable("kconvert_contrib")
MOST_INPUTS = 6


@register
class UnitInterval(keras.constraints.Constraint):  # type: ignore[misc]
    """Keeps tables within [0, 1]."""

    def __call__(self, w: Any) -> Any:
        """Return `w`, clipped."""
        return ops.clip(w, 0.0, 1.0)


class Wired(keras.layers.Layer):  # type: ignore[misc]
    """What layers of nodes with `n_inputs` pins share: their options, wiring, and the look-up.

    Args:
        units: Number of nodes, or their shape.
        n_inputs: Pins of a node, 2 to 6.
        connection: How pins are wired before training; see :func:`kconvert_contrib.lutnet.wiring.wire`.
        seed: The same seed gives the same wiring.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self, units: int | Sequence[int], n_inputs: int = 6, connection: str = "random", seed: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        sizes = (units,) if is_whole(units) else tuple(units) if isinstance(units, Sequence) else ()
        known = len(sizes) > 0 and all(is_whole(size) and size > 0 for size in sizes)
        check(known, f"layer {self.name!r}: units has to be positive, a number or several; received {units!r}")
        self.units = int(sizes[0]) if is_whole(units) else tuple(map(int, sizes))
        pins = is_whole(n_inputs) and 2 <= n_inputs <= MOST_INPUTS
        check(pins, f"layer {self.name!r}: n_inputs is 2 to {MOST_INPUTS}, received {n_inputs!r}")
        check_kind(connection)
        self.n_inputs, self.connection, self.seed = int(n_inputs), connection, seed
        self.autocast = False  # tables and statistics are float32, whatever the rest of the model computes in

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """Shape of the nodes."""
        return (self.units,) if isinstance(self.units, int) else self.units

    def input_axes(self, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Return the part of the input's shape that one set of nodes reads."""
        axes = tuple(shape[-1:] if isinstance(self.units, int) else shape[1:])
        check(
            None not in axes and len(axes) > 0,
            f"layer {self.name!r}: the size of what the nodes read has to be known; received input shape {shape}",
        )
        return tuple(int(a or 0) for a in axes)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return frames and units."""
        frames = input_shape[:-1] if isinstance(self.units, int) else input_shape[:1]
        return (*frames, *self.unit_shape)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Wire the nodes: an int32 weight [units, n_inputs]."""
        axes = self.input_axes(input_shape)
        self.input_size = math.prod(axes)
        wiring = wire(self.connection, axes, self.unit_shape, self.n_inputs, self.seed)
        self.wiring = self.add_weight(shape=wiring.shape, dtype="int32", trainable=False, name="connection")
        self.wiring.assign(wiring)

    def frames_of(self, x: Any) -> Any:
        """Return `x` as [frames, inputs]."""
        return ops.cast(ops.reshape(x, (-1, self.input_size)), "float32")

    def shaped(self, y: Any, x: Any) -> Any:
        """Return `y`, [frames, units], in the shape that belongs to the input `x`."""
        frames = ops.shape(x)[:-1] if isinstance(self.units, int) else ops.shape(x)[:1]
        return ops.cast(ops.reshape(y, (*frames, *self.unit_shape)), self.compute_dtype)

    def lut_array(self) -> LutArray:
        """Return tables and wiring as the hardware has them."""
        check(self.built, f"layer {self.name!r} is not built yet: call it on data, or build its model")
        weights = [ops.convert_to_numpy(w) for w in self.weights]
        return lut_array(type(self).__name__, self.get_config(), weights)

    def lut_tables(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return uint64 [units]; bit a of a word is the answer at address a."""
        return self.lut_array().words

    def connections(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return int64 [units, n_inputs], the input that each pin reads; pin 0 is bit 0 of the address."""
        return self.lut_array().connections

    def set_connections(self, connections: Any) -> None:
        """Wire the nodes as said by int [units, n_inputs]."""
        check(self.built, f"layer {self.name!r} is not built yet: call it on data, or build its model")
        wiring, shape = np.asarray(connections), (math.prod(self.unit_shape), self.n_inputs)
        check(
            wiring.shape == shape and wiring.min() >= 0 and wiring.max() < self.input_size,
            f"layer {self.name!r}: expected connections {shape} to {self.input_size} inputs, "
            f"received {wiring.shape} from {wiring.min()} to {wiring.max()}",
        )
        self.wiring.assign(wiring.astype(np.int32))

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = {"units": self.units, "n_inputs": self.n_inputs, "connection": self.connection, "seed": self.seed}
        return {**super().get_config(), **own}


def look_up(x: Any, tables: Any, connection: Any) -> Any:
    """Return float32 [frames, units]: the entry of each of `tables` [units, 2**n] at the address that x says.

    Args:
        x: Float [frames, inputs].
        tables: Float32 [units, 2**n].
        connection: Int32 [units, n].
    """
    units, size = tables.shape
    bits = ops.transpose(ops.cast(x > 0.5, "int32"))  # rows are gathered whole, and faster
    place = size * ops.reshape(ops.arange(units, dtype="int32"), (-1, 1))
    for i in range(connection.shape[1]):
        place = place + ops.take(bits, connection[:, i], axis=0) * 2**i
    return ops.transpose(ops.take(ops.reshape(tables, (-1,)), place, axis=0))


def interpolate(pins: Any, table: Any) -> Any:
    """Return float32 [frames, units], the multilinear reads of `table` [units, 2**n] at pins in [0, 1].

    One pin of [frames, units, n] after the other is contracted, the last first; the backend derives the gradients.
    """
    result = table[None]
    for i in reversed(range(pins.shape[2])):
        pin, half = pins[:, :, i : i + 1], 2**i
        result = result[:, :, :half] * (1.0 - pin) + result[:, :, half:] * pin
    return result[:, :, 0]


def numbers(layer: Any, x: Any) -> Any:
    """Return the input of a layer as the numbers that it computes with: Keras leaves integers and bools as they are."""
    return ops.cast(x, layer.compute_dtype)


def straight_through(value: Any, gradient_of: Any) -> Any:
    """Return `value` with the gradient of `gradient_of`."""
    nothing = gradient_of - ops.stop_gradient(gradient_of)  # but for its gradient
    return ops.stop_gradient(value) + nothing


@register
class DifferentiableLut(Wired):
    """Trained look-up tables: a multilinear read of the table, batch normalisation, hard tanh.

    In training, ``z = sum_j table[j] * prod_i (u_i if bit i of j else 1 - u_i)``, ``t = gamma * (z - mean) /
    sqrt(variance) + beta``. In binary mode inputs are read as u = 0.25 and 0.75, the answer is ``t > 0.5``, and the
    gradient passes where 0 < t < 1; otherwise u is the input within [0, 1] and the answer t within [0, 1]. Entries of
    the tables stay within [0, 1]. Inference in binary mode looks answers up in the tables that go to hardware.

    Args:
        units: Number of nodes, or their shape (height, width, channels) for wiring that follows an image.
        n_inputs: Pins of a node, 2 to 6.
        connection: How pins are wired before training; see :class:`Wired`.
        seed: The same seed gives the same wiring; tables start from it too.
        binary: Read inputs as bits, and answer in bits.
        batch_norm: Normalise reads over the frames of a batch.
        momentum: Share of the running statistics that one batch keeps. At 0, the default of BinaryBrain's Python side,
            inference goes by the last batch alone and jitters; its C++ side has 0.9, as here.
        gamma: Constant gain of the normalised read.
        beta: Its constant offset.
        lut_binarize: Read entries of the tables as 0 and 1; the gradient passes.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        units: int | Sequence[int],
        n_inputs: int = 6,
        connection: str = "random",
        seed: int = 1,
        binary: bool = True,
        batch_norm: bool = True,
        momentum: float = 0.9,
        gamma: float = 0.3,
        beta: float = 0.5,
        lut_binarize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, n_inputs, connection, seed, **kwargs)
        self.binary, self.batch_norm, self.lut_binarize = binary, batch_norm, lut_binarize
        self.momentum, self.gamma, self.beta = momentum, gamma, beta
        check(gamma > 0, f"layer {self.name!r}: gamma has to be above 0, received {gamma}")
        check(0 <= momentum < 1, f"layer {self.name!r}: momentum is in [0, 1), received {momentum}")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make tables, wiring and statistics, the weights in this order."""
        count = math.prod(self.unit_shape)
        normal = keras.initializers.RandomNormal(0.5, 0.01, seed=self.seed)
        self.table = self.add_weight(
            shape=(count, 2**self.n_inputs), initializer=normal, constraint=UnitInterval(), name="table"
        )
        super().build(input_shape)
        if self.batch_norm:
            self.moving_mean = self.add_weight(shape=(count,), initializer="zeros", trainable=False, name="moving_mean")
            self.moving_variance = self.add_weight(
                shape=(count,), initializer="ones", trainable=False, name="moving_variance"
            )

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Return the answers of the nodes to `x`."""
        frames = self.frames_of(x)
        learns = bool(training) and self.trainable
        if learns and self.binary and keras.backend.backend() == "tensorflow":
            y = self._read_fast(frames)
        elif learns or not self.binary:
            y = self._read_slowly(frames, learns)
        else:
            y = look_up(frames, ops.cast(self._tables(), "float32"), self.wiring)
            if training:  # a frozen layer answers as in inference, and hands the gradient on to those before it
                y = straight_through(y, self._read_slowly(frames, False))
        return self.shaped(y, x)

    def _tables(self) -> Any:
        return differentiable_tables(
            ops.convert_to_tensor(self.table),
            binary=self.binary,
            lut_binarize=self.lut_binarize,
            statistics=(self.moving_mean, self.moving_variance) if self.batch_norm else (),
            gamma=self.gamma,
            beta=self.beta,
            xp=ops,
        )

    def _entries(self) -> Any:
        table = ops.convert_to_tensor(self.table)
        return straight_through(ops.cast(table > 0.5, "float32"), table) if self.lut_binarize else table

    def _read_fast(self, frames: Any) -> Any:
        from .training import read  # of TensorFlow

        norm = (self.gamma, self.beta) if self.batch_norm else None
        y, mean, variance = read(frames, self._entries(), ops.convert_to_tensor(self.wiring), norm)
        if self.batch_norm:
            self._update(mean, variance)
        return y

    def _read_slowly(self, frames: Any, training: bool) -> Any:
        u = ops.where(frames > 0.5, 0.75, 0.25) if self.binary else ops.clip(frames, 0.0, 1.0)
        z = interpolate(ops.take(straight_through(u, frames), self.wiring, axis=1), self._entries())
        if not self.batch_norm:
            t = z
        elif training:
            mean = ops.mean(z, axis=0)
            variance = ops.mean(ops.square(z - mean), axis=0)
            variance = straight_through(ops.maximum(variance, VARIANCE_FLOOR), variance)
            t = self.gamma * (z - mean) / ops.sqrt(variance) + self.beta
            self._update(mean, variance)
        else:
            t = self.gamma * (z - self.moving_mean) / ops.sqrt(self.moving_variance) + self.beta
        limited = ops.clip(t, 0.0, 1.0)
        through = limited if self.batch_norm else t
        return straight_through(ops.cast(t > 0.5, "float32") if self.binary else limited, through)

    def _update(self, mean: Any, variance: Any) -> None:
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + ops.stop_gradient(batch) * (1.0 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = ("binary", "batch_norm", "momentum", "gamma", "beta", "lut_binarize")
        return {**super().get_config(), **{key: getattr(self, key) for key in own}}


@register
class StochasticLut(DifferentiableLut):
    """A :class:`DifferentiableLut` without batch normalisation, whose entries are read as bits.

    Out of binary mode inputs are probabilities of a 1, and so are answers. Its arguments and defaults are those of
    DifferentiableLut but for ``binary=False, lut_binarize=True``; there are no batch_norm, momentum, gamma and beta.
    """

    def __init__(
        self,
        units: int | Sequence[int],
        n_inputs: int = 6,
        connection: str = "random",
        seed: int = 1,
        binary: bool = False,
        lut_binarize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, n_inputs, connection, seed, binary, batch_norm=False, lut_binarize=lut_binarize, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        config = super().get_config()
        for key in ("batch_norm", "momentum", "gamma", "beta"):
            del config[key]
        return config


class FixedLut(Wired):
    """What layers with a table that is not trained share.

    Args:
        units: Number of nodes, or their shape.
        n_inputs: Pins of a node, 2 to 6.
        connection: See :class:`Wired`.
        seed: The same seed gives the same wiring.
        low: The answer where the table holds 0.
        high: The answer where it holds 1.
        **kwargs: Those of every Keras layer.
    """

    def __init__(
        self,
        units: int | Sequence[int],
        n_inputs: int = 6,
        connection: str = "serial",
        seed: int = 1,
        low: float = 0.0,
        high: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, n_inputs, connection, seed, **kwargs)
        self.low, self.high = low, high

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Return the answers of the nodes to `x`."""
        frames = self.frames_of(x)
        values = np.where(self.truth_table(), self.high, self.low).astype(np.float32)
        tables = ops.convert_to_tensor(np.tile(values, (math.prod(self.unit_shape), 1)))
        y = look_up(frames, tables, self.wiring)
        if training:
            y = straight_through(y, self.gradient_of(ops.take(frames, self.wiring, axis=1)))
        return self.shaped(y, x)

    def truth_table(self) -> Any:
        """Return bool [2**n_inputs]."""
        raise NotImplementedError

    def gradient_of(self, pins: Any) -> Any:
        """Return what the gradient is that of, [frames, units], from pins [frames, units, n_inputs]."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "low": self.low, "high": self.high}


@register
class AverageLut(FixedLut):
    """Majority of the inputs; a tie is 0. Each input gets its share of the gradient.

    Arguments are those of :class:`FixedLut`; as in BinaryBrain, answers are -1 and 1 unless told otherwise.
    """

    def __init__(
        self,
        units: int | Sequence[int],
        n_inputs: int = 6,
        connection: str = "serial",
        seed: int = 1,
        low: float = -1.0,
        high: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, n_inputs, connection, seed, low, high, **kwargs)

    def truth_table(self) -> Any:
        """Return bool [2**n_inputs]."""
        return majority_table(self.n_inputs)

    def gradient_of(self, pins: Any) -> Any:
        """Return the mean of the pins."""
        return ops.mean(pins, axis=2)


@register
class MaxLut(FixedLut):
    """1 where any input is 1; the largest input gets the gradient. Arguments are those of :class:`FixedLut`."""

    def truth_table(self) -> Any:
        """Return bool [2**n_inputs]."""
        return any_table(self.n_inputs)

    def gradient_of(self, pins: Any) -> Any:
        """Return the largest of the pins."""
        return ops.max(pins, axis=2)
