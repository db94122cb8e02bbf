"""From Keras' model json, any version, to a flat list of layer calls.

`parse_model` reads the json into a tree (a nested model is a node with a graph of its own), which is what
stored weights follow; `flatten` then makes the one flat list of layers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kconvert.converters.readers.keras1 import modernised
from kconvert.converters.readers.operations import read_operation
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ModelError, UnsupportedLayerError

Call = tuple[TensorRef, ...]

# What their configs may hold
_OPERATION_OPTIONS = frozenset(
    {"name", "alpha", "approximate", "axes", "axis", "initial", "keepdims", "negative_slope", "newshape"}
)
# Call options that are tensors, in the order in which they follow the positional arguments
_TENSOR_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "MultiHeadAttention": ("query", "value", "key"),
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), ("initial_state",)),
}
# Keras 2 wraps a call of a TensorFlow function into one of these
_OPERATION_CLASSES = frozenset(
    {
        "TFOpLambda",
        "SlicingOpLambda",
        "TensorFlowOpLayer",
        "ClassMethod",
        "InstanceMethod",
        "InstanceProperty",
    }
)


@dataclass(frozen=True, slots=True)
class Node:
    """A layer as its model's json has it; `graph` is set where the layer is itself a model."""

    spec: LayerSpec
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A model as its json has it, names and tensor references relative to this model."""

    name: str
    nodes: tuple[Node, ...]
    inputs: Call
    outputs: Call


# ---- json to tree


def parse_model(raw: object) -> Graph:
    """Read the dictionary of a Keras model json (``{"class_name": ..., "config": ...}``).

    Raises:
        ModelError: It does not describe a functional or sequential model, or contradicts itself.
        UnsupportedLayerError: A layer call is more than a call on tensors.
    """
    layer = _mapping(_plain(raw), "the model")
    if not _is_model(layer.get("config")):
        raise ModelError(subclassed(repr(layer.get("class_name", "the model"))))
    graph = _graph(layer)
    for node in graph.nodes:
        if node.spec.class_name == "InputLayer" and node.spec.config["batch_shape"] is None:
            raise ModelError(
                f"model {graph.name!r}: the input shape is not known; build the model before saving or "
                "converting it: model.build((None, ...)), or start it with keras.Input(shape)"
            )
    return graph


def subclassed(name: str) -> str:
    """Return the message for a model that is no graph of layers."""
    return (
        f"{name} is a subclassed model, whose layers are known to its own Python code only; "
        "rebuild it with the functional API, keras.Model(inputs, outputs), or keras.Sequential"
    )


def _is_model(config: object) -> bool:
    """Whether a layer's config is that of a model: Keras before 2.2.3 stores a Sequential as a plain list."""
    return isinstance(config, list) or (isinstance(config, dict) and isinstance(config.get("layers"), list))


def _graph(layer: Mapping[str, Any]) -> Graph:
    config = layer["config"]
    if isinstance(config, list):
        config = {"layers": config}
    name = str(config.get("name") or layer.get("name") or str(layer.get("class_name", "model")).lower())
    layers = [_mapping(item, f"a layer of model {name!r}") for item in config["layers"]]
    if not layers:
        raise ModelError(f"model {name!r} has no layers")
    if "output_layers" in config:
        graph = _functional(name, config, layers)
    else:
        graph = _sequential(name, layers, _known_shape(layer, config))
    _check_references(graph)
    return graph


def _known_shape(layer: Mapping[str, Any], config: Mapping[str, Any]) -> object:
    build = layer.get("build_config")
    stored = build.get("input_shape") if isinstance(build, dict) else None
    return config.get("build_input_shape") or stored


def _sequential(name: str, layers: list[Mapping[str, Any]], shape: object) -> Graph:
    nodes = [_node(layer) for layer in layers]
    if nodes[0].spec.class_name != "InputLayer":
        first = nodes[0]
        input_name = f"{first.spec.name}_input"
        config = {
            "batch_shape": _first_shape(layers[0], first) or shape,
            "dtype": "float32",
            "name": input_name,
        }
        nodes.insert(0, Node(LayerSpec("InputLayer", input_name, config, ((),))))
    for i, node in enumerate(nodes):
        call = (TensorRef(nodes[i - 1].spec.name),) if i else ()
        nodes[i] = replace(node, spec=replace(node.spec, calls=(call,)))
    return Graph(name, tuple(nodes), (TensorRef(nodes[0].spec.name),), (TensorRef(nodes[-1].spec.name),))


def _first_shape(layer: Mapping[str, Any], node: Node) -> object:
    """Return the input shape that the first layer of a Sequential knows, or None."""
    if node.graph is not None:
        shapes = (n.spec.config["batch_shape"] for n in node.graph.nodes if n.spec.class_name == "InputLayer")
        return next(shapes)
    return node.spec.config.get("batch_input_shape") or _known_shape(layer, {})


def _functional(name: str, config: Mapping[str, Any], layers: list[Mapping[str, Any]]) -> Graph:
    keras3 = any(isinstance(call, dict) for layer in layers for call in _calls(layer))
    nodes = [_node(layer) for layer in layers]
    inputs = tuple(_references(config.get("input_layers"), f"input_layers of model {name!r}"))
    outputs = tuple(_references(config["output_layers"], f"output_layers of model {name!r}"))
    if not inputs or not outputs:
        raise ModelError(f"model {name!r} has no {'outputs' if inputs else 'inputs'}")
    base = _first_call_numbers(nodes, outputs, keras3)
    if not keras3:
        calls = [tuple(_renumber(call, base) for call in n.spec.calls) for n in nodes]
        nodes = [replace(n, spec=replace(n.spec, calls=c)) for n, c in zip(nodes, calls, strict=True)]
    return Graph(name, tuple(nodes), inputs, _renumber(outputs, base))


def _first_call_numbers(nodes: list[Node], outputs: Call, keras3: bool) -> dict[str, int]:
    """Return the number that the first call of each nested model goes by in the references to it.

    Keras counts the construction of a nested model as its call 0, so that calls start at 1. Keras 2 leaves
    that out for a Sequential built late; but as every stored call is used, the lowest number seen is the
    first one. Keras 3 counts this way in ``output_layers`` only, and for functional models only.
    """
    nested = {n.spec.name: n for n in nodes if n.graph is not None}
    if keras3:
        return {name: int(n.spec.class_name != "Sequential") for name, n in nested.items()}
    used: dict[str, int] = {}
    for ref in (*(r for n in nodes for c in n.spec.calls for r in c), *outputs):
        if ref.layer in nested:
            used[ref.layer] = min(ref.call, used.get(ref.layer, ref.call))
    return used


def _renumber(refs: Call, base: Mapping[str, int]) -> Call:
    return tuple(replace(r, call=r.call - base.get(r.layer, 0)) for r in refs)


def _node(layer: Mapping[str, Any]) -> Node:
    layer = modernised(layer)
    name = _name(layer)
    class_name = str(layer.get("class_name", ""))
    if not class_name:
        raise ModelError(f"layer {name!r} has no class_name")
    registered = layer.get("registered_name") or (class_name if ">" in class_name else None)
    module = layer.get("module")
    config = layer.get("config")
    graph = _graph(layer) if _is_model(config) else None
    config = {} if graph else dict(_mapping(config, f"config of layer {name!r}"))
    class_name = class_name.rpartition(">")[2]
    if _is_operation(layer, class_name):
        return Node(replace(read_operation(name, class_name, config, _calls(layer)), module=module))
    calls = tuple(_call(call, name, class_name) for call in _calls(layer))
    if class_name == "InputLayer":
        calls, config = ((),), _input_config(config)
    return Node(LayerSpec(class_name, name, config, calls, registered_name=registered, module=module), graph)


def _is_operation(layer: Mapping[str, Any], class_name: str) -> bool:
    if class_name in _OPERATION_CLASSES or ".ops." in f"{layer.get('module')}.":
        return True
    # Keras 3 leaves the module out of an .h5, where only a layer's config says whether it is trainable
    keras3 = any(isinstance(call, dict) for call in _calls(layer))
    options = layer.get("config")
    return keras3 and "module" not in layer and isinstance(options, dict) and set(options) <= _OPERATION_OPTIONS


def _input_config(config: dict[str, Any]) -> dict[str, Any]:
    shape = config.pop("batch_input_shape", None)
    return {**config, "batch_shape": config.get("batch_shape") or shape}


def _plain(value: Any) -> Any:
    """Copy a json value, with tuples and shapes as lists whichever way Keras wrote them.

    It drops ``shared_object_id``, a memory address of the process that saved the file.
    """
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
            return _plain(value["items"])
        return {k: _plain(v) for k, v in value.items() if k != "shared_object_id"}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _name(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    name = layer.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if not isinstance(name, str) or not name:
        raise ModelError(f"a layer of class {layer.get('class_name')!r} has no name")
    return name


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{what} should be a json object but is {type(value).__name__}")
    return value


# ---- calls and tensor references


def _calls(layer: Mapping[str, Any]) -> list[Any]:
    """Return the stored calls of a layer; a single Keras 2 call may come without the list around it."""
    calls = layer.get("inbound_nodes") or []
    if not isinstance(calls, list):
        raise ModelError(f"layer {_name(layer)!r}: inbound_nodes should be a list, not {type(calls).__name__}")
    return [calls] if calls and _is_reference(calls[0]) else calls


def _is_reference(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)


def _call(raw: object, layer: str, class_name: str) -> Call:
    """Read one call of `layer`: Keras 3's ``{"args", "kwargs"}`` or Keras 2's list of references."""
    if isinstance(raw, dict):
        options = dict(_mapping(raw.get("kwargs") or {}, f"call options of layer {layer!r}"))
        named = [options.pop(key) for key in _TENSOR_OPTIONS.get(class_name, ()) if key in options]
        _check_options(options, layer)
        return tuple(_tensors([*(raw.get("args") or []), *named], layer))
    return tuple(_references(raw, f"inbound_nodes of layer {layer!r}", layer))


def _tensors(value: object, layer: str) -> Iterator[TensorRef]:
    """Yield the tensors in the positional arguments of a Keras 3 call."""
    if isinstance(value, list):
        for item in value:
            yield from _tensors(item, layer)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        what = f"inbound_nodes of layer {layer!r}"
        yield from _references(_mapping(value.get("config"), what).get("keras_history"), what)
    elif value is not None:
        raise UnsupportedLayerError(
            f"layer {layer!r} is called on {_short(value)} besides its input tensors; only calls on tensors convert"
        )


def _references(value: object, what: str, layer: str = "") -> Iterator[TensorRef]:
    """Yield the ``[name, call, index]`` entries, with options or without, of nested lists and dicts."""
    if isinstance(value, list) and _is_reference(value):
        name, call, index, *options = value
        if type(call) is not int or type(index) is not int or call < 0 or index < 0:
            raise UnsupportedLayerError(f"{what}: {_short(value)} is not a tensor of a layer")
        if options and options[0]:
            _check_options(_mapping(options[0], what), layer)
        yield TensorRef(name, call, index)
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item, what, layer)
    else:
        raise ModelError(f"{what}: cannot read {_short(value)}")


def _check_options(options: object, layer: str) -> None:
    for key, value in _mapping(options, f"call options of layer {layer!r}").items():
        if _is_given(value):
            raise UnsupportedLayerError(
                f"layer {layer!r} is called with {key}={_short(value)}; only a call on its input tensors converts"
            )


def _is_given(value: object) -> bool:
    """Whether a call option is more than a default: Keras writes out mask=[None, None] and training=False."""
    return any(map(_is_given, value)) if isinstance(value, list) else value is not None and value is not False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_references(graph: Graph) -> None:
    """Raise `ModelError` unless names are unique and every reference points at a call that exists."""
    where = f"model {graph.name!r}"
    known: dict[str, Node] = {}
    for node in graph.nodes:
        if known.setdefault(node.spec.name, node) is not node:
            raise ModelError(f"{where} has two layers named {node.spec.name!r}")
    inputs = {ref.layer for ref in graph.inputs}
    uses = [("the inputs", graph.inputs), ("the outputs", graph.outputs)]
    for node in graph.nodes:
        if not node.spec.calls or (node.spec.class_name != "InputLayer" and () in node.spec.calls):
            raise ModelError(f"{where}: layer {node.spec.name!r} is not connected to any input")
        uses += [(f"layer {node.spec.name!r}", call) for call in node.spec.calls]
        arity = len(node.graph.inputs) if node.graph else None
        if arity is not None and any(len(call) != arity for call in node.spec.calls):
            raise ModelError(f"nested model {node.spec.name!r} takes {arity} inputs; it is called on another number")
    for user, refs in uses:
        for ref in refs:
            source = known.get(ref.layer)
            if source is None:
                raise ModelError(f"{where}: {user} refer to an unknown layer {ref.layer!r}")
            if source.spec.class_name == "InputLayer" and ref.layer not in inputs:
                raise ModelError(f"{where}: {user} refer to {ref.layer!r}, which is none of its inputs")
            outputs = len(source.graph.outputs) if source.graph else ref.index + 1
            if not 0 <= ref.call < len(source.spec.calls) or ref.index >= outputs:
                raise ModelError(f"{where}: {user} refer to tensor {ref}, which does not exist")
    for ref in graph.inputs:
        if known[ref.layer].spec.class_name != "InputLayer":
            raise ModelError(f"{where}: input {ref.layer!r} is not an InputLayer")


# ---- tree to flat list


def flatten(graph: Graph) -> ModelSpec:
    """Return the model, still without weights, with its nested models replaced by their layers.

    A layer of a nested model is called ``"<nested model>/<layer>"``, and has its calls once for every call of
    that model.

    Raises:
        ModelError: Two layers end up with one name, or the layers form a loop.
    """
    layers, outputs = _inline(graph)
    names: set[str] = set()
    for layer in layers:
        if layer.name in names:
            raise ModelError(f"two layers are named {layer.name!r} once nested models are flattened; rename one")
        names.add(layer.name)
    return ModelSpec(graph.name, _in_order(layers), graph.inputs, outputs)


def _inline(graph: Graph) -> tuple[list[LayerSpec], Call]:
    models = {n.spec.name: (n.spec, n.graph, *_inline(n.graph)) for n in graph.nodes if n.graph is not None}

    def outside(ref: TensorRef, name: str, call: int) -> TensorRef:
        """Translate a tensor inside the model `name` to this graph, for the given call of that model."""
        spec, inner, layers, _ = models[name]
        inputs = [r.layer for r in inner.inputs]
        if ref.layer in inputs:
            return spec.calls[call][inputs.index(ref.layer)]
        per_call = next(len(layer.calls) for layer in layers if layer.name == ref.layer)
        return TensorRef(f"{name}/{ref.layer}", call * per_call + ref.call, ref.index)

    def resolve(ref: TensorRef) -> TensorRef:
        """Follow the outputs of nested models to the layer that makes the tensor."""
        seen = set()
        while ref.layer in models:
            if ref in seen:
                raise ModelError(f"model {graph.name!r}: nested model {ref.layer!r} feeds itself")
            seen.add(ref)
            ref = outside(models[ref.layer][3][ref.index], ref.layer, ref.call)
        return ref

    flat: list[LayerSpec] = []
    for node in graph.nodes:
        spec = node.spec
        if node.graph is None:
            flat.append(replace(spec, calls=tuple(tuple(map(resolve, call)) for call in spec.calls)))
            continue
        for layer in models[spec.name][2]:
            if layer.class_name != "InputLayer":
                calls = tuple(
                    tuple(resolve(outside(ref, spec.name, k)) for ref in call)
                    for k in range(len(spec.calls))
                    for call in layer.calls
                )
                flat.append(replace(layer, name=f"{spec.name}/{layer.name}", calls=calls))
    return flat, tuple(map(resolve, graph.outputs))


def _in_order(layers: list[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Sort layers by their first call, keeping Keras' own order wherever it is topological already."""
    position = {layer.name: i for i, layer in enumerate(layers)}
    users: dict[tuple[int, int], list[tuple[int, int]]] = {}
    missing: dict[tuple[int, int], int] = {}
    for i, layer in enumerate(layers):
        for k, call in enumerate(layer.calls):
            sources = {(position[ref.layer], ref.call) for ref in call}
            missing[i, k] = len(sources)
            for source in sources:
                users.setdefault(source, []).append((i, k))
    ready = [node for node, count in missing.items() if not count]
    heapq.heapify(ready)
    order: dict[int, None] = {}
    done = 0
    while ready:
        node = heapq.heappop(ready)
        done += 1
        order.setdefault(node[0])
        for user in users.get(node, ()):
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    if done < len(missing):
        stuck = sorted({layers[i].name for (i, _), count in missing.items() if count})
        raise ModelError(f"the layers {', '.join(map(repr, stuck[:5]))} feed each other in a loop")
    return tuple(layers[i] for i in order)
