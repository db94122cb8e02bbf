"""The YAML file that describes a conversion: the model's files, the project, the settings; of any age.

Old and new spellings of a key mean the same. What another tool's file asks for and kconvert has no use for is left out
with a :class:`~kconvert.errors.ConfigWarning`; what it has no idea of is an error that names the key.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kconvert.config import BACKENDS, is_option, takes
from kconvert.errors import ConfigError, ConfigWarning, did_you_mean
from kconvert.layers import Node

PROJECT_CONFIG = "kconvert_config.yml"
MAX_BYTES = 1 << 20
MAX_VALUES = 200_000
"""A file of a few lines may name one value in another again and again: this bounds what it comes to."""

# key -> argument of convert_from_keras_model
_OPTIONS = {
    "OutputDir": "output_dir",
    "ProjectName": "project_name",
    "Backend": "backend",
    "Part": "part",
    "ClockPeriod": "clock_period",
    "ClockUncertainty": "clock_uncertainty",
    "IOType": "io_type",
    "InputData": "input_data_tb",
    "OutputPredictions": "output_data_tb",
}
_PATHS = ("OutputDir", "InputData", "OutputPredictions")
_OTHER_NAMES = {"XilinxPart": "Part", "FPGAPart": "Part"}
_MODEL_KEYS = ("KerasModel", "KerasWeights", "KerasJson", "KerasH5")
_OTHER_FRAMEWORKS = ("OnnxModel", "PytorchModel", "PytorchDict", "TensorFlowModel")
_RECORDS = ("Version", "Stamp")
_UNUSED = ("Board", "WriterConfig", "Flows")
_KNOWN = (*_MODEL_KEYS, "HLSConfig", *_OPTIONS, *_OTHER_NAMES)
# what the first files, which had no HLSConfig, said about the whole model -> the key in its part "Model"
_MODEL_SETTINGS = {"DefaultPrecision": "Precision", "ReuseFactor": "ReuseFactor"}


@dataclass(frozen=True, slots=True)
class ConversionFile:
    """What a settings file says, with its paths resolved.

    Attributes:
        model: Path of the model file, or a live model where the settings are a dictionary that holds one.
        weights: Path of the weights, if they are in a file of their own.
        hls_config: The settings of the conversion.
        options: Arguments of :func:`kconvert.convert_from_keras_model`.
    """

    model: Any
    weights: Path | None
    hls_config: Mapping[str, Any]
    options: Mapping[str, Any]


def read_conversion(source: str | os.PathLike[str] | Mapping[str, Any]) -> ConversionFile:
    """Read a settings file, a project folder's one, or a dictionary with the same keys.

    Paths in a file are relative to it; those in a dictionary are taken as they are.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    if isinstance(source, Mapping):
        return _conversion(source, Path(), "the settings")
    file = Path(source)
    if file.is_dir():
        file = file / PROJECT_CONFIG
    return _conversion(load_yaml(file), file.parent, str(file))


def as_mapping(file: ConversionFile, folder: Path) -> dict[str, Any]:
    """Return what a settings file in `folder` has to hold to say the same."""

    def relative(path: Any) -> str:
        text = (Path(path) if Path(path).is_absolute() else Path(os.path.relpath(path, folder))).as_posix()
        if any("\ud800" <= c <= "\udfff" for c in text):  # how Python writes bytes that are no UTF-8
            raise ConfigError(f"{text}: a name that is not UTF-8 cannot be written into a settings file; rename it")
        return text

    weights = None if file.weights is None else relative(file.weights)
    suffix = Path(file.model).suffix.lower()
    if suffix == ".json":
        content: dict[str, Any] = {"KerasJson": relative(file.model), "KerasH5": weights}
    elif suffix in (".h5", ".hdf5") and weights is None:
        content = {"KerasH5": relative(file.model)}
    else:
        content = {"KerasModel": relative(file.model), "KerasWeights": weights}
    for key, argument in _OPTIONS.items():
        value = file.options.get(argument)
        content[key] = relative(value) if value is not None and key in _PATHS else value
    content["HLSConfig"] = dict(file.hls_config)
    return {key: value for key, value in content.items() if value is not None}


def _conversion(raw: Mapping[str, Any], folder: Path, where: str) -> ConversionFile:
    given: dict[str, Any] = {}
    for key, value in raw.items():
        name = _OTHER_NAMES.get(key, key)
        if name in given:
            spellings = " and ".join(k for k in raw if _OTHER_NAMES.get(k, k) == name)
            raise ConfigError(f"{where}: {spellings} mean the same; keep one")
        if key in _OTHER_FRAMEWORKS:
            raise ConfigError(f"{where}: {key}: only Keras models convert (KerasModel, KerasH5, KerasJson)")
        if key in _UNUSED:
            _left_out(f"{where}: {key} has no counterpart here")
        elif key not in (*_KNOWN, *_RECORDS, *_MODEL_SETTINGS):
            raise ConfigError(
                f"{where}: unknown key {key!r}{did_you_mean(str(key), _KNOWN)} (known: {', '.join(_KNOWN)})"
            )
        given[name] = value
    model, weights = _model_files(given, where)
    hls_config = given.get("HLSConfig")
    if hls_config is not None and not isinstance(hls_config, Mapping):
        raise ConfigError(f"{where}: HLSConfig: expected a mapping, got {type(hls_config).__name__} {hls_config!r}")
    if old := {new: given[key] for key, new in _MODEL_SETTINGS.items() if given.get(key) is not None}:
        if hls_config is not None:
            keys = " and ".join(key for key in _MODEL_SETTINGS if key in given)
            raise ConfigError(f"{where}: {keys} beside HLSConfig; move it there, under Model")
        hls_config = {"Model": old}
    options = {argument: given[key] for key, argument in _OPTIONS.items() if given.get(key) is not None}
    for key in _PATHS:
        value = options.get(_OPTIONS[key])
        if isinstance(value, str | os.PathLike):
            options[_OPTIONS[key]] = _path(folder, value)
        elif value is not None and (key == "OutputDir" or isinstance(value, bool | int | float | Mapping)):
            raise ConfigError(f"{where}: {key}: expected a path, got {value!r}")
    if isinstance(backend := options.get("backend"), str):
        options["backend"] = next((name for name in BACKENDS if name.lower() == backend.lower()), backend)
    if "clock_uncertainty" in options:
        options["clock_uncertainty"] = str(options["clock_uncertainty"])
    for key, argument in _OPTIONS.items():
        if key not in _PATHS and key != "ClockPeriod" and not isinstance(options.get(argument, ""), str):
            raise ConfigError(f"{where}: {key}: expected text, got {options[argument]!r}")
    model = _path(folder, model) if isinstance(model, str | os.PathLike) else model
    return ConversionFile(model, None if weights is None else _path(folder, weights), hls_config or {}, options)


def _path(folder: Path, path: str | os.PathLike[str]) -> Path:
    """Return a path as it is meant in a file in `folder`; ``~`` is home, as in a shell."""
    if "\0" in os.fspath(path):
        raise ConfigError(f"{path!r} cannot be a path")
    return folder / os.path.expanduser(path)


def _model_files(given: Mapping[str, Any], where: str) -> tuple[Any, str | None]:
    """Return the model and its weights."""
    model, weights, json, h5 = (given.get(key) for key in _MODEL_KEYS)
    for key in _MODEL_KEYS[1:]:
        if not isinstance(given.get(key), str | os.PathLike | None):
            raise ConfigError(f"{where}: {key}: expected a path, got {given[key]!r}")
    if model is not None and json is not None:
        raise ConfigError(f"{where}: KerasModel and KerasJson both name the model; keep one")
    if weights is not None and h5 is not None:
        raise ConfigError(f"{where}: KerasWeights and KerasH5 both name the weights; keep one")
    if json is not None and h5 is None and weights is None:
        raise ConfigError(f"{where}: KerasJson is the architecture alone; name the file of its weights with KerasH5")
    if model is None and json is None:
        if h5 is None:
            raise ConfigError(f"{where}: the key KerasModel is missing (or KerasH5, or KerasJson with KerasH5)")
        return h5, weights
    return (json if model is None else model), (h5 if weights is None else weights)


def _left_out(what: str) -> None:
    warnings.warn(f"{what}; it is left out", ConfigWarning, stacklevel=2)


# ***** settings of other tools *****

# Settings of hls4ml about how hardware is laid out, which change no result.
_NO_COUNTERPART = frozenset(
    {
        "Compression",
        "BramFactor",
        "TargetCycles",
        "PipelineStyle",
        "PipelineInterval",
        "TraceOutput",
        "BitExact",
        "AllowDAFallback",
        "AllowV2Fallback",
        "TimeStepLoopParallelism",
        "TableRangePower2",
        "Algorithm",
        "Skip",
        "DepthwiseReuseFactor",
        "PointwiseReuseFactor",
        "RecurrentReuseFactor",
        "ForwardReuseFactor",
        "BackwardReuseFactor",
    }
)
# Strategies of hls4ml and what comes nearest.
_STRATEGIES = {
    "distributed_arithmetic": "Latency",
    "da": "Latency",
    "resource_unrolled": "Unrolled",
    "compressed": "Resource",
}
# With the strategy of a softmax hls4ml says how it is computed. Its "latency" is what it writes by itself.
_SOFTMAX_STRATEGIES = {"stable": "stable", "legacy": "stable", "argmax": "argmax"}
# What other tools write for every layer, whether it takes it or not.
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "ReuseFactor": (1,),
    "Strategy": ("Latency", "latency"),
    "ParallelizationFactor": (1,),
    "ConvImplementation": ("LineBuffer", "linebuffer", "Encoded", "encoded"),
    "table_size": (1024,),
    "table_t": ("ap_fixed<18,8>", "fixed<18,8>"),
    "table": ("ap_fixed<18,8>", "fixed<18,8>"),
    "inv_inp": ("ap_fixed<18,8>", "fixed<18,8>", "fixed<18,8,RND,SAT,0>"),
}
# Types that hls4ml has for layers of which kconvert has none, or finds them by itself.
_FOUND_TYPES = ("accum", "inv_inp", "table")
_SHARED_TYPES = ("recurrent_bias", "zero_bias")


def adapted(hls_config: Mapping[str, Any], layers: Callable[[], list[Node]]) -> dict[str, Any]:
    """Return the settings of a file in terms of kconvert, leaving out, with a warning, what it has no use for.

    Other tools write the same settings for every layer, whether it takes them or not, and some of their own. A key that
    neither they nor kconvert know is kept, for :class:`~kconvert.config.HLSConfig` to refuse.

    Args:
        hls_config: The settings as they were read.
        layers: Returns the layers of the model with their activations split off; called if settings name any.
    """
    found = dict(hls_config)
    left_out: list[str] = []
    if found.pop("Flows", None):
        left_out.append("Flows")
    if isinstance(model := found.get("Model"), Mapping):
        found["Model"] = dict(_entry(model, "Model", [], left_out))
    nodes = layers() if found.get("LayerType") or found.get("LayerName") else []
    for part in ("LayerType", "LayerName"):
        if not isinstance(entries := found.get(part), Mapping):
            continue
        if part == "LayerName":
            entries = _merge_linear(entries, {node.layer for node in nodes})
        found[part] = {}
        for name, entry in entries.items():
            these = [n for n in nodes if name == (n.layer if part == "LayerName" else n.layer_class)]
            plain = isinstance(entry, Mapping)
            found[part][name] = dict(_entry(entry, f"{part} → {name}", these, left_out)) if plain else entry
    if left_out:
        warnings.warn(
            f"left out, without effect on any result: {'; '.join(left_out)} (no counterpart here, or not that layer's)",
            ConfigWarning,
            stacklevel=3,
        )
    return found


def _entry(entry: Mapping[str, Any], where: str, nodes: list[Node], left_out: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of one place that mean something for the layers `nodes`; without any, for the whole model."""
    softmax = bool(nodes) and all(takes(node, "Implementation") for node in nodes)
    for key, value in entry.items():
        folded = value.lower() if isinstance(value, str) else None
        if key in _NO_COUNTERPART:
            if value:  # where it is off, nothing was asked for
                left_out.append(f"{where} → {key}")
        elif key == "Precision" and isinstance(value, Mapping):
            yield key, dict(_types(value, f"{where} → {key}", nodes, left_out))
        elif key == "Strategy" and softmax and folded in _SOFTMAX_STRATEGIES:
            yield "Implementation", _SOFTMAX_STRATEGIES[folded]
        elif key == "Strategy" and folded in _STRATEGIES:
            nearest = _STRATEGIES[folded]
            warnings.warn(f"{where} → Strategy: {value} is built as {nearest}", ConfigWarning, stacklevel=4)
            yield key, nearest
        elif key == "ConvImplementation" and folded == "encoded":
            warnings.warn(f"{where} → {key}: {value} is built as LineBuffer", ConfigWarning, stacklevel=4)
            yield key, "LineBuffer"
        elif nodes and is_option(key) and not any(takes(node, key) for node in nodes):
            if value not in _USUAL.get(key, ()):
                left_out.append(f"{where} → {key}")
        else:
            yield key, value


def _types(types: Mapping[str, Any], where: str, nodes: list[Node], left_out: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the types that the layers `nodes` have; without any, those of the whole model."""
    own = {role for node in nodes for role in node.roles}
    for role, value in sorted(types.items(), key=lambda item: item[0] != "table"):  # exp_table says more than table
        taken = not nodes or role in own or (role == "table" and "exp_table" in own)
        if role == "maximum":
            _left_out(f"{where} → {role}: types left to the conversion are as wide as their values need")
        elif taken or not (role in _FOUND_TYPES or (role in _SHARED_TYPES and value == "auto")):
            yield role, value
        elif value not in ("auto", *_USUAL.get(role, ())):
            left_out.append(f"{where} → {role}")


def _merge_linear(entries: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Move the result type of ``<layer>_linear``, hls4ml's name for what follows a layer without activation, to it."""
    found = {name: entry for name, entry in entries.items() if not _is_linear(name, known)}
    for name in entries.keys() - found.keys():
        precision = entries[name].get("Precision") if isinstance(entries[name], Mapping) else None
        result = precision.get("result") if isinstance(precision, Mapping) else precision
        if result is None or result == "auto":
            continue
        base = name.removesuffix("_linear")
        entry = dict(found.get(base) or {})
        own = entry.get("Precision") or {}
        entry["Precision"] = {**(own if isinstance(own, Mapping) else {"default": own}), "result": result}
        found[base] = entry
    return found


def _is_linear(name: object, known: set[str]) -> bool:
    return isinstance(name, str) and name not in known and name.removesuffix("_linear") in known


# ***** YAML *****


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen where it is installed
    """The safe loader, which also refuses a key given twice."""


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    own: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # the mapping's own keys win over what is merged in (<<: *name)
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        try:
            twice = key in own
        except TypeError:
            raise yaml.constructor.ConstructorError(None, None, f"line {line}: a key is no plain value") from None
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice, again in line {line}")
        own.add(key)
    merged: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return merged


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
# hls4ml marks the path of a model file with a tag of its own
_Loader.add_constructor("!keras_model", lambda loader, node: loader.construct_scalar(node))


def load_yaml(file: Path) -> Mapping[str, Any]:
    """Return the mapping in a YAML file. Only plain values are read: nothing in it can run code.

    Raises:
        ConfigError: the file cannot be read, is too large or no YAML, holds a key twice, or is no mapping.
    """
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{file} is larger than {MAX_BYTES >> 20} MiB: that is no settings file")
        loader = _Loader(data.decode("utf-8"))
        try:
            node = loader.get_single_node()
            if node is not None and _expanded_size(node, {}) > MAX_VALUES:
                raise ConfigError(f"{file}: its aliases (*name) come to more than {MAX_VALUES} values")
            raw = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{file}: expected a mapping at the top, got {type(raw).__name__}")
    return raw


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node comes to, those behind aliases counted wherever they are named."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what an alias to something it is part of comes to: no end
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        nested = parts if isinstance(parts, list) else []
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in nested)
    return known[id(node)]


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, its keys in the order they have."""
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)
    return text
