"""The numbers behind the figures, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters import build_model, read_model
from kconvert.errors import InputError
from kconvert.inputs import input_arrays
from kconvert.layers import Constant, Input, Node, Value
from kconvert.model import HLSModel
from kconvert.profiling.keras_outputs import keras_outputs, require_live
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert.model import Arrays

Array = npt.NDArray[Any]
Row = dict[str, Any]


# ***** Keras against hardware *****


@dataclass(frozen=True, slots=True)
class Comparison:
    """One tensor, as Keras and as the hardware compute it; both arrays are [n, ...].

    Attributes:
        layer: Its name in ``trace``.
        folded: Name of the layer that computes it too, where this one was folded into that one's weights.
        type: Type of the elements in hardware.
    """

    layer: str
    folded: str | None
    type: FixedType
    keras: Array
    hls: Array

    @property
    def label(self) -> str:
        """Name for a figure."""
        return _label(self.layer, self.folded)

    @property
    def difference(self) -> Array:
        """hls - Keras."""
        return np.asarray(self.hls - self.keras.astype(np.float64))


def comparisons(keras_model: Any, hls_model: HLSModel, X: Arrays) -> list[Comparison]:
    """Return every tensor of ``hls_model.trace(X)`` beside Keras' own, in network order.

    In the place of Keras' model another conversion of it may stand, such as that of :func:`kconvert.tuning.precise`.

    Raises:
        InputError: the two are not the same network, or `X` does not fit.
    """
    other = isinstance(keras_model, HLSModel)
    if not other:
        require_live(keras_model)
    check_given(None if other else keras_model, hls_model)
    hls = ready(hls_model).trace(X)
    values = hls_model.traced()
    keras = ready(keras_model).trace(X) if other else keras_outputs(keras_model, X, hls)
    for name, array in hls.items():
        shape = keras[name].shape if name in keras else None
        if shape != array.shape:
            what = "has no such layer" if shape is None else f"makes {shape[1:]} of it"
            raise InputError(
                f"layer {name!r} of the hls model has shape {array.shape[1:]}, the Keras model {what}: "
                "give the model that was converted"
            )
    return [
        Comparison(name, _folded(name, values[name]), values[name].known_type(), keras[name], hls[name]) for name in hls
    ]


def _folded(name: str, value: Value) -> str | None:
    """Return the layer that computes `value` if its own output exists no more and `name` is what took its place."""
    own = value.producer.name
    return own if own not in value.names and name == value.names[0] else None


def _label(layer: str, folded: str | None) -> str:
    return layer if folded is None else f"{folded} + {layer}"


def compare_table(keras_model: Any, hls_model: HLSModel, X: Arrays) -> list[Row]:
    """Return how far the hardware is from Keras, one row per tensor of ``hls_model.trace(X)`` in network order.

    Args:
        keras_model: The live model that was converted.
        hls_model: The conversion of it; compiled here if it was not.
        X: Samples as for :meth:`HLSModel.predict`.

    Returns:
        Rows with ``layer``, ``folded`` (the layer it was folded into, or None), ``type`` (as text), ``max_abs_diff``,
        ``rms_diff``, ``max_abs_keras`` and ``relative_norm`` (the norm of the difference over that of Keras' values).

    Raises:
        KConvertError: the models are not the same network or not ready, or `X` does not fit.
    """
    return [_compare_row(c) for c in comparisons(keras_model, hls_model, X)]


def _compare_row(pair: Comparison) -> Row:
    difference = np.abs(pair.difference)
    return {
        "layer": pair.layer,
        "folded": pair.folded,
        "type": str(pair.type),
        "max_abs_diff": float(difference.max(initial=0)),
        "rms_diff": float(np.sqrt(np.mean(difference**2))) if difference.size else 0.0,
        "max_abs_keras": float(np.abs(pair.keras).max(initial=0)),
        "relative_norm": relative_norm(pair),
    }


def relative_norm(pair: Comparison) -> float:
    """Return the Euclidean norm of the difference over that of Keras' values."""
    norm = float(np.linalg.norm(pair.keras.astype(np.float64)))
    difference = float(np.linalg.norm(pair.difference))
    return difference / norm if norm else float(difference and np.inf)


# ***** ranges of values *****


@dataclass(frozen=True, slots=True)
class Tensor:
    """The values of a weight array or a layer's output.

    Attributes:
        layer: Name of the layer, for outputs as in ``trace``.
        label: Name for a figure, with the layer that was folded into it.
        role: ``"weight"``, ``"bias"``, ...; ``"result"`` for the output.
        type: Type in hardware; None where there is no hls model.
        fixed: The values in hardware.
        exact: The floats they stand for.
    """

    layer: str
    label: str
    role: str
    type: FixedType | None
    fixed: Array | None
    exact: Array | None


def weight_tensors(model: Any, hls_model: HLSModel | None) -> Iterator[Tensor]:
    """Yield the trained arrays in network order, batch normalisations folded into them."""
    for node in _graph(model, hls_model):
        for role, constant in constants_of(node):
            values = np.asarray(constant.values, dtype=np.float64)
            kind = constant.type if hls_model else None
            fixed = kind.quantize(values) if kind else None
            yield Tensor(node.name, label_of(node), role, kind, fixed, values)


def constants_of(node: Node) -> Iterator[tuple[str, Constant]]:
    """Yield the trained arrays of a layer by role: no tables, nothing that is computed from its shape."""
    for role, constant in node.constants().items():
        if role in node.roles and not role.endswith("table"):
            yield role, constant


def label_of(node: Node) -> str:
    """Return the name of a layer for a figure, with the layer that was folded into it."""
    names = node.output.names
    return _label(names[0], _folded(names[0], node.output)) if names else node.name


def activation_tensors(model: Any, hls_model: HLSModel | None, X: Arrays) -> Iterator[Tensor]:
    """Yield the inputs and the output of every layer in network order."""
    graph = _graph(model, hls_model)
    inputs = dict(zip([v.producer.name for v in graph.inputs], input_arrays(graph.inputs, X), strict=True))
    fixed = ready(hls_model).trace(X) if hls_model else {}
    exact = keras_outputs(model, X, graph.traced()) if model is not None else {}
    for node in graph:
        kind = node.output.known_type() if hls_model else None
        if isinstance(node, Input):
            given = inputs[node.name]
            yield Tensor(node.name, node.name, "result", kind, kind.quantize(given) if kind else None, given)
            continue
        for name in node.output.names:
            label = _label(name, _folded(name, node.output))
            yield Tensor(name, label, "result", kind, fixed.get(name), exact.get(name))


def _graph(model: Any, hls_model: HLSModel | None) -> HLSModel:
    """Return the graph to go through: the hls model, or that of Keras' model under the default settings."""
    if hls_model is not None:
        return hls_model
    graph = build_model(read_model(model))
    graph.run()
    return graph


def ready(hls_model: HLSModel) -> HLSModel:
    """Return the model, compiled: here, if it was not yet."""
    if not hls_model.compiled:
        hls_model.compile()
    return hls_model


def check_given(model: Any, hls_model: HLSModel | None) -> None:
    """Raise a :class:`KConvertError` unless there is a model to look at."""
    if hls_model is None and model is None:
        raise InputError("give model=, hls_model= or both")
    if hls_model is not None and not isinstance(hls_model, HLSModel):
        raise InputError(f"hls_model= is a {type(hls_model).__name__}, not what convert_from_keras_model returned")
    if model is not None:
        require_live(model)


def magnitudes(values: Array) -> Array:
    """Return log2 of the magnitudes that are not zero."""
    flat = np.abs(np.asarray(values, dtype=np.float64)).ravel()
    return np.asarray(np.log2(flat[flat > 0]))


def numerical_table(model: Any = None, hls_model: HLSModel | None = None, X: Arrays | None = None) -> list[Row]:
    """Return the range of every weight array and, with `X`, of every layer's output, in network order.

    Args:
        model: The live Keras model, for the float values.
        hls_model: The conversion of it, for the values in hardware; compiled if `X` is given.
        X: Samples as for :meth:`HLSModel.predict`.

    Returns:
        Rows with ``layer``, ``role`` (``"weight"``, ..., ``"result"`` for the output), ``type`` (as text, None without
        `hls_model`), ``values`` (``"float"`` or ``"fixed"``), ``count``, ``zeros``, and of the magnitudes that are not
        zero ``smallest``, ``lower_quartile``, ``median``, ``upper_quartile``, ``largest`` (0 where there are none).

    Raises:
        KConvertError: a model is missing or not ready, or `X` does not fit.
    """
    check_given(model, hls_model)
    tensors = list(weight_tensors(model, hls_model))
    if X is not None:
        tensors += activation_tensors(model, hls_model, X)
    return [
        _range_row(tensor, kind, values)
        for tensor in tensors
        for kind, values in (("float", tensor.exact), ("fixed", tensor.fixed))
        if values is not None
    ]


def _range_row(tensor: Tensor, kind: str, values: Array) -> Row:
    logs = magnitudes(values)
    quartiles = np.exp2(np.quantile(logs, (0, 0.25, 0.5, 0.75, 1))) if logs.size else np.zeros(5)
    names = ("smallest", "lower_quartile", "median", "upper_quartile", "largest")
    return {
        "layer": tensor.layer,
        "role": tensor.role,
        "type": tensor.type and str(tensor.type),
        "values": kind,
        "count": values.size,
        "zeros": values.size - logs.size,
        **dict(zip(names, quartiles.tolist(), strict=True)),
    }
