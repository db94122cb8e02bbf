"""The page about the command line, made from the commands: ``python -m kconvert.cli.docs > docs/cli.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import click

from kconvert.cli import COMMANDS, ENTRY_POINTS, builtin, cli
from kconvert.cli.console import Command

_INTRODUCTION = f"""# The command line

    kconvert COMMAND [OPTIONS]

`python -m kconvert` is the same. From a model file to what the hardware will answer, without TensorFlow:

    kconvert config -m model.h5 -o config.yml         # write the settings, to edit
    kconvert convert -c config.yml                    # write the project for the vendor's tool
    kconvert predict -c config.yml -i X.npy -o y.npy  # what the hardware answers, to the bit
    kconvert tune -c config.yml -i X.npy -o tuned.yml # fewer bits where they are not missed
    kconvert build -p my-hls-project                  # run the vendor's tool

The settings file is described in [configuration.md](configuration.md).

**Exit codes**: 0; 1 after an error; 2 after a call that is not right; 130 after Ctrl-C. An error is one line on
standard error, `--debug` adds the traceback. With `--json` standard output is one JSON object: the results with a list
of `warnings`, or `error`, `type` and `exit_code`. A file or project appears under its name when it is complete; until
then, and after an error or Ctrl-C, an older one is as it was.

**Model files**: `.keras`; `.h5` of Keras 1 to 3; a `.json` architecture with the `.h5` of its weights. They are read
without Keras, and code in them (Lambda layers) is not run: such files are refused. `--allow-unsafe` has Keras load
them, which runs the code; a Lambda then converts if it computes `scale * x + bias`.

**Samples**: `.npy` [n, ...]; `.npz` with an array for each input under its name, or the arrays in order; `.csv`; `.txt`
and `.dat` with a sample a line, blank separated, as in a project's `tb_data`. Arrays may also be flat: [n, numbers of a
sample], those of several inputs side by side.

**Completion**: `kconvert completion bash > ~/.kconvert-complete.sh`, and `. ~/.kconvert-complete.sh` in `~/.bashrc`;
the same with `zsh` and `~/.zshrc`; for fish `kconvert completion fish > ~/.config/fish/completions/kconvert.fish`.

**More commands**: a package adds commands by the entry point group `{ENTRY_POINTS}`; the name of an entry point is
that of the command, its value a click command or group. A command that returns a `kconvert.cli.console.Result` has its
result printed, and one that raises a `KConvertError` its error, as those of kconvert itself.
"""


def page() -> str:
    """Return the page as Markdown."""
    commands = {name: builtin(name) for name in COMMANDS}
    return "\n".join([_INTRODUCTION, *_sections(commands, "kconvert", 2)]).rstrip() + "\n"


def _sections(commands: Mapping[str, click.Command], path: str, level: int) -> Iterator[str]:
    for name, command in commands.items():
        context = click.Context(command, info_name=name)
        yield f"{'#' * level} {path} {name}\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        if isinstance(command, click.Group):
            nested = {n: found for n in command.list_commands(context) if (found := command.get_command(context, n))}
            yield from _sections(nested, f"{path} {name}", level + 1)
            continue
        rows = [record for p in command.params if (record := _record(p))]
        if rows:
            yield "| option | meaning |\n|---|---|"
            yield "\n".join(f"| {_cell(option)} | {_cell(text)} |" for option, text in rows) + "\n"
        if isinstance(command, Command) and command.example:
            yield "\n".join(f"    {line}" for line in command.example.splitlines()) + "\n"


_EVERYWHERE = {option.name for option in cli.params}


def _record(parameter: click.Parameter) -> tuple[str, str] | None:
    """Return what is written for a parameter and what it means; click's own words differ between its releases."""
    if parameter.name in _EVERYWHERE:
        return None
    choices = "|".join(map(str, parameter.type.choices)) if isinstance(parameter.type, click.Choice) else ""
    if not isinstance(parameter, click.Option):
        return f"`{choices or (parameter.name or '').upper()}`", "required"
    value = "" if parameter.is_flag else f" {choices or parameter.type.name.upper()}"
    notes = ["required"] if parameter.required else []
    notes += ["may be given several times"] if parameter.multiple else []
    notes += [f"default: {parameter.default}"] if parameter.show_default else []
    return f"`{', '.join(parameter.opts)}{value}`", " ".join([parameter.help or "", *(f"({n})" for n in notes)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(page(), nl=False)
