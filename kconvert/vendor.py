"""The vendor's HLS tools: running them on a written project, and reading the reports they leave."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from kconvert.errors import ConfigError, ToolError, WriteError, did_you_mean

_log = logging.getLogger(__name__)

Report = dict[str, int | float | str]

# The executables that can run build_prj.tcl, the preferred one first.
_HLS_TOOLS = {"Vitis": ("vitis-run", "vitis_hls"), "Vivado": ("vivado_hls",)}

_LAST_LINES = 20


# ---- running the tools ----


def build(
    project_dir: Path,
    project_name: str,
    backend: str,
    *,
    csim: bool = False,
    synth: bool = True,
    cosim: bool = False,
    validation: bool = False,
    export: bool = False,
    vsynth: bool = False,
    reset: bool = False,
) -> dict[str, Report]:
    """Run the vendor's HLS tool on a written project and return its reports.

    The tool runs in `project_dir`; its log goes to standard output and to the logger ``kconvert.vendor`` line
    by line. Interrupting (Ctrl-C) ends the tool and everything it started.

    Args:
        project_dir: the written project, the folder of ``build_prj.tcl``.
        project_name: name of the project and of its top function.
        backend: ``'Vitis'`` or ``'Vivado'``.
        csim: compile and run the test bench with the vendor's compiler.
        synth: high-level synthesis, from C++ to RTL.
        cosim: run the test bench on the RTL.
        validation: demand that `csim` and `cosim` gave the same numbers.
        export: pack the RTL as an IP core.
        vsynth: logic synthesis of the RTL by Vivado.
        reset: delete what earlier runs left before starting.

    Returns:
        What :func:`parse_reports` finds afterwards.

    Raises:
        ConfigError: `backend` is unknown.
        ToolError: an executable or the project is missing, the tool failed, or a report cannot be read.
        WriteError: the options cannot be written into the project.
    """
    options = {
        "reset": reset,
        "csim": csim,
        "synth": synth,
        "cosim": cosim,
        "validation": validation,
        "export": export,
        "vsynth": vsynth,
    }
    tool = find_tools(backend, vsynth=vsynth)
    project_dir = Path(project_dir)
    if not (project_dir / "build_prj.tcl").is_file():
        raise ToolError(f"{project_dir} holds no build_prj.tcl; write the project first")
    _run(_command(tool, options, project_dir), project_dir)
    return parse_reports(project_dir, project_name)


def find_tools(backend: str, *, vsynth: bool = False) -> str:
    """Return the path of the HLS executable of a backend, having checked that all that is needed is there.

    Raises:
        ConfigError: `backend` is unknown.
        ToolError: the HLS tool, or with `vsynth` Vivado, is not on PATH.
    """
    if backend not in _HLS_TOOLS:
        raise ConfigError(
            f"backend {backend!r} is unknown; it is one of {', '.join(map(repr, _HLS_TOOLS))}"
            f"{did_you_mean(backend, _HLS_TOOLS)}"
        )
    tool = _find(*_HLS_TOOLS[backend])
    if vsynth:
        _find("vivado")
    return tool


def _find(*names: str) -> str:
    """Return the path of the first of some executables that is on PATH."""
    for name in names:
        if path := shutil.which(name):
            return os.path.abspath(path)  # PATH may hold relative folders, and the tool runs in the project's
    raise ToolError(
        f"{' or '.join(names)} is not on PATH; install the vendor's tools and source the settings64.sh of "
        "their installation folder in the shell that starts Python"
    )


def _command(tool: str, options: Mapping[str, bool], project_dir: Path) -> list[str]:
    """Return the command that runs build_prj.tcl with `options`."""
    if Path(tool).name != "vitis-run":
        return [tool, "-f", "build_prj.tcl", " ".join(f"{name}={value:d}" for name, value in options.items())]
    # vitis-run passes no arguments on to the script, which then reads this file.
    path = project_dir / "build_opt.tcl"
    words = " ".join(f"{name} {value:d}" for name, value in options.items())
    try:
        path.write_text(f"array set opt {{{words}}}\n")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return [tool, "--mode", "hls", "--tcl", "build_prj.tcl"]


def _run(command: list[str], folder: Path) -> None:
    """Run a tool in `folder`, passing its log on; raise ToolError with the end of the log if it fails."""
    name = Path(command[0]).name
    _log.info("running %s in %s", command, folder)
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,  # a tool that stops at a prompt ends instead of waiting
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # its own process group: the tools are scripts that start other programs
        )
    except OSError as error:
        raise ToolError(f"cannot start {command[0]}: {error.strerror}") from error
    errors: list[str] = []
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with process:
        try:
            for line in process.stdout or ():
                sys.stdout.write(line)
                _log.info("%s", line.rstrip())
                last.append(line)
                if line.lstrip().startswith("ERROR:"):
                    errors.append(line)
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if status or errors:
        raise ToolError(_failure(name, folder, status, errors, list(last)))


def _failure(name: str, folder: Path, status: int, errors: list[str], last: list[str]) -> str:
    how = f"ended with exit status {status}" if status else "reported errors"
    earlier = [line for line in errors if line not in last][:_LAST_LINES]
    log = "".join(earlier + ["...\n"] * bool(earlier) + last).rstrip() or "(it printed nothing)"
    return f"{name} {how} in {folder}; the project is kept there. The end of its log:\n{log}"


# ---- reading the reports ----


def parse_reports(project_dir: Path, project_name: str) -> dict[str, Report]:
    """Read the reports that the vendor's tools left in a project folder.

    Returns:
        A plain dictionary with an entry for each report that is there:

        ``CSynthesisReport``: ``TargetClockPeriod``, ``EstimatedClockPeriod`` [ns]; ``BestLatency``,
        ``WorstLatency``, ``IntervalMin``, ``IntervalMax`` [cycles]; ``BRAM_18K``, ``DSP``, ``FF``, ``LUT``,
        ``URAM``, and the same with ``Available`` in front, what the device holds.

        ``CosimReport``: ``RTL``, ``Status``; ``LatencyMin``, ``LatencyAvg``, ``LatencyMax``, ``IntervalMin``,
        ``IntervalAvg``, ``IntervalMax`` [cycles].

        ``VivadoSynthReport``: resources as in ``CSynthesisReport``.

        A number the tool did not give is left out.

    Raises:
        ToolError: a report is there and cannot be read.
    """
    solution = Path(project_dir) / f"{project_name}_prj" / "solution1"
    csynth = solution / "syn" / "report"
    sources: dict[str, list[tuple[Path, Callable[[Path], Report]]]] = {
        "CSynthesisReport": [
            (csynth / f"{project_name}_csynth.rpt", _csynth_text),
            (csynth / f"{project_name}_csynth.xml", _csynth_xml),
            (csynth / "csynth.xml", _csynth_xml),
        ],
        "CosimReport": [(solution / "sim" / "report" / f"{project_name}_cosim.rpt", _cosim)],
        "VivadoSynthReport": [(Path(project_dir) / "vivado_synth.rpt", _vivado_synth)],
    }
    reports: dict[str, Report] = {}
    for key, candidates in sources.items():
        for path, read in candidates:
            if path.is_file():
                reports[key] = read(path)
                break
    return reports


Row = dict[str, str]
Table = list[Row]

_RESOURCES = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")
# Resources that some releases name otherwise.
_OTHER_NAMES = {"DSP48E": "DSP", "DSP48": "DSP"}
# What the tools print where they have no number.
_NO_NUMBER = {"", "-", "?", "NA", "N/A", "undef", "x"}
_NANOSECONDS = {"": 1, "ps": 1e-3, "ns": 1, "us": 1e3, "ms": 1e6}


def _csynth_text(path: Path) -> Report:
    tables = list(_tables(_read(path)))
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
    try:
        root = ElementTree.fromstring(_read(path))  # noqa: S314 - written by the user's own tool
    except ElementTree.ParseError as error:
        raise _unreadable(path, f"well-formed XML ({error})") from error
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


# Vivado's names of the resources: they differ between device families.
_SITE_TYPES = {
    "LUT": re.compile(r"(CLB |Slice )?LUTs"),
    "FF": re.compile(r"(CLB |Slice )?Registers"),
    "DSP": re.compile(r"DSPs|DSP Slices"),
    "URAM": re.compile(r"URAM"),
    "BRAM_18K": re.compile(r"Block RAM Tile"),
}


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
    if "LUT" not in report or "FF" not in report:
        raise _unreadable(path, "tables of Site Type and Used with LUTs and Registers")
    return report


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
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
    text = text.strip()
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


# ---- tables drawn in characters ----

_BORDER = re.compile(r"[+-]+")
_CYCLES = re.compile(r"\((clock )?cycles\)", re.IGNORECASE)


def _tables(text: str) -> Iterator[Table]:
    """Yield the tables of a report, each row as a dict from column title to cell.

    A table is a run of lines between bars or crosses. Its titles stand between the first two borders, on
    several lines where columns are grouped: a column's title is what stands above it, from the top, such as
    ``Latency min``. Some releases add "(cycles)", which is left out.
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
    rows = [line for line in block[borders[1] + 1 :] if not _BORDER.fullmatch(line)]
    return [dict(zip(titles, (cell.strip() for cell in row[1:-1].split("|")), strict=False)) for row in rows]


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
