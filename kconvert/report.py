"""The reports that the vendor's tools leave: C synthesis, RTL simulation and logic synthesis, as one dictionary.

Only what a report says is given. A number the tool did not give is left out; a report that was cut off is an error that
names the file and what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict, cast
from xml.etree import ElementTree

from kconvert.errors import ToolError
from kconvert.tables import html_table, text_table

Report = dict[str, int | float | str]
Row = dict[str, str]
Table = list[Row]


class CSynthesisReport(TypedDict, total=False):
    """What high-level synthesis expects; periods in ns, latency and interval in clock cycles."""

    TargetClockPeriod: float
    EstimatedClockPeriod: float
    BestLatency: int
    WorstLatency: int
    IntervalMin: int
    IntervalMax: int
    BRAM_18K: int
    DSP: int
    FF: int
    LUT: int
    URAM: int
    AvailableBRAM_18K: int
    AvailableDSP: int
    AvailableFF: int
    AvailableLUT: int
    AvailableURAM: int


class CosimReport(TypedDict, total=False):
    """What the simulation of the RTL showed; latency and interval in clock cycles."""

    RTL: str
    Status: str
    LatencyMin: int | float
    LatencyAvg: int | float
    LatencyMax: int | float
    IntervalMin: int | float
    IntervalAvg: int | float
    IntervalMax: int | float


class VivadoSynthReport(TypedDict, total=False):
    """What logic synthesis used; a memory of 36 Kb counts as two of 18 Kb."""

    BRAM_18K: int
    DSP: int
    FF: int
    LUT: int
    URAM: int
    AvailableBRAM_18K: int
    AvailableDSP: int
    AvailableFF: int
    AvailableLUT: int
    AvailableURAM: int


TITLES = {"CSynthesisReport": "C synthesis", "CosimReport": "RTL simulation", "VivadoSynthReport": "Logic synthesis"}
COLUMNS = ("report", "quantity", "value", "available", "used")


class Reports(dict[str, Report]):
    """The reports that are there: ``CSynthesisReport``, ``CosimReport``, ``VivadoSynthReport``, each a dictionary.

    Printing it gives a table; a notebook shows one.

    Attributes:
        missing: Name of every report that is not there -> where it was looked for.
    """

    def __init__(self, found: Mapping[str, Report] | None = None, missing: Mapping[str, str] | None = None) -> None:
        super().__init__(found or {})
        self.missing: dict[str, str] = dict(missing or {})

    @property
    def csynthesis(self) -> CSynthesisReport | None:
        """The report of high-level synthesis, or None."""
        return cast("CSynthesisReport | None", self.get("CSynthesisReport"))

    @property
    def cosim(self) -> CosimReport | None:
        """The report of the RTL simulation, or None."""
        return cast("CosimReport | None", self.get("CosimReport"))

    @property
    def vivado_synth(self) -> VivadoSynthReport | None:
        """The report of logic synthesis, or None."""
        return cast("VivadoSynthReport | None", self.get("VivadoSynthReport"))

    def rows(self) -> list[tuple[str, str, int | float | str, int | float | str | None, str]]:
        """Return the table's rows: report, quantity, value, what the device holds of it, and the share used."""
        found = []
        for name, report in self.items():
            for key, value in report.items():
                if key.startswith("Available"):
                    continue
                available = report.get(f"Available{key}")
                both = isinstance(value, int | float) and isinstance(available, int | float) and available
                share = f"{100 * float(value) / float(cast(float, available)):.1f} %" if both else ""
                found.append((TITLES[name], _quantity(key), value, available, share))
        return found

    def __str__(self) -> str:
        lines = [text_table(COLUMNS, self.rows())] if self else []
        return "\n".join([*lines, *(f"{TITLES[name]}: no report ({sought})" for name, sought in self.missing.items())])

    def _repr_html_(self) -> str:
        rest = [(TITLES[name], "no report", sought, None, "") for name, sought in self.missing.items()]
        return html_table(COLUMNS, [*self.rows(), *rest], "Reports of the vendor's tools")


def _quantity(key: str) -> str:
    """Return the key in words, with its unit."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)
    words = words if words.isupper() or "_" in words else words.lower()
    unit = " [ns]" if key.endswith("Period") else " [cycles]" if "Latency" in key or "Interval" in key else ""
    return words + unit


# ***** finding the reports *****


def read(project_dir: str | Path, project_name: str | None = None) -> Reports:
    """Read the reports in a project folder, a solution folder, a folder of reports, or one report.

    Args:
        project_dir: Where the tools left them.
        project_name: Name of the top function, where there are reports of several.

    Returns:
        The reports found; its ``missing`` names the others.

    Raises:
        ToolError: there is no report at all, or one is there and cannot be read, or it is not clear which is meant.
    """
    place = Path(project_dir)
    if place.is_file():
        name, reader = _kind_of(place)
        return Reports({name: reader(place)})
    if not place.is_dir():
        raise ToolError(f"cannot read reports: there is no folder {place}")
    found = parse_reports(place, project_name)
    if not found:
        raise ToolError(f"{place} holds no report: no {'; no '.join(found.missing.values())}; run build() first")
    return found


def parse_reports(project_dir: str | Path, project_name: str | None = None) -> Reports:
    """Read the reports as :func:`read` does; where there is none, the result is empty.

    Raises:
        ToolError: a report is there and cannot be read, or it is not clear which is meant.
    """
    folder = Path(project_dir)
    solution = _solution(folder, project_name)
    name = project_name or (solution.parent.name.removesuffix("_prj") if solution != folder else None)
    csynth, cosim = ((solution / step / "report", folder) for step in ("syn", "sim"))
    sources: dict[str, tuple[Path | None, Callable[[Path], Report], str]] = {
        "CSynthesisReport": (_csynth_file(csynth, name), _csynth, f"*_csynth.rpt or csynth.xml in {csynth[0]}"),
        "CosimReport": (_one_of(cosim, "_cosim.rpt", name), _cosim, f"*_cosim.rpt in {cosim[0]}"),
        "VivadoSynthReport": (_if_there(folder / "vivado_synth.rpt"), _vivado_synth, f"{folder / 'vivado_synth.rpt'}"),
    }
    return Reports(
        {key: reader(path) for key, (path, reader, _) in sources.items() if path is not None},
        {key: sought for key, (path, _, sought) in sources.items() if path is None},
    )


def _solution(folder: Path, project_name: str | None) -> Path:
    """Return the folder with ``syn/report`` or ``sim/report`` in it: `folder`, or one up to two levels below."""
    inside = f"{project_name}_prj/*" if project_name else "*/*"
    for pattern in ("", "*", inside, "*/*"):
        places = {p.parent.parent for step in ("syn", "sim") for p in folder.glob(f"{pattern or '.'}/{step}/report")}
        if len(places) > 1:
            raise ToolError(
                f"{folder} holds reports of several solutions; give one of them: {', '.join(map(str, sorted(places)))}"
            )
        if places:
            return places.pop()
    return folder / f"{project_name or '*'}_prj" / "solution1"


def _csynth_file(folders: tuple[Path, Path], name: str | None) -> Path | None:
    """Return the report of the top function: the tools write one for every function, and may write a summary."""
    summary = _first(folders, "csynth.xml")
    top = name
    if summary is not None and (name is None or _first(folders, f"{name}_csynth.rpt") is None):
        top = _xml(summary).findtext("UserAssignments/TopModelName") or name
    for suffix in ("_csynth.rpt", "_csynth.xml"):
        if path := _one_of(folders, suffix, top):
            return path
    return summary or _first(folders, "csynth.rpt")


def _one_of(folders: tuple[Path, Path], suffix: str, name: str | None) -> Path | None:
    """Return the file of the top function `name`, or the only one there is."""
    if name is not None and (path := _first(folders, name + suffix)):
        return path
    for folder in folders:
        files = sorted(folder.glob(f"*{suffix}"))
        if len(files) > 1:
            raise ToolError(
                f"{folder} holds {len(files)} files *{suffix} and none of a top function "
                f"{name or 'that is known'}; give project_name, the name of the top function"
            )
        if files:
            return files[0]
    return None


def _first(folders: tuple[Path, Path], name: str) -> Path | None:
    return next(filter(None, (_if_there(folder / name) for folder in folders)), None)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _kind_of(path: Path) -> tuple[str, Callable[[Path], Report]]:
    """Return which report a file is, by what it holds."""
    text = _read(path)
    if "Site Type" in text or "report_utilization" in text:
        return "VivadoSynthReport", _vivado_synth
    if re.search(r"\bRTL\b.*\bStatus\b", text):
        return "CosimReport", _cosim
    return "CSynthesisReport", _csynth


# ***** C synthesis *****

_RESOURCES = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")
# Resources that some releases name otherwise.
_OTHER_NAMES = {"DSP48E": "DSP", "DSP48": "DSP"}
# What the tools print where they have no number.
_NO_NUMBER = {"", "-", "?", "NA", "N/A", "undef", "x"}
_SHARE = re.compile(r"\s*\(~?[0-9.]+\s*%\)$")  # what some tables name behind a number
_NANOSECONDS = {"": 1, "ps": 1e-3, "ns": 1, "us": 1e3, "ms": 1e6}


def _csynth(path: Path) -> Report:
    text = _read(path)
    if path.suffix == ".xml" or text.lstrip().startswith("<"):
        return _csynth_xml(path)
    tables = list(_tables(text))
    if summary := next((table for table in tables if table and "Modules & Loops" in table[0]), None):
        return _csynth_summary(path, tables, summary)
    return _csynth_text(path, tables)


def _csynth_text(path: Path, tables: list[Table]) -> Report:
    timing = _first_row(path, tables, "clock table with Target and Estimated", "Target", "Estimated")
    latency = _first_row(
        path,
        tables,
        "table of Latency and Interval, min and max",
        "Latency min",
        "Interval min",
        without="Instance",
    )
    report: Report = {}
    _put(report, "TargetClockPeriod", _time(path, timing["Target"]))
    _put(report, "EstimatedClockPeriod", _time(path, timing["Estimated"]))
    for key, title in (
        ("BestLatency", "Latency min"),
        ("WorstLatency", "Latency max"),
        ("IntervalMin", "Interval min"),
        ("IntervalMax", "Interval max"),
    ):
        _put(report, key, _number(path, latency.get(title, "")))
    utilization = _utilization(path, tables)
    for row, prefix in (("Total", ""), ("Available", "Available")):
        for title, cell in utilization[row].items():
            resource = _OTHER_NAMES.get(title, title)
            if resource in _RESOURCES:
                _put(report, prefix + resource, _number(path, cell))
    return report


def _csynth_summary(path: Path, tables: list[Table], modules: Table) -> Report:
    """Read the summary of a whole design, one row for each module; the first is the top function.

    It names the share of the device beside a number, ``21 (~0%)``, and one interval and latency for best and worst.
    """
    report: Report = {}
    clocks = next((table[0] for table in tables if table and {"Target", "Estimated"} <= table[0].keys()), {})
    _put(report, "TargetClockPeriod", _time(path, clocks.get("Target", "")))
    _put(report, "EstimatedClockPeriod", _time(path, clocks.get("Estimated", "")))
    top = modules[0]
    if not {"LUT", "FF"} <= top.keys():
        raise _unreadable(path, "row of the top function with LUT and FF")
    for key, title in (
        ("BestLatency", "Latency"),
        ("WorstLatency", "Latency"),
        ("IntervalMin", "Interval"),
        ("IntervalMax", "Interval"),
        *((resource, resource) for resource in _RESOURCES),
        ("BRAM_18K", "BRAM"),
    ):
        _put(report, key, _number(path, top.get(title, "")))
    return report


def _utilization(path: Path, tables: list[Table]) -> dict[str, Row]:
    """Return the rows of the utilisation summary by name.

    Other tables (memories, FIFOs) have the same columns and a total too, but only the summary says what the
    device holds.
    """
    for table in tables:
        rows = {row.get("Name", ""): row for row in table}
        if {"Total", "Available"} <= rows.keys() and "LUT" in rows["Total"]:
            return rows
    raise _unreadable(path, "utilization summary with rows Total and Available")


def _csynth_xml(path: Path) -> Report:
    root = _xml(path)
    report: Report = {}
    for key, place in (
        ("TargetClockPeriod", "UserAssignments/TargetClockPeriod"),
        ("EstimatedClockPeriod", "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"),
        ("BestLatency", "PerformanceEstimates/SummaryOfOverallLatency/Best-caseLatency"),
        ("WorstLatency", "PerformanceEstimates/SummaryOfOverallLatency/Worst-caseLatency"),
        ("IntervalMin", "PerformanceEstimates/SummaryOfOverallLatency/Interval-min"),
        ("IntervalMax", "PerformanceEstimates/SummaryOfOverallLatency/Interval-max"),
    ):
        text = root.findtext(place)
        if text is None:
            raise _unreadable(path, f"element {place}")
        _put(report, key, _time(path, text) if key.endswith("Period") else _number(path, text))
    for place, prefix in (("Resources", ""), ("AvailableResources", "Available")):
        resources = root.find(f"AreaEstimates/{place}")
        if resources is None:
            raise _unreadable(path, f"element AreaEstimates/{place}")
        for element in resources:
            resource = _OTHER_NAMES.get(element.tag, element.tag)
            if resource in _RESOURCES:
                _put(report, prefix + resource, _number(path, element.text or ""))
    return report


def _xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_read(path))  # noqa: S314 - written by the user's own tool
    except ElementTree.ParseError as error:
        raise _unreadable(path, f"well-formed XML ({error})") from error


# ***** RTL simulation *****


def _cosim(path: Path) -> Report:
    sought = "table of RTL, Status, Latency and Interval"
    for table in _tables(_read(path)):
        for row in table:
            if row.get("Status", "NA") == "NA":  # one row for each language; only one of them was simulated
                continue
            report: Report = {"RTL": row.get("RTL", ""), "Status": row["Status"]}
            for what in ("Latency", "Interval"):
                for which in ("min", "avg", "max"):
                    _put(report, what + which.title(), _number(path, row.get(f"{what} {which}", "")))
            return report
    raise _unreadable(path, sought)


# ***** logic synthesis *****

# Vivado's names of the resources: they differ between device families.
_SITE_TYPES = {
    "LUT": re.compile(r"(CLB |Slice )?LUTs"),
    "FF": re.compile(r"(CLB |Slice )?Registers"),
    "DSP": re.compile(r"DSPs|DSP Slices|DSP58s?"),
    "URAM": re.compile(r"URAM"),
    "BRAM_18K": re.compile(r"Block RAM Tile"),
}
# Every device has these, so a report without one of them was cut off.
_NEEDED = {"LUT": "LUTs", "FF": "Registers", "BRAM_18K": "Block RAM Tile", "DSP": "DSPs"}


def _vivado_synth(path: Path) -> Report:
    report: Report = {}
    for table in _tables(_read(path)):
        for row in table:
            site = row.get("Site Type", "").rstrip("*")  # a star points at a footnote
            for resource, names in _SITE_TYPES.items():
                if "Used" not in row or resource in report or not names.fullmatch(site):
                    continue
                # A tile is two memories of 18 Kb and may be half used.
                scale = 2 if resource == "BRAM_18K" else 1
                _put(report, resource, _number(path, row["Used"], scale))
                _put(report, f"Available{resource}", _number(path, row.get("Available", ""), scale))
    absent = [words for key, words in _NEEDED.items() if key not in report]
    if absent:
        raise _unreadable(path, f"tables of Site Type and Used with {', '.join(absent)}")
    return report


# ***** files and numbers *****


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ToolError(f"cannot read the report {path}: {error.strerror}") from error


def _unreadable(path: Path, sought: str) -> ToolError:
    return ToolError(f"cannot read the report {path}: it holds no {sought}; was the tool interrupted?")


def _first_row(path: Path, tables: list[Table], sought: str, *titles: str, without: str = "") -> Row:
    """Return the first row of the first table with columns `titles`, and without the column `without`."""
    for table in tables:
        if table and set(titles) <= table[0].keys() and without not in table[0]:
            return table[0]
    raise _unreadable(path, sought)


def _put(report: Report, key: str, value: float | None) -> None:
    if value is not None:
        report[key] = value


def _number(path: Path, text: str, scale: int = 1) -> float | None:
    """Return `scale` times a number, as an int where it is whole, or None where the tool gave none."""
    text = _SHARE.sub("", text.strip())
    if text in _NO_NUMBER:
        return None
    try:
        value = float(text) * scale
    except ValueError:
        raise ToolError(f"cannot read the report {path}: {text!r} stands where a number should") from None
    return int(value) if value.is_integer() else value


def _time(path: Path, text: str) -> float | None:
    """Return a time in ns; the tools name a unit next to the number, or mean ns."""
    text = text.strip()
    unit = text[-2:] if text[-2:] in _NANOSECONDS else ""
    value = _number(path, text.removesuffix(unit))
    return None if value is None else float(value) * _NANOSECONDS[unit]


# ***** tables drawn in characters *****

_BORDER = re.compile(r"[+-]+")
_CYCLES = re.compile(r"\((clock )?cycles\)", re.IGNORECASE)


def _tables(text: str) -> Iterator[Table]:
    """Yield the tables of a report, each row as a dict from column title to cell.

    A table is a run of lines between bars or crosses. Its titles stand between the first two borders, on
    several lines where columns are grouped: a column's title is what stands above it, from the top, such as
    ``Latency min``. Some releases add "(cycles)", which is left out. A row with fewer cells than titles is the
    last line of a file that was cut off, and left out too.
    """
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        if stripped[:1] in {"|", "+"} and stripped[-1] in {"|", "+"}:
            block.append(stripped)
        elif block:
            yield _table(block)
            block = []


def _table(block: list[str]) -> Table:
    borders = [i for i, line in enumerate(block) if _BORDER.fullmatch(line)]
    if len(borders) < 2:
        return []
    titles = _titles(block[borders[0] + 1 : borders[1]])
    rows = [line[1:-1].split("|") for line in block[borders[1] + 1 :] if not _BORDER.fullmatch(line)]
    return [dict(zip(titles, (cell.strip() for cell in row), strict=False)) for row in rows if len(row) >= len(titles)]


def _titles(lines: list[str]) -> list[str]:
    """Return the titles of the columns, which the last of the title lines delimits."""
    if not lines:
        return []
    cells = [list(re.finditer(r"[^|+]+" if line.startswith("+") else r"[^|]+", line)) for line in lines]
    titles = []
    for column in cells[-1]:
        middle = (column.start() + column.end()) // 2
        above = [cell[0] for line in cells for cell in line if cell.start() <= middle < cell.end()]
        words = (_CYCLES.sub("", cell).strip(" -") for cell in above)
        titles.append(" ".join(word for word in words if word))
    return titles
