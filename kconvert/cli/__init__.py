"""The command line: ``kconvert config | convert | compile | predict | ...``

A command lives in a module of its own kind and is imported when it is used. Those of other packages are found by the
entry point group ``kconvert.commands``: its names are command names, its values click commands.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import click

from kconvert import __version__
from kconvert.cli.console import Mode, Result, plain, shared_options, show
from kconvert.errors import ConfigWarning, KConvertError, PrecisionWarning, did_you_mean

# name -> module:attribute, in the order of the help
COMMANDS = {
    "config": "kconvert.cli.conversion:config",
    "convert": "kconvert.cli.conversion:convert",
    "compile": "kconvert.cli.conversion:compile_",
    "predict": "kconvert.cli.samples:predict",
    "trace": "kconvert.cli.samples:trace",
    "compare": "kconvert.cli.samples:compare",
    "profile": "kconvert.cli.samples:profile",
    "tune": "kconvert.cli.samples:tune",
    "build": "kconvert.cli.vendor:build",
    "report": "kconvert.cli.vendor:report",
    "kpu": "kconvert.kpu.command:kpu",
    "completion": "kconvert.cli.completion:completion",
}
ENTRY_POINTS = "kconvert.commands"
SHOWN_WARNINGS = 10


class Commands(click.Group):
    """The commands of kconvert, then those of plugins; each is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return [*COMMANDS, *sorted(_plugins().keys() - COMMANDS.keys())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        if name in COMMANDS:
            return builtin(name)
        point = _plugins().get(name)
        if point is None:
            return None
        try:
            loaded = point.load()
        except Exception as error:  # of whatever kind the plugin raises
            raise click.ClickException(f"the command {name!r} of {point.value} cannot be loaded: {error!r}") from error
        if not isinstance(loaded, click.Command):
            raise click.ClickException(f"the command {name!r} of {point.value} is no click command")
        return loaded

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or say which name is near."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            hint = did_you_mean(args[0], known) or f" (commands: {', '.join(known)})"
            raise click.UsageError(f"no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def builtin(name: str) -> click.Command:
    """Import one of kconvert's own commands."""
    module, _, attribute = COMMANDS[name].partition(":")
    found: click.Command = getattr(importlib.import_module(module), attribute)
    return found


def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _overview(context: click.Context) -> None:
    """Called without a command, show what there is."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli = Commands(
    name="kconvert",
    help="Turn trained Keras models into fixed-point C++ for FPGAs, and compute what the hardware will answer.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=shared_options(),
    invoke_without_command=True,
    callback=click.pass_context(_overview),
)
click.version_option(version=__version__)(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process: 0, 1 after an error, 2 after a wrong call, 130 after Ctrl-C."""
    for number in _SIGNALS:
        signal.signal(number, _stop)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _stop(number: int, frame: object) -> None:
    """End by an exception, so that what was half written is removed on the way; once is enough for that."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Run a command, print what it returns or one line about what went wrong, and return the exit code."""
    as_json, debug = "--json" in arguments, "--debug" in arguments
    notes = _Notes()
    logger = logging.getLogger("kconvert")
    logger.addHandler(notes)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # what libraries tell developers
            for category in (ConfigWarning, PrecisionWarning):
                warnings.simplefilter("always", category)
            warnings.showwarning = notes.warn
            result = cli.main(list(arguments), prog_name="kconvert", standalone_mode=False, obj=Mode(as_json, debug))
            if isinstance(result, Result):
                show(result, as_json=as_json, warnings=notes.shown())
        return result if isinstance(result, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one place where every failure becomes one line
        code, message = _explained(error)
        if debug:
            traceback.print_exc()
        _report(error, code, message, as_json)
        return code
    finally:
        logger.removeHandler(notes)


def _explained(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message for an error."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return 128 + signal.SIGINT, _SIGNALS[signal.SIGINT]
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return code, {128 + number: text for number, text in _SIGNALS.items()}.get(code, "")
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "kconvert"
        return error.exit_code, f"{error.format_message()} (see {path} --help)"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, KConvertError):
        return 1, str(error)
    if isinstance(error, BrokenPipeError):
        return 1, ""  # whoever read our output has gone
    if isinstance(error, OSError):
        return 1, f"{error.filename or 'reading or writing'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return 1, f"not enough memory{f': {error}' if str(error) else ''}"
    return 1, f"a fault in kconvert: {type(error).__name__}: {error} (--debug shows where)"


def _report(error: BaseException, code: int, message: str, as_json: bool) -> None:
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # its last flush would fail again
        return
    if not message:
        return
    if as_json:
        failure = {"error": message, "type": type(error).__name__, "exit_code": code}
        with contextlib.suppress(OSError):  # standard output may be what failed
            click.echo(json.dumps(failure, indent=2))
    click.echo(f"kconvert: {one_line(message)}", err=True)


def one_line(message: str) -> str:
    """Return the first line of a message, and the second where that is all there is or the first leads up to it."""
    lines = [line.strip() for line in message.splitlines() if line.strip(" ^")] or ["unknown error"]
    if len(lines) == 2 or (len(lines) > 2 and lines[0].endswith(":")):
        return plain(f"{lines[0].removesuffix(':')}: {lines[1]}")
    return plain(lines[0])


class _Notes(logging.Handler):
    """Warnings of any kind, kept until the command has ended."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.texts[record.getMessage()] = None

    def warn(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self.texts[str(message)] = None

    def shown(self) -> list[str]:
        texts = list(self.texts)
        rest = len(texts) - SHOWN_WARNINGS
        return texts if rest <= 1 else [*texts[:SHOWN_WARNINGS], f"{rest} more of the same kind"]
