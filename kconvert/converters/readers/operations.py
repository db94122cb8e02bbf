"""Operations on tensors in functional models, such as ``x + y``: what they are called with, in one form.

Keras 3 keeps an operation as a layer would be kept, with its options in its config and all arguments in its call.
Keras 2 wraps the TensorFlow function into a ``TFOpLambda``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kconvert.converters.spec import LayerSpec, TensorRef
from kconvert.errors import ModelError, UnsupportedLayerError

OPERATION = "Operation"
"""Class name of an operation in the neutral form.

Its config has ``"operation"``, the name of Keras 3's class (``"Add"``); ``"arguments"``, of which a tensor is
``{"tensor": number}``; and ``"options"``, by name.
"""

_FUNCTIONS: Mapping[str, str] = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "add": "Add",
    "compat.v1.nn.leaky_relu": "LeakyRelu",
    "compat.v1.transpose": "Transpose",
    "concat": "Concatenate",
    "expand_dims": "ExpandDims",
    "linalg.matmul": "Matmul",
    "math.add": "Add",
    "math.divide": "Divide",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "math.multiply": "Multiply",
    "math.negative": "Negative",
    "math.reduce_max": "Max",
    "math.reduce_mean": "Mean",
    "math.sigmoid": "Sigmoid",
    "math.softplus": "Softplus",
    "math.square": "Square",
    "math.subtract": "Subtract",
    "math.tanh": "Tanh",
    "math.truediv": "TrueDivide",
    "multiply": "Multiply",
    "nn.elu": "Elu",
    "nn.leaky_relu": "LeakyRelu",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.selu": "Selu",
    "nn.sigmoid": "Sigmoid",
    "nn.silu": "Silu",
    "nn.softmax": "Softmax",
    "nn.softplus": "Softplus",
    "nn.softsign": "Softsign",
    "nn.swish": "Silu",
    "nn.tanh": "Tanh",
    "reshape": "Reshape",
    "squeeze": "Squeeze",
    "subtract": "Subtract",
    "tanh": "Tanh",
    "transpose": "Transpose",
}
"""TensorFlow's functions that are Keras' own operations under another name."""
_OPTIONS: Mapping[str, str] = {"shape": "newshape", "perm": "axes", "alpha": "negative_slope"}
"""Options that TensorFlow calls otherwise."""
_DEFAULTS = (None, False)


def read_operation(name: str, class_name: str, config: Mapping[str, Any], calls: list[Any]) -> LayerSpec:
    """Return an operation in the neutral form.

    Args:
        name: Its name.
        class_name: Its class, or that of Keras 2's wrapper.
        config: Its config.
        calls: Its calls as the json has them.

    Raises:
        ModelError: A call cannot be read.
        UnsupportedLayerError: Its calls differ in more than their tensors.
    """
    options = {key: value for key, value in config.items() if key != "name"}
    if calls and isinstance(calls[0], dict):
        read = [_Call.of_keras_3(call) for call in calls]
    else:
        function = str(options.get("function", class_name))
        class_name, options = _FUNCTIONS.get(function, f"tf.{function}"), {}
        read = [_Call.of_keras_2(call, name) for call in calls]
    if any((call.arguments, call.options) != (read[0].arguments, read[0].options) for call in read):
        raise UnsupportedLayerError(f"{name!r}, the operation {class_name}, is called with different options each time")
    first = read[0] if read else _Call()
    spec = {"operation": class_name, "arguments": first.arguments, "options": {**options, **first.options}}
    return LayerSpec(OPERATION, name, {"name": name, **spec}, tuple(tuple(call.tensors) for call in read))


class _Call:
    """One call: its tensors, and what else it is given."""

    def __init__(self) -> None:
        self.tensors: list[TensorRef] = []
        self.arguments: list[Any] = []
        self.options: dict[str, Any] = {}

    @classmethod
    def of_keras_3(cls, raw: Mapping[str, Any]) -> _Call:
        call = cls()
        call.arguments = [call._plain(value) for value in raw.get("args") or []]
        found = {key: call._plain(value) for key, value in (raw.get("kwargs") or {}).items()}
        call.options = {key: value for key, value in found.items() if value is not None}
        return call

    def _plain(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            return self._tensor(value["config"]["keras_history"])
        return value

    @classmethod
    def of_keras_2(cls, raw: Any, name: str) -> _Call:
        """Read ``[layer, call, index, options]``, or a list of such; the options are those of the first."""
        call = cls()
        several = isinstance(raw, list) and bool(raw) and isinstance(raw[0], list)
        entries = raw if several else [raw]
        if not all(isinstance(entry, list) and len(entry) >= 3 for entry in entries):
            raise ModelError(f"inbound_nodes of layer {name!r}: cannot read {raw!r}")
        values = [call._reference(entry) for entry in entries]
        options = dict(entries[0][3]) if len(entries[0]) > 3 else {}
        second = [call._reference(options.pop(key)) for key in ("y", "b") if key in options]
        if "slice_spec" in options:
            second.append(options.pop("slice_spec"))
        call.arguments = [values if several and len(values) > 1 else values[0], *second]
        kept = {key: value for key, value in options.items() if value not in _DEFAULTS and key != "name"}
        call.options = {_OPTIONS.get(key, key): value for key, value in kept.items()}
        return call

    def _reference(self, raw: Any) -> Any:
        if not (isinstance(raw, list) and len(raw) >= 3 and isinstance(raw[0], str)):
            return raw
        return raw[2] if raw[0] == "_CONSTANT_VALUE" else self._tensor(raw)

    def _tensor(self, history: list[Any]) -> dict[str, int]:
        self.tensors.append(TensorRef(str(history[0]), int(history[1]), int(history[2])))
        return {"tensor": len(self.tensors) - 1}
