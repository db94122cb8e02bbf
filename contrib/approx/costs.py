"""What our own multipliers cost after synthesis with Yosys, the same flow for all.

``python -m kconvert_contrib.approx.costs`` synthesises every member of the library, prints the table and writes it to
``data/costs.json``, which :func:`kconvert_contrib.approx.library` reads; ``--docs`` brings the table of a document up
to date.

``area``: gates of a generic library, in areas of a two-input NAND of four transistors; transistors as Yosys counts
them for static CMOS (``stat -tech cmos``). Logic optimisation is a matter of luck within some percent, so every
multiplier gets four tries, and the smallest counts: internal wires kept or free, adders as Yosys groups them or as
chains. ``luts``: look-up tables of a 7-series device, without DSP blocks and wide multiplexers. Neither is power, and
no delay is looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import click

from kconvert.errors import ToolError
from kconvert.tables import text_table

from .errors import check
from .families import DESIGNS, costs, library
from .families.circuit import verilog_module
from .plots import pareto_front

DATA = Path(__file__).parent / "data"
TRANSISTORS_OF_NAND2 = 4
_ABC = "abc -g cmos -script +strash;dch;map,-a;strash;dch;map,-a;strash;dch;map,-a"
_CHAINS = ("maccmap", "techmap -map +/techmap.v -map ripple.v", "opt")


def synthesise(verilog: str, name: str) -> dict[str, float]:
    """Return ``area`` and ``luts`` of a module of combinational logic.

    Raises:
        ToolError: Yosys is not installed, or failed.
    """
    script = ["read_verilog design.v", f"hierarchy -check -top {name}", "proc", "design -save read"]
    for hidden, chains in product((False, True), (False, True)):
        script += [
            "design -load read",
            *(["rename -hide */w:*"] if hidden else []),
            f"synth -flatten -top {name} -run begin:fine",
            *(_CHAINS if chains else ()),
            "synth -run fine:check",
            _ABC,
            "opt_clean",
            "tee -q -a gates.txt stat -tech cmos",
        ]
    script += [
        "design -load read",
        f"synth_xilinx -flatten -noiopad -nodsp -nowidelut -top {name}",
        "tee -q -a luts.txt stat",
    ]
    gates, luts = _run_yosys({"design.v": verilog, "script.ys": "\n".join(script) + "\n"})
    transistors = min(int(count) for count in re.findall(r"number of transistors: +(\d+)", gates))
    used = sum(int(count) for count in re.findall(r"^ +LUT\d +(\d+)$", luts, re.MULTILINE))
    return {"area": transistors / TRANSISTORS_OF_NAND2, "luts": used}


def _yosys() -> str:
    yosys = shutil.which("yosys")
    if yosys is None:
        raise ToolError("yosys is not on PATH: install it (Debian, Ubuntu: apt-get install yosys)")
    return yosys


def _version() -> str:
    answer = subprocess.run([_yosys(), "-V"], capture_output=True, text=True, check=True).stdout
    return answer.partition(" (")[0]


def _run_yosys(files: dict[str, str]) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(prefix="kconvert-") as name:
        folder = Path(name)
        shutil.copy(DATA / "ripple.v", folder)
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
        command = [_yosys(), "-q", "script.ys"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise ToolError(f"yosys failed: {(done.stderr.strip() or done.stdout.strip())[-2000:]}")
        return (folder / "gates.txt").read_text(encoding="utf-8"), (folder / "luts.txt").read_text(encoding="utf-8")


def fingerprint(verilog: str) -> str:
    """Return what tells whether figures belong to a source."""
    return hashlib.sha256(verilog.encode()).hexdigest()[:16]


def markdown_table() -> str:
    """Return the library as a table for a document: errors, costs, and who is on the Pareto front."""
    best = {one.name for one in pareto_front(library())}
    head = ("multiplier", "std", "mean", "MAE", "WCE", "wrong, %", "area", "of exact", "LUTs", "front")
    lines = [" | ".join(head), " | ".join(["---", *["--:"] * 8, "---"])]
    stored = costs()
    for one in library():
        found, cost = one.statistics, stored[one.name]
        numbers = (found.std, found.mean, found.mae)
        lines.append(
            " | ".join(
                [
                    f"`{one.name}`",
                    *(f"{number:.2f}" for number in numbers),
                    f"{found.wce}",
                    f"{100 * found.error_rate:.1f}",
                    f"{cost['area']:.0f}",
                    f"{one.performance_metric:.3f}",
                    f"{cost['luts']}",
                    "yes" if one.name in best else "",
                ]
            )
        )
    return "".join(f"| {line} |\n" for line in lines)


def _update(document: Path) -> None:
    """Put the table between the lines ``<!-- library -->`` and ``<!-- /library -->``."""
    begin, end = "<!-- library -->\n", "<!-- /library -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    check(bool(found and closed), f"{document}: the lines {begin.strip()} and {end} are missing")
    document.write_text(f"{before}{begin}{markdown_table()}{end}{after}", encoding="utf-8")


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DATA / "costs.json")
@click.option("--only", multiple=True, help="A member to measure; the others keep their figures.")
@click.option("--docs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Document with the table.")
def main(output: Path, only: tuple[str, ...], docs: Path | None) -> None:
    """Synthesise every multiplier of the library and write what it costs."""
    check(set(only) <= {design.name for design in DESIGNS}, f"the library lacks some of {', '.join(only)}")
    stored = costs() if only else {}
    members: dict[str, dict[str, float | str]] = {}
    for design in DESIGNS:
        if only and design.name not in only:
            members[design.name] = stored[design.name]
            continue
        verilog = verilog_module(design.value(), design.name)
        members[design.name] = {**synthesise(verilog, design.name), "verilog": fingerprint(verilog)}
    rows = [(name, str(cost["area"]), str(cost["luts"])) for name, cost in members.items()]
    click.echo(text_table(("multiplier", "area", "LUTs"), rows))
    text = json.dumps({"tool": _version(), "members": members}, indent=1)
    output.write_text(f"{text}\n", encoding="utf-8")
    if docs is not None:
        _update(docs)


if __name__ == "__main__":
    main()
