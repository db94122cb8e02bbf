"""Weights of the layers: out of Keras' HDF5 layouts, then checked against the layers' configs.

Keras has two layouts. The older one keeps a group per layer name, with the list of its weights as an
attribute. The newer one (``.keras`` archives and ``.weights.h5``) names groups after the layers' classes,
counted in the model's order (``layers/dense_1/vars/0``), and names no weights. The first releases of Keras
had layouts of their own, see :mod:`kconvert.converters.readers.keras1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.converters.readers.architecture import Graph
from kconvert.converters.readers.keras1 import modern_weights, numbered_weights
from kconvert.converters.spec import LayerSpec, ModelSpec
from kconvert.errors import ModelError
from kconvert.packages import import_package

Array = npt.NDArray[Any]
# names and arrays of a layer's weights; a name is empty where the file does not tell
Weights = list[tuple[str, Array]]

# A dataset of more bytes than this counts as an attack if it unpacks to this many times its stored size
_SIZE_FLOOR, _MAX_EXPANSION = 1 << 26, 1000
# The order of Keras' get_weights() for layers made of layers, where it is not alphabetical
_SUBLAYERS = ("forward_layer", "backward_layer", "query_dense", "key_dense", "value_dense", "output_dense")
_NOT_WEIGHTS = frozenset({"vars", "seed_generator", "random_generator"})


def import_h5py() -> Any:
    """Return the h5py module, or raise `MissingPackageError` with the line that installs it."""
    return import_package("h5py", "reading a Keras file")


# ---- HDF5 to arrays


def read_weights(root: Any, graph: Graph, *, allow_unsafe: bool = False) -> dict[str, Weights]:
    """Read the weights of all layers of a model from an open HDF5 file of either layout.

    Args:
        root: The h5py file.
        graph: The model that the weights belong to.
        allow_unsafe: Also read datasets that unpack to vastly more than the file holds.

    Returns:
        Weights by the flattened name of their layer (``"<nested model>/<layer>"``).

    Raises:
        ModelError: The file holds no weights, or they do not belong to this model.
    """
    return _completed(_read_weights(_Store(allow_unsafe), root, graph), graph)


def _completed(weights: dict[str, Weights], graph: Graph) -> dict[str, Weights]:
    """Give a layer that several models share, whose weights are stored once, its weights in all of them.

    Not every json says that layers are one. But they are if they have one name, class and config, and all that are
    stored have the same weights: Keras stores all that there are.
    """
    known = [(name, spec) for name, spec in _all_layers(graph) if name in weights]
    for name, spec in _all_layers(graph):
        same = [n for n, s in known if (s.name, s.class_name, s.config) == (spec.name, spec.class_name, spec.config)]
        if name not in weights and same and all(_equal(weights[n], weights[same[0]]) for n in same):
            weights[name] = weights[same[0]]
    return weights


def _equal(one: Weights, other: Weights) -> bool:
    arrays = zip((array for _, array in one), (array for _, array in other), strict=False)
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in arrays)


def _all_layers(graph: Graph, prefix: str = "") -> Iterator[tuple[str, LayerSpec]]:
    for node in graph.nodes:
        name = prefix + node.spec.name
        if node.graph is None:
            yield name, node.spec
        else:
            yield from _all_layers(node.graph, f"{name}/")


def _read_weights(store: _Store, root: Any, graph: Graph) -> dict[str, Weights]:
    root = store.group(root, "model_weights") or root
    if _attribute(root, "layer_names") is not None:
        return _by_name(store, root, graph)
    names = [node.spec.name for node in graph.nodes if node.spec.class_name != "InputLayer"]
    numbered = numbered_weights(root, names, store.array, store.group)
    if numbered is not None:
        return numbered
    for container in ("layers", "_layer_checkpoint_dependencies"):
        layers = store.group(root, container)
        if layers is not None:
            return dict(_by_class(store, layers, container, graph, ""))
    raise ModelError("the file has no Keras weights in it (neither 'layer_names' nor a group 'layers')")


class _Store:
    """Access to groups and arrays that refuses what leads out of the file or unpacks to absurd sizes."""

    def __init__(self, allow_unsafe: bool) -> None:
        self.allow_unsafe = allow_unsafe
        self.h5py = import_h5py()

    def _child(self, parent: Any, path: str) -> Any:
        for part in filter(None, path.split("/")):
            link = parent.get(part, getlink=True) if isinstance(parent, self.h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, self.h5py.HardLink):
                raise ModelError(f"{path!r} is a link to another place; Keras writes no such files")
            parent = parent[part]
        return parent

    def group(self, parent: Any, path: str) -> Any:
        """Return the group below `parent`, or None."""
        child = self._child(parent, path)
        return child if isinstance(child, self.h5py.Group) else None

    def array(self, parent: Any, path: str) -> Array:
        """Return a dataset below `parent` as floats or integers of the machine's byte order."""
        data = self._child(parent, path)
        where = f"weight {parent.name}/{path}"
        if not isinstance(data, self.h5py.Dataset):
            raise ModelError(f"{where} is missing in the file")
        if data.external or data.is_virtual:
            raise ModelError(f"{where} lies in another file; Keras writes no such files")
        size, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
        if size > max(_SIZE_FLOOR, _MAX_EXPANSION * stored) and not self.allow_unsafe:
            raise ModelError(f"{where} would unpack from {stored} to {size} bytes; allow_unsafe=True reads it anyway")
        if data.dtype.kind in "OSUM":
            raise ModelError(f"{where} holds {data.dtype} objects instead of numbers")
        return as_numbers(data[()], where, _text(data.attrs.get("dtype", "")))


def as_numbers(values: Any, where: str, dtype: str = "") -> Array:
    """Return a read-only copy of `values`: integers as they are, floats of 16 bits as float32.

    Args:
        values: A numpy array or scalar.
        where: What the values are, for the message.
        dtype: Name of the dtype, where `values` are its raw bits.

    Raises:
        ModelError: The values are not numbers.
    """
    array = np.asarray(values)
    if "bfloat16" in (dtype, array.dtype.name) and array.dtype.itemsize == 2:
        # the upper half of a float32
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "fiub":
        raise ModelError(f"{where} holds {array.dtype} values instead of numbers")
    kind = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    array = np.array(array, dtype=kind)
    array.setflags(write=False)
    return array


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _attribute(group: Any, name: str) -> list[str] | None:
    """Return a list of names, which Keras cuts into ``name0``, ``name1``, ... where it is too long."""
    if name in group.attrs:
        return [_text(v) for v in group.attrs[name]]
    chunks: list[str] = []
    while f"{name}{len(chunks)}" in group.attrs:
        chunks.append(f"{name}{len(chunks)}")
    return [_text(v) for chunk in chunks for v in group.attrs[chunk]] if chunks else None


# -- older layout: a group per layer name


def _by_name(store: _Store, root: Any, graph: Graph) -> dict[str, Weights]:
    stored: dict[str, Weights] = {}
    for name in _attribute(root, "layer_names") or []:
        group = store.group(root, name)
        if group is None:
            raise ModelError(f"the file lists layer {name!r} and has no weights group for it")
        names = _attribute(group, "weight_names") or []
        if names:
            stored[name] = [(weight, store.array(group, weight)) for weight in names]
    result: dict[str, Weights] = {}
    for name, weights in _matched(stored, graph).items():
        inner = next(node.graph for node in graph.nodes if node.spec.name == name)
        if inner is None:
            result[name] = [(_short(weight), array) for weight, array in weights]
        else:
            result |= _divided(name, inner, weights)
    return result


def _matched(stored: dict[str, Weights], graph: Graph) -> dict[str, Weights]:
    """Match stored groups with layers: by name, or in order where none fits, as many names are automatic."""
    layers = [node.spec.name for node in graph.nodes]
    strange = [name for name in stored if name not in layers]
    if not strange:
        return stored
    needy = [n.spec.name for n in graph.nodes if n.graph is not None or expected_weights(n.spec)]
    if len(strange) == len(stored) == len(needy):
        return dict(zip(needy, stored.values(), strict=True))
    raise ModelError(
        f"the weights belong to another model: they are for layers {_listed(strange)}, which this one does not have"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def _leaves(graph: Graph, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in graph.nodes:
        here = (*path, node.spec.name)
        if node.graph is None:
            yield here
        else:
            yield from _leaves(node.graph, here)


def _divided(name: str, graph: Graph, weights: Weights) -> dict[str, Weights]:
    """Divide the weights of a nested model, which the older layout throws together, among its layers.

    A weight is called ``<layer>/kernel:0``, in Keras 3 with the names of the models around it in front.
    """
    leaves = list(_leaves(graph))
    result: dict[str, Weights] = {}
    for weight, array in weights:
        where = f"/{weight.rpartition('/')[0]}/"
        depth = {leaf: _common_depth(leaf, where) for leaf in leaves}
        best = max(leaves, key=lambda leaf: (depth[leaf], -len(leaf)))
        rivals = [leaf for leaf in leaves if depth[leaf] == depth[best] and len(leaf) == len(best)]
        if not depth[best] or len(rivals) > 1:
            raise ModelError(
                f"nested model {name!r}: cannot tell which of its layers weight {weight!r} belongs to; "
                "save the model as .keras, or give its layers unique names"
            )
        result.setdefault("/".join((name, *best)), []).append((_short(weight), array))
    return result


def _common_depth(leaf: tuple[str, ...], where: str) -> int:
    """Return how many names at the end of a layer's path occur, joined, in the path of a weight."""
    return next((len(leaf) - i for i in range(len(leaf)) if f"/{'/'.join(leaf[i:])}/" in where), 0)


def _short(weight: str) -> str:
    """Return the last part of a weight's path: ``fc1/fc1/kernel:0`` is ``kernel``."""
    return weight.rpartition("/")[2].partition(":")[0]


# -- newer layout: a group per layer class


def _by_class(store: _Store, layers: Any, container: str, graph: Graph, prefix: str) -> Iterator[tuple[str, Weights]]:
    counts: dict[str, int] = {}
    groups = {key: store.group(layers, f"{key}/vars") for key in layers}
    by_name = {_text(group.attrs.get("name", "")): key for key, group in groups.items() if group is not None}
    for node in graph.nodes:
        base = _snake_case(node.spec.class_name)
        count = counts[base] = counts.get(base, -1) + 1
        key = f"{base}_{count}" if count else base
        # the class in the json may be called otherwise than the class in Python
        group = store.group(layers, key) or store.group(layers, by_name.get(node.spec.name, key))
        if group is None:
            continue
        name = prefix + node.spec.name
        if node.graph is None:
            yield name, list(_collected(store, group, ""))
        elif (inner := store.group(group, container)) is not None:
            yield from _by_class(store, inner, container, node.graph, f"{name}/")


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _collected(store: _Store, group: Any, path: str) -> Iterator[tuple[str, Array]]:
    """Yield a layer's own weights, then those of the layers inside it."""
    own = store.group(group, "vars")
    for key in sorted(own or (), key=lambda k: (not k.isdecimal(), int(k) if k.isdecimal() else 0, k)):
        yield ("" if key.isdecimal() else path + key), store.array(own, key)
    order = {name: i for i, name in enumerate(_SUBLAYERS)}
    for key in sorted(group, key=lambda k: (order.get(k, len(order)), k)):
        inner = store.group(group, key) if key not in _NOT_WEIGHTS else None
        if inner is not None:
            yield from _collected(store, inner, f"{path}{key}/")


# ---- arrays to layers


def with_all_weights(spec: ModelSpec, weights: Mapping[str, Weights], hint: str) -> ModelSpec:
    """Return `spec` with the weights, given by layer name, in its layers; see `with_weights`."""
    layers = (with_weights(layer, weights.get(layer.name, []), hint) for layer in spec.layers)
    return replace(spec, layers=tuple(layers))


def with_weights(layer: LayerSpec, weights: Weights, hint: str) -> LayerSpec:
    """Return `layer` with its weights, in the order of Keras' ``get_weights()``.

    Args:
        layer: A layer without weights.
        weights: What was stored for it.
        hint: What to do where nothing was stored.

    Raises:
        ModelError: A weight is missing, one too many, of a shape the layer cannot have, or not finite.
    """
    expected = expected_weights(layer)
    weights = modern_weights(layer.class_name, weights)
    if expected and not weights:
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}) needs {_listed(expected)} and has none; {hint}")
    if expected is not None:
        if len(expected) != len(weights):
            raise ModelError(
                f"layer {layer.name!r} ({layer.class_name}) has {len(weights)} weights; its config asks for "
                f"{len(expected)} ({_listed(expected)})"
            )
        stored = dict(weights)
        # by name where the names say so, else in order: the older layout puts trainable weights first
        in_order = [(name, weights[i][1]) for i, name in enumerate(expected)]
        weights = [(name, stored[name]) for name in expected] if set(stored) == set(expected) else in_order
    layer = replace(layer, weight_names=tuple(n for n, _ in weights), weights=tuple(w for _, w in weights))
    _check_values(layer)
    _check_shapes(layer)
    return layer


def _check_values(layer: LayerSpec) -> None:
    for i, (name, values) in enumerate(zip(layer.weight_names, layer.weights, strict=True)):
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            raise ModelError(
                f"layer {layer.name!r}: {bad} of {values.size} values of weight {name or i!r} are not finite "
                f"(NaN or infinite); the model did not train well"
            )


def _check_shapes(layer: LayerSpec) -> None:
    for name, values in zip(layer.weight_names, layer.weights, strict=True):
        shape = expected_shape(layer, name)
        if shape is None:
            continue
        fits = [want in (None, have) for want, have in zip(shape, values.shape, strict=False)]
        if len(shape) != values.ndim or not all(fits):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ModelError(
                f"layer {layer.name!r} ({layer.class_name}): weight {name!r} has shape {values.shape}; "
                f"its config asks for ({wanted})"
            )


_KERNEL_AND_BIAS = re.compile(r"(Q|Binary|Ternary)?(Dense|Conv[123]D(Transpose)?)")
_DEPTHWISE = re.compile(r"Q?DepthwiseConv[12]D")
_SEPARABLE = re.compile(r"Q?SeparableConv[12]D")
_RECURRENT = re.compile(r"Q?(SimpleRNN|LSTM|GRU)")
_BATCH_NORM = re.compile(r"Q?BatchNormalization")


def expected_weights(layer: LayerSpec) -> tuple[str, ...] | None:
    """Return the names of a layer's weights in the order of ``get_weights()``; None for unknown classes."""
    return _weight_names(layer.class_name, layer.config)


def _weight_names(class_name: str, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    bias = ("bias",) if config.get("use_bias", True) else ()
    if _KERNEL_AND_BIAS.fullmatch(class_name):
        return ("kernel", *bias)
    if _DEPTHWISE.fullmatch(class_name):
        return ("depthwise_kernel", *bias)
    if _SEPARABLE.fullmatch(class_name):
        return ("depthwise_kernel", "pointwise_kernel", *bias)
    if _RECURRENT.fullmatch(class_name):
        return ("kernel", "recurrent_kernel", *bias)
    if _BATCH_NORM.fullmatch(class_name):
        scale = ("gamma",) if config.get("scale", True) else ()
        center = ("beta",) if config.get("center", True) else ()
        return (*scale, *center, "moving_mean", "moving_variance")
    if class_name.endswith("Batchnorm"):  # QKeras: a layer with its batch normalization and a step counter
        own = _weight_names(class_name.removesuffix("Batchnorm"), config)
        norm = _weight_names("BatchNormalization", config)
        return (*own, "iteration", *norm) if own and norm else None
    if class_name in ("PReLU", "Embedding"):
        return ("alpha",) if class_name == "PReLU" else ("embeddings",)
    if class_name in ("TimeDistributed", "Bidirectional") and isinstance(config.get("layer"), dict):
        inner = config["layer"]
        names = _weight_names(str(inner.get("class_name")), inner.get("config") or {})
        if names is None or class_name == "TimeDistributed":
            return names
        return tuple(f"{way}_{name}" for way in ("forward", "backward") for name in names)
    return None


def expected_shape(layer: LayerSpec, weight: str) -> tuple[int | None, ...] | None:
    """Return what a layer's config says about the shape of a weight (None: any length), if anything."""
    class_name, config = layer.class_name.removesuffix("Batchnorm"), layer.config
    size = config.get("kernel_size", ())
    size = tuple(size) if isinstance(size, list | tuple) else (size,)
    outputs = config.get("units", config.get("filters"))
    if weight == "kernel" and _KERNEL_AND_BIAS.fullmatch(class_name):
        return (*size, outputs, None) if class_name.endswith("Transpose") else (*size, None, outputs)
    if weight == "depthwise_kernel":
        return (*size, None, config.get("depth_multiplier"))
    if weight == "pointwise_kernel":
        return (*(1 for _ in size), None, outputs)
    if weight in ("gamma", "beta", "moving_mean", "moving_variance") and _BATCH_NORM.fullmatch(class_name):
        return (None,)
    one_an_output = any(known.fullmatch(class_name) for known in (_KERNEL_AND_BIAS, _DEPTHWISE, _SEPARABLE))
    return (outputs,) if weight == "bias" and one_an_output else None
