"""Dense and convolutional Keras layers that compute as 8-bit hardware does, with any multiplier.

A layer is the Keras layer of the same kind plus a `mode`:

* ``"float"``: exactly that Keras layer.
* ``"quantised"``: inputs and kernel are 8-bit codes (see :mod:`.quantisation`), ``y = s_x s_w Σ x_q w_q + bias``.
* ``"noisy"``: the same, and in training ``Σ + σ · std(Σ) · ε`` with ε standard normal and std over the whole batch, as
  part of the graph: what σ does to the loss tells how much error the layer bears (Trommer et al., ICCAD 2022).
* ``"approximate"``: each product is that of the assigned multiplier, ``y = s_x s_w Σ approx(x_q, w_q) + bias``.

Gradients pass rounding unchanged where nothing is clipped, and those of an approximate product are the exact one's.

Weights, in the order of ``layer.weights``: kernel, bias (if any), input_scale, weight_scale, sigma (all scalars), and
the table of products, int32 [256, 256], once a multiplier is assigned: a saved model is complete without its library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from .emulation.low_rank import LowRank, low_rank
from .emulation.table import TableProduct
from .errors import check
from .multipliers import EXACT_PRODUCTS, ApproximateMultiplier
from .quantisation import MOST, codes

register = keras.saving.register_keras_serializable("kconvert_approx")

MODES = ("float", "quantised", "noisy", "approximate")
EMULATIONS = ("auto", "table", "low_rank")
MOST_TERMS = 8
"""Ranks up to this one are worth training with: beyond, the table is faster."""

_NO_PADDING = ((0, 0), (0, 0))


class Approximable(keras.layers.Layer):  # type: ignore[misc]
    """What the layers of this module share, in front of the Keras layer in the order of bases.

    Args:
        mode: One of :data:`MODES`.
        multiplier: ``{"name": ..., "metric": ...}`` of the assigned multiplier, or None; its table is a weight. Use
            :meth:`assign` to set it.
        source: Its behavioural C++, if known.
        **kwargs: Those of the Keras layer.
    """

    def __init__(
        self,
        *args: Any,
        mode: str = "quantised",
        multiplier: Mapping[str, Any] | None = None,
        source: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check(mode in MODES, f"layer {self.name!r}: mode is one of {', '.join(MODES)}, received {mode!r}")
        check(
            getattr(self, "data_format", "channels_last") == "channels_last" and getattr(self, "groups", 1) == 1,
            f"layer {self.name!r}: channels_first and groups are not supported",
        )
        check(
            self.compute_dtype in ("float32", "float64"),
            f"layer {self.name!r}: sums of codes need float32 or float64, received {self.compute_dtype}",
        )
        self.mode = mode
        self.multiplier_name = None if multiplier is None else str(multiplier["name"])
        self.multiplier_metric = None if multiplier is None else float(multiplier["metric"])
        self.source = source
        self.emulation, self.bound = "auto", 0.0
        self.observer: Callable[[Approximable, Any], None] | None = None
        self.supports_jit = False  # products through the table are computed outside TensorFlow
        self._forms: dict[str, Any] | None = None

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        super().build(input_shape)
        self.input_scale = self.add_weight(shape=(), initializer="ones", trainable=False, name="input_scale")
        self.weight_scale = self.add_weight(shape=(), initializer="ones", trainable=False, name="weight_scale")
        sigma = self.add_weight(shape=(), initializer="zeros", name="sigma")
        # TensorFlow only finds gradients of what was made trainable; Keras shall list it with the other scalars.
        self._untrack_variable(sigma)
        sigma.trainable = False
        self._track_variable(sigma)
        self.sigma = sigma
        self.table: Any = None
        if self.multiplier_name is not None:
            self._add_table()

    def _add_table(self) -> None:
        self.table = self.add_weight(
            shape=(256, 256), dtype="int32", initializer="zeros", trainable=False, name="table"
        )

    def assign(self, multiplier: ApproximateMultiplier) -> None:
        """Compute with `multiplier` from now on, in mode "approximate".

        A compiled function that ran this layer before keeps the multiplier it had: compile the model again.
        """
        check(self.built, f"layer {self.name!r} is not built yet: call it on data, or build its model")
        if self.table is None:
            self._tracker.unlock()
            self._add_table()
            self._tracker.lock()
        self.table.assign(multiplier.table)
        self.multiplier_name, self.multiplier_metric = multiplier.name, multiplier.performance_metric
        self.source = multiplier.cpp
        self._forget()

    @property
    def multiplier(self) -> ApproximateMultiplier | None:
        """The assigned multiplier."""
        if self.multiplier_name is None or self.multiplier_metric is None:
            return None
        table = ops.convert_to_numpy(self.table)
        return ApproximateMultiplier(self.multiplier_name, self.multiplier_metric, EXACT_PRODUCTS - table, self.source)

    def save_own_variables(self, store: Any) -> None:
        """Write all weights in their order; the Keras layers of these kinds know only of theirs."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Take the weights of a file."""
        keras.layers.Layer.load_own_variables(self, store)
        self._forget()

    def _forget(self) -> None:
        self._forms = None

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        named = self.multiplier_name is not None
        multiplier = {"name": self.multiplier_name, "metric": self.multiplier_metric} if named else None
        return {**super().get_config(), "mode": self.mode, "multiplier": multiplier, "source": self.source}

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the layer's output, of the shape that the Keras layer has."""
        if self.observer is not None:
            self.observer(self, inputs)
        if self.mode == "float":
            y = self._product(inputs, ops.convert_to_tensor(self.kernel))
        else:
            x = quantised(inputs, self.input_scale)
            w = quantised(ops.convert_to_tensor(self.kernel), self.weight_scale)
            total = self._approximate(x, w) if self.mode == "approximate" else self._product(x, w)
            if self.mode == "noisy" and training:
                total = perturbed(total, self.sigma)
            y = total * (self.input_scale * self.weight_scale)
        if self.bias is not None:
            y = ops.add(y, self.bias)
        return y if self.activation is None else self.activation(y)

    # What follows is about sums of products of codes; they are whole numbers in floating point.

    def _approximate(self, x: Any, w: Any) -> Any:
        """Sums of approximate products, with the gradient of exact ones."""
        check(self.table is not None, f"layer {self.name!r} has no multiplier: assign one before mode 'approximate'")
        forms = self._known_forms()
        forward = self._through_table if forms["low_rank"] is None else self._through_terms

        def product(x: Any, w: Any) -> tuple[Any, Callable[..., Any]]:
            def gradient(upstream: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch((x, w))
                    exact = self._product(x, w)  # its value is not used, so that a graph does not compute it
                return tape.gradient(exact, (x, w), upstream)

            return forward(x, w), gradient

        return tf.custom_gradient(product)(x, w)

    def _known_forms(self) -> dict[str, Any]:
        """Return the compiled table, or the terms to train with, of the multiplier."""
        if self._forms is None:
            check(
                self.emulation in EMULATIONS,
                f"layer {self.name!r}: emulation is one of {', '.join(EMULATIONS)}, received {self.emulation!r}",
            )
            with tf.init_scope():  # the numbers themselves, also while a graph is traced
                table = np.asarray(self.table.numpy())
            terms = None if self.emulation == "table" else low_rank(EXACT_PRODUCTS - table, bound=self.bound)
            if self.emulation == "auto" and terms is not None and not (terms.exact and terms.rank <= MOST_TERMS):
                terms = None
            self._forms = {"low_rank": terms, "table": TableProduct(table) if terms is None else None}
        return self._forms

    def _through_table(self, x: Any, w: Any) -> Any:
        product: TableProduct = self._known_forms()["table"]

        def compute(x: Any, w: Any) -> Any:
            return self._sums(product, x.astype(np.int8), w.astype(np.int8)).astype(x.dtype)

        y = tf.numpy_function(compute, (x, w), x.dtype, stateful=False)
        y.set_shape(self.compute_output_shape(x.shape))
        return y

    def _through_terms(self, x: Any, w: Any) -> Any:
        terms: LowRank = self._known_forms()["low_rank"]
        first = np.arange(-128.0, 128.0)[:, None]
        left = ops.convert_to_tensor(np.hstack([first, terms.left]), dtype=x.dtype)
        right = ops.convert_to_tensor(np.hstack([first, -terms.right]), dtype=x.dtype)
        width = terms.rank + 1
        pads = self._padding(x.shape)
        if pads != _NO_PADDING and terms.left[128].any():  # code 0 has an error of its own
            x = ops.pad(x, ((0, 0), *pads, (0, 0)))
            pads = _NO_PADDING
        wide_x = ops.take(left, ops.cast(x, "int32") + 128, axis=0)
        wide_x = ops.reshape(wide_x, (*ops.shape(x)[:-1], x.shape[-1] * width))
        wide_w = ops.swapaxes(ops.take(right, ops.cast(w, "int32") + 128, axis=0), -1, -2)
        wide_w = ops.reshape(wide_w, (*w.shape[:-2], w.shape[-2] * width, w.shape[-1]))
        y = self._summed(self._product(wide_x, wide_w, pads), width)
        return ops.round(y) if terms.exact else y

    def _product(self, x: Any, w: Any, pads: Any = None) -> Any:
        """Exact sums of products of inputs and a kernel; without `pads`, padded as the layer says."""
        raise NotImplementedError

    def _summed(self, y: Any, width: int) -> Any:
        """Add the outputs of the terms that one channel was expanded to, where the product did not."""
        return y

    def _sums(self, product: TableProduct, x: Any, w: Any) -> Any:
        """Sums of products by table of int8 arrays."""
        raise NotImplementedError

    def _padding(self, shape: Any) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of code 0 around inputs of a shape."""
        return _NO_PADDING

    def operands(self, x: Any) -> tuple[Any, Any, Any]:
        """Return the integers that meet in this layer's multipliers for inputs `x`.

        Returns:
            int8 rows [n, fan_in] of input codes, as many as there are places a kernel is laid on (for a depthwise layer
            times channels); int8 [fan_in, outputs], the kernel's codes; int64 [places, outputs], exact sums.
        """
        w = codes(ops.convert_to_numpy(self.kernel), float(self.weight_scale.numpy()))
        return self._operands(codes(ops.convert_to_numpy(x), float(self.input_scale.numpy())), w)

    def _operands(self, x: Any, w: Any) -> tuple[Any, Any, Any]:
        rows = self._rows(x, w)
        w = w.reshape(-1, w.shape[-1])
        return rows, w, _sums_of(rows, w)

    def _rows(self, x: Any, w: Any) -> Any:
        return x.reshape(-1, x.shape[-1])


def quantised(x: Any, scale: Any) -> Any:
    """Return the codes of `x` as floating point; the gradient passes where nothing is clipped."""
    scaled = ops.clip(x / scale, -MOST, MOST)
    return scaled + ops.stop_gradient(ops.round(scaled) - scaled)  # exact: the difference is at most half a code


def perturbed(total: Any, sigma: Any) -> Any:
    """Return ``total + sigma · std(total) · ε``, ε standard normal for each element."""
    variance = ops.maximum(ops.var(total), 1e-12)  # a constant has no deviation, and its root no gradient
    noise = keras.random.normal(ops.shape(total), dtype=total.dtype)
    return total + sigma * ops.sqrt(variance) * noise


def _sums_of(rows: Any, w: Any) -> Any:
    return np.asarray(np.rint(rows.astype(np.float64) @ w.astype(np.float64)), np.int64)  # exact below 2^53


@register
class ApproxDense(Approximable, keras.layers.Dense):  # type: ignore[misc]
    """A Dense layer of 8-bit codes; see the module."""

    def _product(self, x: Any, w: Any, pads: Any = None) -> Any:
        return ops.matmul(x, w)

    def _sums(self, product: TableProduct, x: Any, w: Any) -> Any:
        return product.matrix(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


class _Convolution(Approximable):
    """What both convolutions share; kernel [height, width, channels, outputs of a channel or of all]."""

    def _padding(self, shape: Any) -> tuple[tuple[int, int], tuple[int, int]]:
        if self.padding == "valid":
            return _NO_PADDING
        sizes = zip(shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        rows, columns = (self._around(*each) for each in sizes)
        return rows, columns

    def _around(self, size: int | None, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        if size is None:
            check(stride == 1, f"layer {self.name!r}: padding 'same' with strides needs a known image size")
            size = kernel * dilation  # any will do
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        return total // 2, total - total // 2

    def _laid(self, pads: Any) -> tuple[str, Any]:
        return ("valid" if pads == _NO_PADDING else self.padding), self.dilation_rate

    def _rows(self, x: Any, w: Any) -> Any:
        """Receptive fields, [places, height · width · channels]."""
        x = np.pad(x, ((0, 0), *self._padding(x.shape), (0, 0)))
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.strides, self.dilation_rate
        extent = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
        windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
        return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * x.shape[-1])


@register
class ApproxConv2D(_Convolution, keras.layers.Conv2D):  # type: ignore[misc]
    """A Conv2D layer of 8-bit codes; see the module."""

    def _product(self, x: Any, w: Any, pads: Any = None) -> Any:
        padding, dilation = self._laid(pads)
        return ops.conv(x, w, tuple(self.strides), padding, "channels_last", dilation)

    def _sums(self, product: TableProduct, x: Any, w: Any) -> Any:
        return product.convolution(x, w, tuple(self.strides), self.dilation_rate, self._padding(x.shape))


@register
class ApproxDepthwiseConv2D(_Convolution, keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """A DepthwiseConv2D layer of 8-bit codes; see the module."""

    def _product(self, x: Any, w: Any, pads: Any = None) -> Any:
        padding, dilation = self._laid(pads)
        return ops.depthwise_conv(x, w, tuple(self.strides), padding, "channels_last", dilation)

    def _summed(self, y: Any, width: int) -> Any:
        place, each = ops.shape(y)[:-1], self.depth_multiplier
        channels = y.shape[-1] // (width * each)
        y = ops.sum(ops.reshape(y, (*place, channels, width, each)), axis=-2)
        return ops.reshape(y, (*place, channels * each))

    def _sums(self, product: TableProduct, x: Any, w: Any) -> Any:
        grouped = w.reshape(*w.shape[:2], 1, -1)
        pads = self._padding(x.shape)
        return product.convolution(x, grouped, tuple(self.strides), self.dilation_rate, pads, groups=x.shape[-1])

    def _operands(self, x: Any, w: Any) -> tuple[Any, Any, Any]:
        height, width, channels, each = w.shape
        fields = self._rows(x, w).reshape(-1, height * width, channels).transpose(0, 2, 1)  # [places, channels, fan_in]
        kernel = w.reshape(height * width, channels, each)
        sums = np.einsum("pcf,fcm->pcm", fields.astype(np.int64), kernel.astype(np.int64))
        rows = np.ascontiguousarray(fields).reshape(-1, height * width)
        return rows, kernel.reshape(height * width, channels * each), sums.reshape(-1, channels * each)


KINDS: dict[type, type[Approximable]] = {
    keras.layers.Dense: ApproxDense,
    keras.layers.Conv2D: ApproxConv2D,
    keras.layers.DepthwiseConv2D: ApproxDepthwiseConv2D,
}
"""What each layer of Keras becomes; subclasses of these stay as they are."""
