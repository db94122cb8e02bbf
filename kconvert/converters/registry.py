"""Which function reads which Keras layer, and what such functions share."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError, did_you_mean
from kconvert.layers import Node, Value
from kconvert.plugins import load_plugins


@dataclass
class Block:
    """A layer that is a small graph of nodes, or that has several outputs: what a reader made, already connected.

    Attributes:
        nodes: The nodes, every one after those it reads.
        outputs: What the layer returns.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()

    def add(self, node: Node, *inputs: Value) -> Value:
        """Let `node` read `inputs`; returns its output."""
        self.nodes.append(node.connect(*inputs))
        return node.output

    def include(self, other: Block) -> tuple[Value, ...]:
        """Take over the nodes of a block; returns its outputs."""
        self.nodes += other.nodes
        return other.outputs


ChainReader = Callable[[LayerSpec, list[Value]], Node | tuple[Node, ...]]
Reader = Callable[[LayerSpec, list[Value]], Node | tuple[Node, ...] | Block]
"""Makes the node of a layer; or a chain of nodes, each reading the one before; or a small graph.

The last node of a chain is named after the layer, as is the node of a block that the layer's settings are for.
"""
R = TypeVar("R", bound=Reader)
ActivationReader = Callable[[str, Mapping[str, Any]], Node]

_readers: dict[str, Reader] = {}
_activations: dict[str, ActivationReader] = {}


def reads(*class_names: str) -> Callable[[R], R]:
    """Register a function that makes the IR node of Keras layers of these classes.

    It gets the layer in neutral form and the values it is called on, and returns a node not yet connected.
    """

    def register(reader: R) -> R:
        _load_ours_before(reader)
        _readers.update(dict.fromkeys(class_names, reader))
        return reader

    return register


def reads_activation(*names: str) -> Callable[[ActivationReader], ActivationReader]:
    """Register a function that makes the node of an activation function, from a node name and its options."""

    def register(reader: ActivationReader) -> ActivationReader:
        _load_ours_before(reader)
        _activations.update(dict.fromkeys(names, reader))
        return reader

    return register


@functools.cache
def load_readers() -> None:
    """Import the packages whose functions register here; on first use, since `import kconvert` has to be quick."""
    for package in ("keras", "qkeras"):
        importlib.import_module(f"kconvert.converters.{package}")


def _load_ours_before(reader: Callable[..., Any]) -> None:
    """Let what others register come after, and so in the place of, what kconvert registers under the same name."""
    if not reader.__module__.startswith("kconvert."):
        load_readers()


def supported_layers() -> list[str]:
    """Names of the Keras layer classes that convert."""
    load_readers()
    load_plugins()
    return sorted(_readers)


def supported_activations() -> list[str]:
    """Names of the activation functions that convert."""
    load_readers()
    load_plugins()
    return sorted(_activations)


def read_layer(layer: LayerSpec, inputs: list[Value]) -> Block:
    """Return the nodes that `layer` is in hardware, connected to `inputs`.

    Raises:
        UnsupportedLayerError: there is no reader; the message names the layer and what is near.
        ModelError: the layer does not fit its inputs.
    """
    load_readers()
    reader = _readers.get(layer.class_name)
    if reader is None and layer.class_name == "Lambda":
        raise UnsupportedLayerError(
            f"layer {layer.name!r} is a Lambda: its Python code is not run, and what it computes is not known; use "
            f"Keras' own layers, or, where you trust the file, allow_unsafe=True (--allow-unsafe on the command line)"
        )
    if reader is None:
        raise UnsupportedLayerError(
            f"layer {layer.name!r}: class {layer.class_name!r} is not supported"
            f"{did_you_mean(layer.class_name, _readers)} (supported: {', '.join(supported_layers())}); "
            f"to add a layer, register a reader with kconvert.converters.registry.reads({layer.class_name!r})"
        )
    made = reader(layer, inputs)
    if not isinstance(made, Block):
        chain = made if isinstance(made, tuple) else (made,)
        chain[-1].layer = layer.name
        made = _connected(layer, chain, inputs)
    for node in made.nodes:  # that of a layer inside a layer has its class already
        node.layer_class = node.layer_class or layer.class_name
    return made


def _connected(layer: LayerSpec, chain: tuple[Node, ...], inputs: list[Value]) -> Block:
    block, values = Block(), tuple(inputs)
    try:
        for node in chain:
            values = (block.add(node, *values),)
    except ValueError as error:
        shapes = [v.shape for v in inputs]
        raise ModelError(f"layer {layer.name!r} does not fit its inputs {shapes}: {error}") from error
    block.outputs = values
    return block


def activation(layer: LayerSpec, key: str = "activation") -> Node | None:
    """Return the node of the activation in a layer's config, or None if there is none or it is linear."""
    name, options = activation_name(layer, layer.config.get(key))
    if name == "linear":
        return None
    node = make_activation(layer, f"{layer.name}_{name}", name, options)
    node.layer, node.layer_class = node.name, "Activation"
    return node


def make_activation(layer: LayerSpec, node_name: str, name: str, options: Mapping[str, Any]) -> Node:
    """Return the node called `node_name` of the activation function `name`.

    A function that a QKeras layer names is QKeras' own, where it has one of that name; it is registered with
    ``"qkeras>"`` in front. One that meant something else before Keras 3 is registered with ``"keras 2>"`` in front,
    too.
    """
    load_readers()
    own = [f"qkeras>{name}"] if layer.class_name.startswith("Q") else []
    old = [f"keras 2>{name}"] if (layer.keras_version or "").startswith(("1.", "2.")) else []
    reader = next((_activations[key] for key in (*own, *old, name) if key in _activations), None)
    if reader is None:
        raise UnsupportedLayerError(
            f"layer {layer.name!r}: activation {name!r} is not supported"
            f"{did_you_mean(name, _activations)} (supported: {', '.join(supported_activations())})"
        )
    return reader(node_name, options)


def activation_name(layer: LayerSpec, raw: object) -> tuple[str, Mapping[str, Any]]:
    """Return (name, options) of an activation as Keras serialises it: a name, a function, or a layer."""
    if raw is None:
        return "linear", {}
    if isinstance(raw, str):  # "relu", or a quantizer with its arguments: "quantized_relu(6,2)"
        function = raw.partition("(")[0].strip()
        return function, ({"call": raw} if function != raw else {})
    if isinstance(raw, Mapping):
        inner, name = raw.get("config"), raw.get("class_name")
        if isinstance(inner, str):  # Keras 3 wraps a function: {"class_name": "function", "config": "relu"}
            return inner, {}
        if name == "Activation" and isinstance(inner, Mapping):
            return activation_name(layer, inner.get("activation"))
        if isinstance(name, str):
            return name.rpartition(">")[2], {**(inner if isinstance(inner, Mapping) else {}), "call": raw}
    raise UnsupportedLayerError(f"layer {layer.name!r}: cannot read its activation {raw!r}")


def only(layer: LayerSpec, key: str, *allowed: object) -> None:
    """Refuse an option of a layer whose value is not one of `allowed` (a missing option is)."""
    value = layer.config.get(key, allowed[0])
    value = list(value) if isinstance(value, tuple) else value
    if value not in [list(a) if isinstance(a, tuple) else a for a in allowed]:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): {key}={value!r} is not supported, only "
            f"{' or '.join(map(repr, allowed))}"
        )


def channels_last(layer: LayerSpec) -> None:
    """Refuse a layer whose channels come before the axes of space: every tensor has its channels last."""
    data_format = layer.config.get("data_format")
    if data_format not in ("channels_last", None):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): data_format={data_format!r} is not supported, only "
            f"'channels_last'; move the channels to the last axis (keras.layers.Permute, and the weights stay as they "
            f"are) and build the model with data_format='channels_last'"
        )


def weights(layer: LayerSpec, count: int) -> list[np.ndarray]:
    """Return the layer's arrays as float64, or raise :class:`ModelError` if there are not `count`."""
    if len(layer.weights) != count:
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}): expected {count} weight arrays, found {len(layer.weights)}"
        )
    for array in layer.weights:
        if np.asarray(array).dtype.kind not in "fiu":
            raise ModelError(f"layer {layer.name!r}: weights of dtype {np.asarray(array).dtype} are not numbers")
    arrays = [np.asarray(w, dtype=np.float64) for w in layer.weights]
    for array, name in zip(arrays, [*layer.weight_names, *[""] * count], strict=False):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise ModelError(
                f"layer {layer.name!r}: {bad} of {array.size} values of weight {name or 'array'!r} are NaN or infinite"
            )
    return arrays


def fits(layer: LayerSpec, what: str, array: np.ndarray, *shape: int) -> None:
    """Raise :class:`ModelError` unless a weight array has this shape."""
    if array.shape != shape:
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}): its {what} has shape {array.shape}, expected {shape}"
        )


def pair(layer: LayerSpec, key: str, rank: int) -> tuple[int, int]:
    """Return an option with one number per spatial axis as (vertical, horizontal)."""
    value = layer.config[key]
    numbers = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)] * rank
    if len(numbers) != rank:
        raise ModelError(f"layer {layer.name!r}: {key}={value!r} does not have {rank} numbers")
    return (1, numbers[0]) if rank == 1 else (numbers[0], numbers[1])
