"""The vendor's HLS tools: finding them, and running them on a written project."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from kconvert import progress
from kconvert.errors import ConfigError, ToolError, WriteError, did_you_mean
from kconvert.report import Reports, parse_reports

__all__ = ["build", "find_tools", "parse_reports"]

_log = logging.getLogger(__name__)

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
) -> Reports:
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
        What :func:`~kconvert.report.parse_reports` finds afterwards.

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
    with progress.working(f"{Path(tool).name} on {project_name}"):
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


def command_line(tool: str, options: Mapping[str, bool]) -> list[str]:
    """Return the command that runs build_prj.tcl with `options`; vitis-run reads those from a file."""
    if Path(tool).name != "vitis-run":
        return [tool, "-f", "build_prj.tcl", " ".join(f"{name}={value:d}" for name, value in options.items())]
    return [tool, "--mode", "hls", "--tcl", "build_prj.tcl"]


def preferred_tool(backend: str) -> str:
    """Return the name of the HLS executable that a backend would run if all were installed."""
    return _HLS_TOOLS[backend][0]


def _command(tool: str, options: Mapping[str, bool], project_dir: Path) -> list[str]:
    """Return the command that runs build_prj.tcl, having left the options where the tool finds them."""
    if Path(tool).name == "vitis-run":  # it passes no arguments on to the script, which then reads this file
        path = project_dir / "build_opt.tcl"
        words = " ".join(f"{name} {value:d}" for name, value in options.items())
        try:
            path.write_text(f"array set opt {{{words}}}\n")
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return command_line(tool, options)


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
