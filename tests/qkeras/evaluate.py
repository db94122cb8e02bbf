"""What a quantised model means, computed in integers from the live QKeras model.

This shares nothing with the conversion. It walks the layers of the live model, asks its quantizer objects for the
weights, and computes sums and activations by the published definition of each layer and quantizer, in integers of any
size. Of the converted model it takes two things: the type of its input, which is a setting, and the types of scales
and biases, because a scale that is no power of two may need more than the 32 bits hardware gives it.
Such a scale is rounded here as well, and :attr:`Evaluation.rounded` says where. Nothing else is rounded but by the
model's own quantizers.

A quantizer of QKeras returns ``x + (q - x)`` in float32, which is not always q. The weights used here are q: the
nearest multiple of the quantizer's step times its scale, which is never further away than that rounding.

**Does Keras compute exactly?** Keras computes in float32, 24 bits. Along with every value, the evaluation finds out
whether Keras has any number to round on the way to it, and :attr:`Evaluation.inexact` names what it would have to
round. That is

* a weight: q is not a float32, or ``x + (q - x)`` of the live quantizer is not q;
* a sum: with g the greatest power of two that divides all terms of an output (products of inputs and weights, and the
  bias), the sum of the terms' magnitudes exceeds ``2**24 g``; otherwise every partial sum in any order is exact;
* a normalisation: one of its two products, or its sum, is not a float32, or its factor is not what the definition says;
* an activation: one of the numbers in the quantizer's formula is not a float32, done in the order QKeras does it; or
  a value lies so near to a threshold of a logarithm that its rounding decides.

Where `inexact` is empty the prediction has to be Keras' own to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kconvert import FixedType, HLSModel
from tests.qkeras.definitions import Weights, activate, quantised
from tests.qkeras.exact import Array, Exact, fits, fraction_bits

_FLOAT_BITS = 24


# ***** linear layers: every one is y = linear(x, w) for arrays of any dtype *****

Linear = Callable[[Array, Array], Array]


def _same_padding(length: int, window: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def _taps(
    x: Array, size: tuple[int, int], strides: tuple[int, int], padding: str, beyond: int = 0
) -> Iterator[tuple[int, int, Array]]:
    """Yield for every tap of a window what it sees, [n, rows, columns, channels]; `beyond` the edge."""
    if padding == "same":
        sides = [_same_padding(x.shape[1 + a], size[a], strides[a]) for a in (0, 1)]
        (top, bottom), (left, right) = sides
        n, height, width, channels = x.shape
        padded = np.full((n, top + height + bottom, left + width + right, channels), beyond, dtype=x.dtype)
        padded[:, top : top + height, left : left + width] = x
        x = padded
    rows, columns = ((x.shape[1 + a] - size[a]) // strides[a] + 1 for a in (0, 1))
    for i in range(size[0]):
        for j in range(size[1]):
            yield i, j, x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0],
                          j : j + (columns - 1) * strides[1] + 1 : strides[1]]  # fmt: skip


def _geometry(layer: Any) -> tuple[tuple[int, int], str]:
    strides = tuple(int(s) for s in np.broadcast_to(layer.strides, (2,)))
    return (strides[0], strides[1]), layer.padding


def convolution(layer: Any) -> Linear:
    """Return the convolution of `layer`, kernel [height, width, channels, filters]."""
    strides, padding = _geometry(layer)

    def linear(x: Array, w: Array) -> Array:
        return sum(seen @ w[i, j] for i, j, seen in _taps(x, w.shape[:2], strides, padding))  # type: ignore[return-value]

    return linear


def depthwise(layer: Any) -> Linear:
    """Return the convolution of every channel with filters of its own, kernel [height, width, channels, filters]."""
    strides, padding = _geometry(layer)

    def linear(x: Array, w: Array) -> Array:
        total: Any = sum(seen[..., None] * w[i, j] for i, j, seen in _taps(x, w.shape[:2], strides, padding))
        return np.asarray(total.reshape(*total.shape[:3], -1))

    return linear


def transposed(layer: Any) -> Linear:
    """Return the gradient of a convolution: each pixel adds its kernel, [height, width, filters, channels]."""
    strides, padding = _geometry(layer)

    def linear(x: Array, w: Array) -> Array:
        n, height, width, _ = x.shape
        size, space = w.shape[:2], (height, width)
        full = [(space[a] - 1) * strides[a] + max(size[a], strides[a]) for a in (0, 1)]
        y = np.zeros((n, *full, w.shape[2]), dtype=np.result_type(x, w))
        for i in range(size[0]):
            for j in range(size[1]):
                rows = slice(i, i + (height - 1) * strides[0] + 1, strides[0])
                y[:, rows, j : j + (width - 1) * strides[1] + 1 : strides[1]] += x @ w[i, j].T
        if padding == "same":
            first = [max(size[a] - strides[a], 0) // 2 for a in (0, 1)]
            y = y[:, first[0] : first[0] + height * strides[0], first[1] : first[1] + width * strides[1]]
        return y

    return linear


def _columns(kind: str, w: Array) -> Array:
    """Return a kernel as [fan-in, outputs]."""
    if kind == "depthwise":
        return w.reshape(-1, w.shape[-2] * w.shape[-1])
    if kind == "transposed":
        w = w.transpose(0, 1, 3, 2)
    return w.reshape(-1, w.shape[-1])


def _on_lines(linear: Linear) -> Linear:
    """Return a convolution of images as one of sequences."""
    return lambda x, w: linear(x[:, None], w[None])[:, 0]


# ***** the model *****


@dataclass(frozen=True)
class Tensor:
    """``value * scale + bias`` per channel; a scale waits here for as long as hardware has not applied it."""

    value: Exact
    scale: Exact | None = None
    bias: Exact | None = None

    def settled(self) -> Exact:
        """Return the numbers."""
        if self.scale is None or self.bias is None:
            return self.value
        return self.value * self.scale + self.bias


class Evaluation:
    """One evaluation of a live QKeras model.

    Attributes:
        tensors: Exact output of each layer by the layer's name.
        inexact: What Keras has to round in float32, for this input.
        rounded: Layers whose scale or bias has more bits than the hardware's type.
    """

    def __init__(self, model: Any, hls_model: HLSModel, x: Array) -> None:
        """Evaluate `model` up to a softmax, for a batch `x`."""
        self.tensors: dict[str, Tensor] = {}
        self.inexact: list[str] = []
        self.rounded: list[str] = []
        # a tensor of the model by its name, a part of one by the name of the node that computes it
        self.nodes = {node.name: node for node in hls_model}
        self.nodes |= {name: node for node in hls_model for name in node.output.names}
        for layer in model.layers:
            if not hasattr(layer, "batch_shape") and type(layer).__name__ != "InputLayer":
                self.tensors[layer.name] = self._run(layer)
                continue
            kind = self.nodes[layer.name].output.known_type()
            self.tensors[layer.name] = Tensor(Exact(kind.to_raw(x), kind.fraction).reduced())
            self._note(layer.name, self.tensors[layer.name].value.is_float32())

    def output(self, name: str) -> Array:
        """Return what the layer gives, as doubles."""
        return self.tensors[name].settled().floats()

    def _note(self, what: str, exact: bool) -> None:
        if not exact:
            self.inexact.append(what)

    def _run(self, layer: Any) -> Tensor:
        given = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        inputs = [self.tensors[t._keras_history[0].name] for t in given]
        return getattr(self, f"_{type(layer).__name__}")(layer, *inputs)  # type: ignore[no-any-return]

    # ***** what hardware declares *****

    def _declared(self, name: str, role: str, value: Exact) -> Exact:
        """Return a scale or bias in the type of the node `name`, which rounds it only where it has 32 bits."""
        kind = self.nodes[name].typed(role)
        kept = Exact(kind.requantize(value.raw, _holding(value)).astype(object), kind.fraction).reduced()
        fraction = max(kept.fraction, value.fraction)
        error = np.abs(kept.at(fraction) - value.at(fraction))
        if error.any():
            assert kind.width == 32, f"{name}: its {role} type {kind} loses {error.max()} * 2**-{fraction}"
            assert (error * 2 <= Exact(np.array(1), kind.fraction).at(max(fraction, kind.fraction))).all()
            self.rounded.append(name)
        return kept

    def _stored(self, name: str, value: Exact) -> Exact:
        """Return the result of the node `name`, which is exact unless that would take more than 64 bits."""
        kind = self.nodes[name].output.known_type()
        if kind.width < 64:
            return value
        self.rounded.append(name)
        return Exact(kind.requantize(value.raw, _holding(value)).astype(object), kind.fraction).reduced()

    # ***** the parts of layers *****

    def _activated(self, layer: Any, value: Tensor, activation: Any = None) -> Tensor:
        activation = getattr(layer, "activation", None) if activation is None else activation
        if activation is None or getattr(activation, "__name__", "") == "linear":
            return value
        step = activate(activation, value.settled())
        self._note(f"{layer.name}: activation", step.exact)
        return Tensor(step.value.reduced())

    def _weighted(
        self, name: str, x: Tensor, linear: Linear, kind: str, weights: Weights, bias: Weights | None
    ) -> Tensor:
        """Return bias + linear(x, weights)."""
        value, codes = x.settled(), weights.codes
        columns = _columns(kind, weights.values.floats())
        offset = Exact.of(np.zeros(columns.shape[1])) if bias is None else bias.values
        self._note(f"{name}: weights", weights.exact and (bias is None or bias.exact))
        self._note(f"{name}: sum", _sums_exactly(value, linear, weights.values, columns, offset))
        bits = codes.largest.bit_length() + len(columns).bit_length()
        other = max(value.largest.bit_length() + len(columns).bit_length(), 1)
        total = Exact(linear(value.roomy(bits), codes.roomy(other)), value.fraction + codes.fraction).reduced()
        scale = weights.scale.reshape(-1)
        if kind == "depthwise" and scale.size > 1:
            scale = np.tile(scale, columns.shape[1] // scale.size)
        return self._scaled(name, total, np.broadcast_to(scale, (columns.shape[1],)), offset)

    def _scaled(self, name: str, total: Exact, scale: Array, bias: Exact) -> Tensor:
        if np.all(scale == scale[0]) and abs(np.frexp(scale[0])[0]) == 0.5:
            return Tensor(total * Exact.of(scale) + self._declared(name, "bias", bias))
        alpha = f"{name}_alpha"
        if alpha not in self.nodes:  # joined with what follows
            return Tensor(total, Exact.of(scale), bias)
        factor, offset = self._declared(alpha, "scale", Exact.of(scale)), self._declared(alpha, "bias", bias)
        return Tensor(self._stored(alpha, total * factor + offset))

    def _normalised(self, layer: Any, x: Tensor, scale: Exact, bias: Exact) -> Tensor:
        """Return x * scale + bias, where hardware does this itself; else leave it to what follows."""
        if x.scale is not None and x.bias is not None:
            scale, bias = x.scale * scale, x.bias * scale + bias
        if layer.name not in self.nodes:
            return Tensor(x.value, scale, bias)
        scale, bias = self._declared(layer.name, "scale", scale), self._declared(layer.name, "bias", bias)
        return Tensor(self._stored(layer.name, x.value * scale + bias))

    def _note_normalisation(self, name: str, x: Exact, inverse: Array, offset: Array) -> None:
        product = (x.floats().astype(np.float32) * inverse).astype(np.float64)
        exact = x.is_float32() and np.array_equal(product, x.floats() * inverse.astype(np.float64))
        self._note(f"{name}: product", exact)
        self._note(f"{name}: sum", fits(product + offset.astype(np.float64)))

    # ***** layers with weights *****

    def _kernel(self, layer: Any) -> Weights:
        return quantised(layer.kernel_quantizer_internal, layer.kernel)

    def _bias(self, layer: Any) -> Weights | None:
        return quantised(layer.bias_quantizer_internal, layer.bias) if layer.use_bias else None

    def _QDense(self, layer: Any, x: Tensor) -> Tensor:
        y = self._weighted(layer.name, x, np.matmul, "dense", self._kernel(layer), self._bias(layer))
        return self._activated(layer, y)

    def _QConv2D(self, layer: Any, x: Tensor) -> Tensor:
        y = self._weighted(layer.name, x, convolution(layer), "conv", self._kernel(layer), self._bias(layer))
        return self._activated(layer, y)

    def _QConv1D(self, layer: Any, x: Tensor) -> Tensor:
        linear = _on_lines(convolution(layer))
        y = self._weighted(layer.name, x, linear, "conv", self._kernel(layer), self._bias(layer))
        return self._activated(layer, y)

    def _QDepthwiseConv2D(self, layer: Any, x: Tensor) -> Tensor:
        kernel = quantised(layer.depthwise_quantizer_internal, layer.depthwise_kernel)
        y = self._weighted(layer.name, x, depthwise(layer), "depthwise", kernel, self._bias(layer))
        return self._activated(layer, y)

    def _QConv2DTranspose(self, layer: Any, x: Tensor) -> Tensor:
        y = self._weighted(layer.name, x, transposed(layer), "transposed", self._kernel(layer), self._bias(layer))
        return self._activated(layer, y)

    def _QSeparableConv2D(self, layer: Any, x: Tensor) -> Tensor:
        return self._separable(layer, x, depthwise(layer))

    def _QSeparableConv1D(self, layer: Any, x: Tensor) -> Tensor:
        return self._separable(layer, x, _on_lines(depthwise(layer)))

    def _separable(self, layer: Any, x: Tensor, first: Linear) -> Tensor:
        kernel = quantised(layer.depthwise_quantizer_internal, layer.depthwise_kernel)
        between = self._weighted(f"{layer.name}_depthwise", x, first, "depthwise", kernel, None)
        mixer = quantised(layer.pointwise_quantizer_internal, layer.pointwise_kernel)
        codes = mixer.codes.map(lambda w: w.reshape(w.shape[-2:]))
        mixer = Weights(codes, mixer.scale.reshape(-1), mixer.exact)
        return self._activated(layer, self._weighted(layer.name, between, np.matmul, "dense", mixer, self._bias(layer)))

    # ***** recurrent layers: the quantizer of the state is applied where a step reads it *****

    def _QSimpleRNN(self, layer: Any, x: Tensor) -> Tensor:
        def step(values: Exact, h: Exact) -> tuple[Exact, ...]:
            return (self._called(layer, layer.cell.activation, self._gates(layer, values, h)),)

        return self._stepped(layer, x, step, 1)

    def _QLSTM(self, layer: Any, x: Tensor) -> Tensor:
        cell, units = layer.cell, layer.cell.units

        def step(values: Exact, h: Exact, c: Exact) -> tuple[Exact, ...]:
            gates = self._gates(layer, values, h)
            i, f, g, o = (gates.map(lambda raw, k=k: raw[:, k * units : (k + 1) * units]) for k in range(4))
            i, f, o = (self._called(layer, cell.recurrent_activation, gate) for gate in (i, f, o))
            first, second = self._kept(layer, f * c), self._kept(layer, i * self._called(layer, cell.activation, g))
            c = self._kept(layer, first + second)
            return self._kept(layer, o * self._called(layer, cell.activation, c)), c

        return self._stepped(layer, x, step, 2)

    def _QGRU(self, layer: Any, x: Tensor) -> Tensor:
        cell, units = layer.cell, layer.cell.units
        one = Exact(np.array(1), 0)

        def step(values: Exact, h: Exact) -> tuple[Exact, ...]:
            kernel, recurrent, bias, recurrent_bias = self._matrices(layer)
            p = self._product(layer, values, kernel, bias)
            q = self._product(layer, h, recurrent, recurrent_bias)
            zr = self._kept(layer, p.map(lambda raw: raw[:, : 2 * units]) + q.map(lambda raw: raw[:, : 2 * units]))
            zr = self._called(layer, cell.recurrent_activation, zr)
            z, r = zr.map(lambda raw: raw[:, :units]), zr.map(lambda raw: raw[:, units:])
            last = slice(2 * units, None)
            if cell.reset_after:
                inner = self._kept(layer, r * q.map(lambda raw: raw[:, last]))
            else:
                reset = self._kept(layer, r * h)
                inner = self._product(
                    layer, reset, recurrent.map(lambda w: w[:, last]), recurrent_bias.map(lambda b: b[last])
                )
            new = self._called(layer, cell.activation, self._kept(layer, p.map(lambda raw: raw[:, last]) + inner))
            old, rest = self._kept(layer, z * h), self._kept(layer, one + -z)
            return (self._kept(layer, old + self._kept(layer, rest * new)),)

        return self._stepped(layer, x, step, 1)

    def _stepped(self, layer: Any, x: Tensor, step: Callable[..., tuple[Exact, ...]], states: int) -> Tensor:
        values, quantizer = x.settled(), layer.cell.state_quantizer_internal
        n, length = values.raw.shape[:2]
        state = (Exact(np.zeros((n, layer.cell.units), dtype=np.int64), 0),) * states
        found = []
        for t in reversed(range(length)) if layer.go_backwards else range(length):
            read = (self._called(layer, quantizer, part) for part in state)
            state = step(values.map(lambda raw, t=t: raw[:, t]), *read)
            found.append(state[0])
        if not layer.return_sequences:
            return Tensor(found[-1])
        fraction = max(h.fraction for h in found)
        return Tensor(Exact(np.stack([h.at(fraction) for h in found], axis=1), fraction))

    def _gates(self, layer: Any, values: Exact, h: Exact) -> Exact:
        kernel, recurrent, bias, other = self._matrices(layer)
        return self._kept(layer, self._product(layer, values, kernel, bias) + self._product(layer, h, recurrent, other))

    @functools.lru_cache  # noqa: B019  an evaluation lives as long as one comparison
    def _matrices(self, layer: Any) -> tuple[Exact, ...]:
        """Return both matrices and both biases; scaled weights are the float32 numbers that QKeras multiplies with."""
        cell = layer.cell
        found = []
        for role, array in (("kernel", cell.kernel), ("recurrent", cell.recurrent_kernel)):
            weights = quantised(getattr(cell, f"{role}_quantizer_internal"), array)
            self._note(f"{layer.name}: weights", weights.exact)
            values = Exact.of(weights.values.floats().astype(np.float32))
            found.append(self._declared(layer.name, "weight" if role == "kernel" else "recurrent_weight", values))
        columns = found[0].raw.shape[1]
        bias = other = Exact(np.zeros(columns, dtype=np.int64), 0)
        if cell.use_bias:
            weights = quantised(cell.bias_quantizer_internal, cell.bias)
            self._note(f"{layer.name}: weights", weights.exact)
            bias = self._declared(layer.name, "bias", weights.values)
            if bias.raw.ndim == 2:
                bias, other = (bias.map(lambda raw, k=k: raw[k]) for k in (0, 1))
        return *found, bias, other

    def _product(self, layer: Any, x: Exact, w: Exact, bias: Exact) -> Exact:
        self._note(f"{layer.name}: sum", _sums_exactly(x, np.matmul, w, w.floats(), bias))
        bits = len(w.raw).bit_length()
        return Exact(x.roomy(w.largest.bit_length() + bits) @ w.roomy(x.largest.bit_length() + bits),
                     x.fraction + w.fraction).reduced() + bias  # fmt: skip

    def _called(self, layer: Any, function: Any, x: Exact) -> Exact:
        if function is None:
            return x
        step = activate(function, x)
        self._note(f"{layer.name}: activation", step.exact)
        return step.value.reduced()

    def _kept(self, layer: Any, x: Exact) -> Exact:
        self._note(f"{layer.name}: step", x.is_float32())
        return x

    # ***** layers with a normalisation of their own *****

    def _folded(self, layer: Any, x: Tensor, linear: Linear, kind: str) -> Tensor:
        kernel, bias = layer.get_folded_weights()
        quantizer = getattr(
            layer, "depthwise_quantizer_internal" if kind == "depthwise" else "kernel_quantizer_internal"
        )
        weights, offset = quantised(quantizer, kernel), quantised(layer.bias_quantizer_internal, bias)
        return self._activated(layer, self._weighted(layer.name, x, linear, kind, weights, offset))

    def _QDenseBatchnorm(self, layer: Any, x: Tensor) -> Tensor:
        return self._folded(layer, x, np.matmul, "dense")

    def _QConv2DBatchnorm(self, layer: Any, x: Tensor) -> Tensor:
        return self._folded(layer, x, convolution(layer), "conv")

    def _QDepthwiseConv2DBatchnorm(self, layer: Any, x: Tensor) -> Tensor:
        return self._folded(layer, x, depthwise(layer), "depthwise")

    # ***** normalisations *****

    def _BatchNormalization(self, layer: Any, x: Tensor) -> Tensor:
        import tensorflow as tf

        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        gamma = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
        beta = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + layer.epsilon)
        bias = beta - mean * scale
        inverse = np.asarray(tf.math.rsqrt(variance + np.float32(layer.epsilon))) * gamma
        offset = beta - mean * inverse
        self._note(f"{layer.name}: parameters", np.array_equal(inverse, scale) and np.array_equal(offset, bias))
        self._note_normalisation(layer.name, x.settled(), inverse, offset)
        return self._normalised(layer, x, Exact.of(scale), Exact.of(bias))

    def _QBatchNormalization(self, layer: Any, x: Tensor) -> Tensor:
        def parameter(role: str, array: Any) -> Array:
            weights = quantised(getattr(layer, f"{role}_quantizer_internal"), array)
            self._note(f"{layer.name}: {role}", weights.exact)
            return weights.values.floats().astype(np.float32)

        mean, variance = parameter("mean", layer.moving_mean), parameter("variance", layer.moving_variance)
        inverse = 1 / np.sqrt(variance + np.float32(layer.epsilon))
        if layer.scale:
            inverse = inverse * parameter("gamma", layer.gamma)
        if getattr(layer, "inverse_quantizer_internal", None) is not None:
            inverse = parameter("inverse", inverse)
        offset = -mean * inverse
        if layer.center:
            offset = parameter("beta", layer.beta) + offset
        self._note_normalisation(layer.name, x.settled(), inverse, offset)
        return self._normalised(layer, x, Exact.of(inverse), Exact.of(offset))

    # ***** layers without weights *****

    def _QActivation(self, layer: Any, x: Tensor) -> Tensor:
        quantizer = getattr(layer, "quantizer", None)
        return self._activated(layer, x, layer.activation if quantizer is None else quantizer)

    def _QAdaptiveActivation(self, layer: Any, x: Tensor) -> Tensor:
        return self._activated(layer, x, layer.quantizer)

    def _Activation(self, layer: Any, x: Tensor) -> Tensor:
        assert layer.activation.__name__ == "softmax"
        return x  # it is compared before the softmax

    def _QAveragePooling2D(self, layer: Any, x: Tensor) -> Tensor:
        size = tuple(int(n) for n in np.broadcast_to(layer.pool_size, (2,)))
        seen = [part for _, _, part in _taps(x.settled().raw, (size[0], size[1]), _geometry(layer)[0], "valid")]
        return self._mean(layer, x.settled(), np.stack(seen), grown=math.prod(size))

    def _QGlobalAveragePooling2D(self, layer: Any, x: Tensor) -> Tensor:
        value = x.settled()
        n, height, width, channels = value.raw.shape
        seen = value.raw.reshape(n, height * width, channels).swapaxes(0, 1)
        return self._mean(layer, value, seen, grown=1)

    def _mean(self, layer: Any, x: Exact, seen: Array, grown: int) -> Tensor:
        """Return the sum of `seen` over its first axis times the quantised 1 / count; Keras sums `grown` times that."""
        factor = quantised(layer.average_quantizer_internal, 1 / np.float32(len(seen)))
        total = Exact(Exact(seen, 0).roomy(len(seen)).sum(axis=0), x.fraction).reduced()
        value = total * factor.values
        largest = np.abs(seen).sum(axis=0).max() * grown
        self._note(f"{layer.name}: mean", factor.exact and int(largest) <= 1 << _FLOAT_BITS and value.is_float32())
        return self._activated(layer, Tensor(value))

    def _MaxPooling2D(self, layer: Any, x: Tensor) -> Tensor:
        size = (int(layer.pool_size[0]), int(layer.pool_size[1]))
        value = x.settled()
        lowest = -value.largest
        seen = [part for _, _, part in _taps(value.raw, size, _geometry(layer)[0], layer.padding, lowest)]
        return Tensor(Exact(np.stack(seen).max(axis=0), value.fraction))

    def _Flatten(self, layer: Any, x: Tensor) -> Tensor:
        return Tensor(x.settled().map(lambda raw: raw.reshape(len(raw), -1)))

    def _Add(self, layer: Any, x: Tensor, y: Tensor) -> Tensor:
        total = x.settled() + y.settled()
        self._note(f"{layer.name}: sum", total.is_float32())
        return Tensor(total)

    def _Concatenate(self, layer: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = x.settled(), y.settled()
        fraction = max(a.fraction, b.fraction)
        return Tensor(Exact(np.concatenate([a.at(fraction), b.at(fraction)], axis=-1), fraction))


def _holding(value: Exact) -> FixedType:
    return FixedType(127, 127 - value.fraction)


def _sums_exactly(x: Exact, linear: Linear, weights: Exact, columns: Array, bias: Exact) -> bool:
    """Whether float32 sums in any order what `linear` adds up, and the bias, without rounding."""
    if not (x.is_float32() and weights.is_float32() and bias.is_float32()):
        return False
    reduced = x.reduced()
    fraction = reduced.fraction + fraction_bits(columns).max(axis=0)
    if bias.largest:
        fraction = np.maximum(fraction, fraction_bits(bias.floats()))
    magnitude = linear(np.abs(reduced.floats()), np.abs(weights.floats())) + np.abs(bias.floats())
    # in double precision, which is exact up to far more than the bound
    return bool((magnitude <= 2.0 ** (_FLOAT_BITS - fraction)).all())
