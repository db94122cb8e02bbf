"""The conversion settings: making the dictionary users edit, and reading it back strictly.

The dictionary has up to three parts about layers, from the general to the particular; the particular wins::

    Model:      {Precision: ap_fixed<16,6>, ReuseFactor: 1, Strategy: Latency}
    LayerType:  {Dense: {Precision: {weight: ap_fixed<8,2>}}}
    LayerName:  {fc1: {Precision: {weight: ap_fixed<6,1>, result: auto}, ReuseFactor: 4}}

``Optimizers`` and ``SkipOptimizers`` beside them choose passes; see :mod:`kconvert.optimizers.selection`.
A key that nothing reads is an error that names its path.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kconvert.errors import ConfigError, PrecisionError, did_you_mean
from kconvert.layers import Node
from kconvert.layers.core import STRATEGIES
from kconvert.layers.lookup import LOOKUPS
from kconvert.tables import html_table
from kconvert.types import FixedType, Overflow, Rounding, parse_precision

if TYPE_CHECKING:
    from kconvert.model import HLSModel

DEFAULT_PRECISION = "ap_fixed<16,6>"
PARTS = ("Model", "LayerType", "LayerName", "Optimizers", "SkipOptimizers", "FIFODepths")
IO_TYPES = ("io_parallel", "io_stream")
GRANULARITIES = ("model", "type", "name")
BACKENDS = ("Vitis", "Vivado")

# Other spellings of a key, as found in configurations of older tools.
_ALIASES = {
    "TableSize": "table_size",
    "implementation": "Implementation",
    "SoftmaxImplementation": "Implementation",
}
# Precision roles that may also be given as a key of their own beside Precision.
_TYPE_KEYS = {"table_t": "table", "exp_table_t": "exp_table", "inv_table_t": "inv_table"}
_ROLE_ALIASES = {"table": ("table", "exp_table", "inv_table")}


def _identifier(name: str, what: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or name in _RESERVED or "__" in name:
        raise ConfigError(
            f"{what} {name!r} cannot name a C++ function: use a letter followed by letters, digits and single "
            f"underscores (at most 64), and no C++ keyword"
        )
    return name


_OURS = "nnet csim hls"  # the namespaces of the generated code
_RESERVED = frozenset(
    f"""alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const
    constexpr const_cast continue decltype default delete do double dynamic_cast else enum explicit export extern
    false float for friend goto if inline int long main mutable namespace new noexcept not not_eq nullptr operator
    or or_eq private protected public register reinterpret_cast requires return short signed sizeof static
    static_assert static_cast std struct switch template this thread_local throw true try typedef typeid typename
    union unsigned using virtual void volatile wchar_t while xor xor_eq {_OURS}""".split()
)


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """Where the project goes and what the vendor tool is told.

    Attributes:
        output_dir: Folder of the project.
        project_name: Name of the top function and of the files; a C++ identifier.
        backend: ``"Vitis"`` or ``"Vivado"``.
        part: FPGA part number.
        clock_period: Target clock period in ns.
        clock_uncertainty: Share of the period (``"12.5%"``) the tool keeps free; ``None`` for its default.
        io_type: ``"io_parallel"``: all elements of a tensor at once; ``"io_stream"``: one position after the other.
    """

    output_dir: str = "my-hls-project"
    project_name: str = "myproject"
    backend: str = "Vitis"
    part: str = "xcvu13p-flga2577-2-e"
    clock_period: float = 5
    clock_uncertainty: str | None = None
    io_type: str = "io_parallel"

    def __post_init__(self) -> None:
        _identifier(self.project_name, "project_name")
        if self.backend not in BACKENDS:
            raise ConfigError(f"unknown backend {self.backend!r}; choose from {', '.join(BACKENDS)}")
        if self.io_type == "io_serial":
            raise ConfigError("io_type 'io_serial' is the old name of 'io_stream'; use that")
        if self.io_type not in IO_TYPES:
            raise ConfigError(f"unknown io_type {self.io_type!r}; choose from {', '.join(IO_TYPES)}")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.part):
            raise ConfigError(f"part {self.part!r} is no part number: letters, digits, '-', '_' and '.' only")
        period = self.clock_period
        if isinstance(period, bool) or not isinstance(period, (int, float)) or not 0 < period < 1e6:
            raise ConfigError(f"clock_period {period!r} is not a positive number of nanoseconds")
        if self.clock_uncertainty is not None and not re.fullmatch(r"\d+(\.\d+)?%?", str(self.clock_uncertainty)):
            raise ConfigError(f"clock_uncertainty {self.clock_uncertainty!r} is no share such as '12.5%'")

    @property
    def uncertainty(self) -> str:
        """Clock uncertainty to tell the tool: the one given, or the tool's own default."""
        return str(self.clock_uncertainty or ("27%" if self.backend == "Vitis" else "12.5%"))


# ***** reading *****


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one place (the model, a layer type, a layer), checked: only what was given."""

    where: str
    precision: Mapping[str, FixedType | None] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _choice(allowed: Iterable[str]) -> Callable[[object], str | None]:
    by_fold = {a.casefold(): a for a in allowed}
    return lambda value: by_fold.get(value.casefold()) if isinstance(value, str) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


_SOFTMAX = ("stable", "latency", "argmax")
# key -> (field of a node, reader giving None for a bad value, what is allowed)
_OPTIONS: dict[str, tuple[str, Callable[[object], Any], str]] = {
    "ReuseFactor": ("reuse_factor", _positive, "a positive integer"),
    "Strategy": ("strategy", _choice(STRATEGIES), " or ".join(STRATEGIES)),
    "ParallelizationFactor": ("parallelization_factor", _positive, "a positive integer"),
    "ConvImplementation": ("conv_implementation", _choice(["LineBuffer"]), "LineBuffer"),
    "table_size": ("table_size", _positive, "a positive integer"),
    "Lookup": ("lookup", _choice(LOOKUPS), ", ".join(LOOKUPS)),
    "Implementation": ("implementation", _choice(_SOFTMAX), ", ".join(_SOFTMAX)),
    "Trace": ("trace", _flag, "true or false"),
}


def add_setting(
    key: str, attribute: str, read: Callable[[object], Any], allowed: str, *, alias: str | None = None
) -> None:
    """Let the settings have a key that the nodes of a plugin take: those with `attribute` among their ``tunables``.

    Args:
        key: The key, such as ``"LutStyle"``.
        attribute: The field of a node that it sets.
        read: Returns the value of the field for the value in the settings, or None where that is not allowed.
        allowed: What is allowed, for messages: ``"a positive integer"``.
        alias: Another spelling of the key.

    Raises:
        ConfigError: the key has another meaning already.
    """
    if key in ("Precision", *_TYPE_KEYS, *_ALIASES) or _OPTIONS.get(key, (attribute,))[0] != attribute:
        raise ConfigError(f"the setting {key!r} has another meaning already")
    _OPTIONS[key] = (attribute, read, allowed)
    if alias is not None:
        _ALIASES[alias] = key


def _unknown(where: str, key: object, known: Iterable[str]) -> ConfigError:
    known = sorted(known)
    return ConfigError(f"{where} → {key}: unknown key{did_you_mean(str(key), known)} (known: {', '.join(known)})")


def _mapping(raw: object, where: str) -> Mapping[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {type(raw).__name__} {raw!r}")
    return raw


def _precision(value: object, where: str) -> FixedType | None:
    try:
        return parse_precision(value)  # type: ignore[arg-type]  # it refuses what is no string
    except PrecisionError as error:
        raise PrecisionError(f"{where}: {error}") from None


def _read_settings(raw: object, where: str) -> Settings:
    precision: dict[str, FixedType | None] = {}
    options: dict[str, Any] = {}
    given: dict[str, str] = {}
    for key, value in _mapping(raw, where).items():
        name = _ALIASES.get(key, key)
        if given.setdefault(name, key) != key:
            raise ConfigError(f"{where}: {given[name]} and {key} are the same setting; keep one")
        path = f"{where} → {key}"
        if name == "Precision":
            roles = {"default": value} if isinstance(value, str | FixedType) else _mapping(value, path)
            precision.update({role: _precision(t, f"{path} → {role}") for role, t in roles.items()})
        elif name in _TYPE_KEYS:
            precision[_TYPE_KEYS[name]] = _precision(value, path)
        elif name in _OPTIONS:
            attribute, read, allowed = _OPTIONS[name]
            options[attribute] = read(value)
            if options[attribute] is None:
                raise ConfigError(f"{path}: {value!r} is not allowed; give {allowed}")
        else:
            raise _unknown(where, key, ["Precision", *_TYPE_KEYS, *_OPTIONS])
    return Settings(where, precision, options)


def _names(raw: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """Return a list of names, or of the one name, under `key`; None where there is no such key."""
    value = raw.get(key)
    names = [value] if isinstance(value, str) else value
    if names is not None and not (isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)):
        raise ConfigError(f"{key}: expected a list of names, got {value!r}")
    return None if names is None else tuple(names)


def _depths(raw: object) -> dict[str, int]:
    depths = _mapping(raw, "FIFODepths")
    for name, depth in depths.items():
        if _positive(depth) is None:
            raise ConfigError(f"FIFODepths → {name}: {depth!r} is not allowed; give a positive integer")
    return dict(depths)


def _hits(node: Node, role: str) -> list[str]:
    """Return the roles of `node` that a role in the settings means."""
    return [r for r in _ROLE_ALIASES.get(role, (role,)) if r in node.roles]


def _all_roles(kind: type[Node] = Node) -> set[str]:
    """Return every role that any layer has."""
    return {*kind.roles, *(role for derived in kind.__subclasses__() for role in _all_roles(derived))}


def takes(node: Node, key: str) -> bool:
    """Whether `key`, one of those beside ``Precision``, is a setting of the layer `node`."""
    name = _ALIASES.get(key, key)
    if name in _TYPE_KEYS:
        return bool(_hits(node, _TYPE_KEYS[name]))
    return name in _OPTIONS and _OPTIONS[name][0] in {*node.tunables, "trace"}


def is_option(key: str) -> bool:
    """Whether `key`, one of those beside ``Precision``, is a setting of any layer."""
    return _ALIASES.get(key, key) in {*_TYPE_KEYS, *_OPTIONS}


def _check_used(place: Settings, nodes: Sequence[Node]) -> None:
    for role in place.precision:
        if role != "default" and not any(_hits(n, role) for n in nodes):
            raise _unknown(f"{place.where} → Precision", role, ["default", *(r for n in nodes for r in n.roles)])
    for attribute in place.options:
        key = next(k for k, v in _OPTIONS.items() if v[0] == attribute)
        if not any(takes(n, key) for n in nodes):
            known = [k for k in _OPTIONS if any(takes(n, k) for n in nodes) and k != "Trace"]
            raise ConfigError(
                f"{place.where} → {key}: a {type(nodes[0]).__name__} layer has no such setting "
                f"(it takes {', '.join(['Precision', *known])})"
            )


class HLSConfig:
    """The checked form of the settings dictionary."""

    def __init__(self, raw: Mapping[str, Any] | None) -> None:
        """Read `raw`; raises :class:`ConfigError` or :class:`PrecisionError` with the path of what is wrong."""
        raw = _mapping(raw, "hls_config")
        for key in raw:
            if key not in PARTS:
                raise _unknown("hls_config", key, PARTS)
        self.passes = _names(raw, "Optimizers")
        """The passes to run besides those that a conversion needs; None for all."""
        self.skipped_passes = _names(raw, "SkipOptimizers") or ()
        self.fifo_depths = _depths(raw.get("FIFODepths"))
        """How many words streams hold, by the name of the stream."""
        self.model = _read_settings(raw.get("Model"), "Model")
        for role in self.model.precision:
            if role != "default" and role not in (roles := {*_ROLE_ALIASES, *_all_roles()}):
                raise _unknown("Model → Precision", role, ["default", *roles])
        self.types = self._part(raw, "LayerType")
        self.names = self._part(raw, "LayerName")
        default = self.model.precision.get("default")
        self.default = default or with_modes(FixedType.parse(DEFAULT_PRECISION))

    @staticmethod
    def _part(raw: Mapping[str, Any], part: str) -> dict[str, Settings]:
        return {k: _read_settings(v, f"{part} → {k}") for k, v in _mapping(raw.get(part), part).items()}

    def check_names(self, nodes: Iterable[Node]) -> None:
        """Refuse settings of layers or layer types the model does not have, and those that no such layer takes."""
        nodes = list(nodes)
        for part, given, attribute in (
            ("LayerName", self.names, "layer"),
            ("LayerType", self.types, "layer_class"),
        ):
            known = {getattr(n, attribute) for n in nodes}
            for name, place in given.items():
                if name not in known:
                    base = name.removesuffix("_linear")
                    hint = did_you_mean(name, known)
                    if part == "LayerName" and base in known and base != name:
                        hint = f"; {base!r} has a linear activation, set its own result instead"
                    raise ConfigError(f"{part} → {name}: the model has no such layer{hint}")
                _check_used(place, [n for n in nodes if getattr(n, attribute) == name])

    def apply(self, node: Node) -> None:
        """Set the types and options of `node`; types left ``auto`` stay ``None``."""
        for role in node.roles:
            setattr(node, node.roles[role], node.preset.get(role) or node.default_type(role, self.default))
        node.choose_options(self.default)
        places = (self.model, self.types.get(node.layer_class), self.names.get(node.layer))
        for place in filter(None, places):
            for role, kind in place.precision.items():
                if role != "default":
                    for hit in _hits(node, role):
                        setattr(node, node.roles[hit], kind)
                elif place is not self.model:
                    self._apply_default(node, kind)
            for attribute, value in place.options.items():
                if attribute in node.tunables:
                    setattr(node, attribute, value)
        node.check()

    @staticmethod
    def _apply_default(node: Node, kind: FixedType | None) -> None:
        """One type for a whole layer: its parameters and its result, with accumulators and tables as they were."""
        for role in node.roles:
            if role != "accum" and not role.endswith("table"):
                setattr(node, node.roles[role], kind)


# ***** making *****


class Config(dict[str, Any]):
    """The settings dictionary as :func:`make_config` returns it: a plain dict that a notebook shows as a table.

    YAML writes it as any other dict.
    """

    def _repr_html_(self) -> str:
        return html_table(("setting", "value"), _flat(self), "Settings of the conversion")


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every setting with its path."""
    for key, value in settings.items():
        where = f"{path} → {key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        else:
            yield where, value


@functools.cache
def _tell_yaml() -> None:
    """Let YAML write a :class:`Config`: its safe form refuses, and its other one tags, what is not exactly a dict."""
    import yaml

    for writer in (yaml.representer.SafeRepresenter, yaml.representer.Representer):
        writer.add_representer(Config, yaml.representer.SafeRepresenter.represent_dict)


def with_modes(kind: FixedType) -> FixedType:
    """Return `kind` rounding and saturating, unless it names modes of its own."""
    plain = kind.rounding is Rounding.TRN and kind.overflow is Overflow.WRAP
    return kind.with_(rounding=Rounding.RND, overflow=Overflow.SAT) if plain else kind


def _spells_modes(text: object) -> bool:
    return isinstance(text, str) and text.count(",") > 1


def make_config(model: HLSModel, granularity: str, default_precision: str, default_reuse_factor: int) -> dict[str, Any]:
    """Return the settings dictionary of `model`, whose activations are split, at the granularity wanted."""
    if granularity not in GRANULARITIES:
        raise ConfigError(f"unknown granularity {granularity!r}; choose from {', '.join(GRANULARITIES)}")
    parsed = parse_precision(default_precision)
    if parsed is None:
        raise PrecisionError("default_precision cannot be 'auto': the parameters need a type")
    if _positive(default_reuse_factor) is None:
        raise ConfigError(f"default_reuse_factor {default_reuse_factor!r} is not a positive integer")
    default = parsed if _spells_modes(default_precision) else with_modes(parsed)
    _tell_yaml()
    config = Config(
        Model={
            "Precision": {"default": str(default)},
            "ReuseFactor": default_reuse_factor,
            "Strategy": "Latency",
        }
    )
    if granularity == "model":
        return config
    plain = HLSConfig(config)
    part: dict[str, dict[str, Any]] = {}
    for node in model.nodes:
        plain.apply(node)
        entry = _entry(node)
        key = node.layer_class if granularity == "type" else node.layer
        part[key] = _merge(part[key], entry) if key in part else entry
    config["LayerType" if granularity == "type" else "LayerName"] = part
    return config


def _entry(node: Node) -> dict[str, Any]:
    types = {role: getattr(node, attribute) for role, attribute in node.roles.items()}
    entry: dict[str, Any] = {
        "Precision": {r: str(t) if t else "auto" for r, t in types.items() if not r.endswith("table")}
    }
    for key, role in _TYPE_KEYS.items():
        if role in types:
            entry[key] = str(types[role]) if types[role] else "auto"
    for key, (attribute, _, _) in _OPTIONS.items():
        if attribute in node.tunables:
            entry[key] = getattr(node, attribute)
    return entry


def _merge(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Keep what every layer of a type agrees on: the rest is decided layer by layer when nothing is said."""
    precision = {r: t for r, t in one["Precision"].items() if two["Precision"].get(r) == t}
    rest = {k: v for k, v in one.items() if k != "Precision" and two.get(k) == v}
    return {"Precision": precision, **rest}
