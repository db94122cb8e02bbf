"""The commands around the vendor's tools: build and report."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from kconvert.cli.console import PATH, Command, Mode, Result, Table
from kconvert.errors import ToolError

STEPS = ("csim", "synth", "cosim", "validation", "export", "vsynth")
_REPORTS = {"CSynthesisReport": "synthesis", "CosimReport": "co-simulation", "VivadoSynthReport": "logic synthesis"}

project_option = click.option("-p", "--project", type=PATH, required=True, help="The project folder.")


@click.command(cls=Command, example="kconvert build -p my-hls-project -s -r")
@project_option
@click.option("-c", "--simulation", "csim", is_flag=True, help="Run the test bench with the vendor's compiler.")
@click.option("-s", "--synthesis", "synth", is_flag=True, help="Synthesise; the default if no step is named.")
@click.option("-r", "--co-simulation", "cosim", is_flag=True, help="Run the test bench on the synthesised design.")
@click.option("-v", "--validation", is_flag=True, help="Demand that both simulations give the same numbers.")
@click.option("-e", "--export", is_flag=True, help="Pack the design as an IP core.")
@click.option("-l", "--vivado-synthesis", "vsynth", is_flag=True, help="Logic synthesis by Vivado.")
@click.option("-a", "--all", "everything", is_flag=True, help="All of these.")
@click.option("--reset", is_flag=True, help="First delete what earlier runs left.")
@click.pass_obj
def build(mode: Mode, /, project: Path, everything: bool, reset: bool, **given: bool) -> Result:
    """Run the vendor's tool on a project and print its reports.

    The project is built as it lies there; to bring it up to date, convert first.
    """
    from kconvert import vendor

    name, backend = _project(project)
    steps = {step: given[step] or everything for step in STEPS}
    steps["synth"] = steps["synth"] or not any(steps.values())
    options = {"reset": reset, **steps}
    try:
        vendor.find_tools(backend, vsynth=steps["vsynth"])
    except ToolError as error:
        chosen = ", ".join(step for step, wanted in options.items() if wanted)
        line = shlex.join(vendor.command_line(vendor.preferred_tool(backend), options))
        raise ToolError(f"{error}; it would have run, for {chosen}, in {project}: {line}") from error
    # the tool's log goes to standard output, which with --json is for the results alone
    with contextlib.redirect_stdout(sys.stderr) if mode.as_json else contextlib.nullcontext():
        reports = vendor.build(project, name, backend, **options)
    return _reports(project, reports)


@click.command(cls=Command, example="kconvert report -p my-hls-project")
@project_option
@click.option("-f", "--full", is_flag=True, help="Also print the vendor's own report files.")
def report(project: Path, full: bool) -> Result:
    """Print what the vendor's reports of a project say."""
    from kconvert import vendor

    name, _ = _project(project)
    reports = vendor.parse_reports(project, name)
    if not reports:
        raise ToolError(
            f"{project} holds no reports ({', '.join(_REPORTS.values())} are all missing); "
            f"make them with: kconvert build -p {project}"
        )
    result = _reports(project, reports)
    if not full:
        return result
    texts = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in _report_files(project, name)}
    shown = [*result.shown, *(f"\n==== {path} ====\n{text}" for path, text in texts.items())]
    return Result({**result.data, "files": texts}, shown)


def _report_files(project: Path, name: str) -> list[Path]:
    folder = project / f"{name}_prj" / "solution1"
    found = [folder / "syn" / "report" / f"{name}_csynth.rpt", folder / "sim" / "report" / f"{name}_cosim.rpt"]
    return [path for path in [*found, project / "vivado_synth.rpt"] if path.is_file()]


def _project(folder: Path) -> tuple[str, str]:
    """Return the name and the backend of the project in a folder."""
    from kconvert.config import ProjectSettings
    from kconvert.settings_file import PROJECT_CONFIG, read_conversion

    if not (folder / PROJECT_CONFIG).is_file():
        what = f"holds no {PROJECT_CONFIG}" if folder.is_dir() else "does not exist"
        raise ToolError(f"{folder} is no project of kconvert: it {what}; write one with: kconvert convert")
    options = read_conversion(folder).options
    settings = ProjectSettings(**{k: v for k, v in options.items() if k in ("project_name", "backend")})
    return settings.project_name, settings.backend


def _reports(project: Path, reports: dict[str, Any]) -> Result:
    shown: list[str | Table] = []
    for key, title in _REPORTS.items():
        found = reports.get(key)
        if found is None:
            shown.append(f"{title}: no report")
            continue
        devices = {k: v for k, v in found.items() if k.startswith("Available")}
        rows = [
            [name, value, devices.get(f"Available{name}"), _share(value, devices.get(f"Available{name}"))]
            for name, value in found.items()
            if name not in devices
        ]
        shown += [f"{title}:", Table(["", "value", "available", "%"], rows)]
    missing = [key for key in _REPORTS if key not in reports]
    return Result({"project": str(project), "reports": reports, "missing": missing}, shown)


def _share(value: object, available: object) -> float | None:
    if isinstance(value, int | float) and isinstance(available, int | float) and available:
        return round(100 * value / available, 1)
    return None
