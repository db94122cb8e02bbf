"""Completion of commands and options by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kconvert.cli.console import Command, Result
from kconvert.errors import InputError

SHELLS = ("bash", "zsh", "fish")


@click.command(
    name="completion",
    cls=Command,
    example="kconvert completion bash > ~/.kconvert-complete.sh\necho '. ~/.kconvert-complete.sh' >> ~/.bashrc",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> Result:
    """Print the script that lets a shell complete commands and options."""
    from kconvert.cli import cli

    found = get_completion_class(shell)
    if found is None:
        raise InputError(f"this version of click cannot complete for {shell}")
    script = found.source_template % found(cli, {}, "kconvert", "_KCONVERT_COMPLETE").source_vars()
    return Result({"shell": shell, "script": script}, [script.strip()])
