"""What the commands share: how they are declared, what they return, and how that is shown."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Mode:
    """How the command line was called, the object of every click context."""

    as_json: bool = False
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles; numbers are shown shortened."""

    titles: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found out.

    Attributes:
        data: All of it, for ``--json``.
        shown: The same for people: lines and tables.
    """

    data: dict[str, Any] = field(default_factory=dict)
    shown: Sequence[str | Table] = ()


class Command(click.Command):
    """A command that returns a :class:`Result`, has ``--json`` and ``--debug``, and shows an example in its help."""

    def __init__(self, *args: Any, example: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.example = example
        self.params += shared_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what Keras says while it loads an unsafe file is not for its user."""
        mode = ctx.find_object(Mode) or Mode()
        with quiet_start(mode.debug) if ctx.params.get("allow_unsafe") else contextlib.nullcontext():
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example as it is."""
        if self.example:
            with formatter.section("Example"):
                formatter.write("".join(f"  {line}\n" for line in self.example.splitlines()))


def shared_options() -> list[click.Parameter]:
    """Return the options that every command has; what they do is done around the command."""
    return [
        click.Option(["--json"], is_flag=True, expose_value=False, help="Print the results, or the error, as JSON."),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
    ]


PATH = click.Path(path_type=Path)

config_option = click.option(
    "-c", "--config", type=PATH, required=True, help="The settings file (YAML), or a project folder with one."
)
unsafe_option = click.option(
    "--allow-unsafe", is_flag=True, help="Trust the model file: run the Python code in it (Lambda layers) by Keras."
)
input_option = click.option(
    *("-i", "--input", "inputs"),
    type=PATH,
    multiple=True,
    required=True,
    help="Samples: .npy, .npz (an array an input), .csv, or .txt and .dat with a sample a line. Give it once for "
    "each input, or one file for all.",
)


def plain(text: object) -> str:
    """Return text without characters that would steer the terminal: names come from whoever made the model."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))


def show(result: Result, *, as_json: bool, warnings: Sequence[str]) -> None:
    """Print a result to standard output, and warnings to standard error or, with `as_json`, among the results."""
    if as_json:
        click.echo(json.dumps(_json_value({**result.data, "warnings": list(warnings)}), indent=2))
        return
    for part in result.shown:
        if isinstance(part, Table):
            _show_table(part)
        else:
            click.echo(plain(part))
    for text in warnings:
        click.echo(f"warning: {plain(text)}", err=True)


def _json_value(value: Any) -> Any:
    """Return a value in terms of JSON, which knows no infinity and no NaN: these are null."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(part) for part in value]
    plain_value = value.item() if hasattr(value, "item") else value
    if isinstance(plain_value, float):
        return plain_value if math.isfinite(plain_value) else None
    return plain_value if plain_value is None or isinstance(plain_value, bool | int | str) else str(plain_value)


def _show_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, title in enumerate(table.titles):
        numbers = all(isinstance(row[column], int | float | None) for row in table.rows)
        shown.add_column(Text(title), justify="right" if numbers else "left", no_wrap=True)
    for row in table.rows:
        shown.add_row(*(Text(_cell(value)) for value in row))
    # no cell is broken into lines: where the screen is narrow, the terminal breaks the whole line
    console = Console(highlight=False, markup=False, width=10_000, force_terminal=sys.stdout.isatty())
    with console.capture() as captured:
        console.print(shown)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else plain(value)


@contextlib.contextmanager
def quiet_start(debug: bool) -> Iterator[None]:
    """Keep what libraries in C++ say while they are loaded (TensorFlow, several lines) off standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if debug:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
