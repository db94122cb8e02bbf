"""Multipliers of others: tables of products as .npy files, and the C sources of EvoApproxLib.

EvoApproxLib: Mrázek, Hrbáček, Vašíček, Sekanina: EvoApprox8b, library of approximate adders and multipliers for circuit
design and benchmarking of approximation methods, DATE 2017. None of it is part of this package.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kconvert.errors import CompileError

from .errors import ApproxError, check
from .multipliers import ApproximateMultiplier, run_products

Tables = str | Path | Iterable[str | Path] | Mapping[str, Any]


def load_tables(
    source: Tables, metrics: Mapping[str, float], *, weights_first: bool = False
) -> list[ApproximateMultiplier]:
    """Return multipliers of tables of products.

    Args:
        source: a folder of .npy files, such files, or a mapping of names to arrays or files. A table holds integers
            [256, 256]: the product of the operand of the row and that of the column, both from -128 to 127. A file's
            name without its suffix is the multiplier's.
        metrics: the performance_metric of every name; further names do no harm.
        weights_first: the rows stand for the weight, not for the activation. It matters where the table is not
            symmetric.

    Raises:
        ApproxError: there is no table, a file is none, two have one name, or a metric is missing.
    """
    tables = _named_tables(source)
    missing = sorted(set(tables) - set(metrics))
    check(not missing, f"metrics has no performance metric of {', '.join(map(repr, missing))}")
    found = []
    for name, given in tables.items():
        table = _read_table(Path(given)) if isinstance(given, str | Path) else np.asarray(given)
        multiplier = ApproximateMultiplier.from_table(name, metrics[name], table)
        if weights_first:
            multiplier = ApproximateMultiplier(name, metrics[name], multiplier.error_map.T)
        found.append(multiplier)
    return found


def _named_tables(source: Tables) -> dict[str, Any]:
    if isinstance(source, Mapping):
        check(bool(source), "an empty mapping of tables")
        return dict(source)
    if isinstance(source, str | Path):
        path = Path(source)
        check(path.exists(), f"{path}: no such file or folder")
        files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
        check(bool(files), f"{path}: the folder has no .npy file")
    else:
        files = [Path(file) for file in source]
        check(bool(files), "an empty list of tables")
    named: dict[str, Any] = {}
    for file in files:
        check(file.stem not in named, f"{file}: {named.get(file.stem)} has the same name")
        named[file.stem] = file
    return named


def _read_table(path: Path) -> np.ndarray[Any, Any]:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ApproxError(f"{path}: cannot be read as a .npy file: {error}") from error
    check(isinstance(table, np.ndarray), f"{path}: holds several arrays; a .npy file of one table is needed")
    return np.asarray(table)


# ***** EvoApproxLib *****

_INTEGER = r"(?P<{0}>u?int(?:8|16|32|64)_t)"
_FUNCTION = re.compile(
    rf"^[ \t]*(?:static[ \t]+)?(?:inline[ \t]+)?{_INTEGER.format('result')}\s+(?P<name>mul8(?P<kind>[su])_\w+)\s*"
    rf"\(\s*(?:const\s+)?{_INTEGER.format('first')}\s+\w+\s*,\s*(?:const\s+)?{_INTEGER.format('second')}\s+\w+\s*\)\s*\{{",
    re.MULTILINE,
)
_FIGURE = re.compile(
    r"^[ \t]*(?://|\*|/\*+)[ \t]*(?P<key>[A-Z][A-Z0-9_%]*)[ \t]*=[ \t]*(?P<value>[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?=\s|$)",
    re.MULTILINE,
)
# What the sources include, so that their own #include lines, inside a namespace, add nothing any more.
_HEADERS = ("stdint.h", "stdlib.h", "stdio.h", "stdbool.h", "string.h", "math.h", "assert.h", "limits.h")


@dataclass(frozen=True)
class _Source:
    path: Path
    text: str
    function: re.Match[str]
    figures: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.function["name"]


def load_evoapprox(
    folder: str | Path, metric: str = "PDK45_PWR", *, weights_first: bool = False
) -> list[ApproximateMultiplier]:
    """Return the signed 8-bit multipliers of EvoApproxLib whose C sources ``mul8s_*.c`` are in a folder.

    Each file defines a function of its own name of two operands. All are compiled, with the C++ compiler that compiles
    models, and called with all 65,536 pairs: their code runs in this process, so load only what you trust. Verilog is
    read from a file of the same name next to each, where there is one. A multiplier that stands in several folders
    below this one is loaded once.

    Args:
        folder: where the sources are, at any depth.
        metric: the figure in each header comment that becomes the performance_metric: "PDK45_PWR" in mW,
            "PDK45_AREA" in µm², "PDK45_DELAY" in ns, or any other there is, as in ``// PDK45_PWR = 0.425 mW``.
        weights_first: the first operand is the weight, not the activation.

    Raises:
        ApproxError: the folder has no such source, one defines no such function, or has no such figure.
        CompileError: there is no compiler, or it rejects the sources.
    """
    sources = _sources(Path(folder))
    metrics = [_metric(source, metric) for source in sources]
    tables = _evaluate(sources)
    found: dict[str, tuple[_Source, ApproximateMultiplier]] = {}
    for source, value, table in zip(sources, metrics, tables, strict=True):
        products = table.T if weights_first else table
        # swapped operands would ask for another circuit
        verilog = None if weights_first else _verilog(source.path)
        multiplier = ApproximateMultiplier.from_table(source.name, value, products, verilog=verilog)
        known, same = found.setdefault(source.name, (source, multiplier))
        check(
            np.array_equal(same.error_map, multiplier.error_map),
            f"{source.path} and {known.path} define different multipliers {source.name!r}: load them one by one",
        )
    return [multiplier for _, multiplier in found.values()]


def _sources(folder: Path) -> list[_Source]:
    check(folder.is_dir(), f"{folder}: no such folder")
    files = sorted(folder.rglob("mul8s_*.c"))
    if not files:
        unsigned = next(folder.rglob("mul8u_*.c"), None)
        hint = f"; {unsigned} multiplies unsigned operands, and the codes of layers are signed" if unsigned else ""
        raise ApproxError(f"{folder}: no file mul8s_*.c, the signed 8-bit multipliers of EvoApproxLib{hint}")
    return [_read_source(path) for path in files]


def _read_source(path: Path) -> _Source:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ApproxError(f"{path}: cannot be read: {error}") from error
    functions = [one for one in _FUNCTION.finditer(text) if one["name"] == path.stem]
    check(
        len(functions) == 1,
        f"{path}: expected one function {path.stem!r} of two integers, such as 'uint16_t {path.stem}(uint8_t A, "
        f"uint8_t B) {{'; found {len(functions)}",
    )
    figures = {one["key"]: _number(one["value"]) for one in _FIGURE.finditer(text)}
    return _Source(path, text, functions[0], figures)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # such as 1.2.3
        return math.nan


def _metric(source: _Source, metric: str) -> float:
    value = source.figures.get(metric, math.nan)
    stated = ", ".join(sorted(source.figures)) or "no figures"
    check(
        math.isfinite(value),
        f"{source.path}: the comments have no line such as '// {metric} = 0.425'; they state {stated}",
    )
    return value


def _evaluate(sources: list[_Source]) -> list[np.ndarray[Any, Any]]:
    """Compile all sources, each in a namespace of its own, and return their products."""
    lines = [f"#include <{header}>\n" for header in _HEADERS]
    calls = []
    for number, source in enumerate(sources):
        first, second = source.function["first"], source.function["second"]
        lines += [
            f'namespace source_{number} {{\n#include "source_{number}.c"\n}}\n',
            f"static inline int product_{number}(int x, int y) {{\n",
            f"    return int16_t(source_{number}::{source.name}(",
            f"{_operand('x', first)}, {_operand('y', second)}));\n}}\n",
        ]
        calls.append(f"product_{number}")
    files = {f"source_{number}.c": source.text for number, source in enumerate(sources)}
    try:
        return run_products("".join(lines), calls, files)
    except CompileError as error:
        # file names of others do not reach the compiler, so its message does not have them
        named = [f"{name} is {source.path}" for name, source in zip(files, sources, strict=True) if name in str(error)]
        raise CompileError("\n".join([str(error), *named])) from error


def _operand(name: str, kind: str) -> str:
    """An operand as its eight bits: what an unsigned parameter holds beyond them is zero."""
    return f"{kind}({'uint8_t' if kind.startswith('u') else 'int8_t'}({name}))"


def _verilog(path: Path) -> str | None:
    file = path.with_suffix(".v")
    try:
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    except OSError as error:
        raise ApproxError(f"{file}: cannot be read: {error}") from error
