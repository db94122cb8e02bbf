"""Progress of long work: a line on standard error, or in a notebook's cell, while it runs; gone when it is done.

Nothing is shown where standard error is no terminal and no notebook is there, and rich is not imported then.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

_shown: Progress | None = None
"""What is on display: work inside of other work adds a line to it."""


@contextlib.contextmanager
def working(text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show that something runs, and for how long; a context manager.

    Args:
        text: What runs, plain text: ``"compiling 12 layers"``.
        total: Number of steps, for a bar; None where nobody knows.

    Yields:
        A function that takes the number of steps done since its last call.
    """
    with _display() as display:
        if display is None:
            yield _ignore
            return
        task = display.add_task(_plain(text), total=total)
        try:
            yield lambda steps: display.advance(task, steps)
        finally:
            display.remove_task(task)


def steps(items: Iterable[Item], text: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, showing how many of them are done.

    Args:
        items: What to go through.
        text: What is done with them, plain text.
        total: How many there are; their length if left out and they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with working(text, total) as advance:
        for item in items:
            yield item
            advance(1)


def _ignore(steps: float) -> None:
    """Show nothing."""


@contextlib.contextmanager
def _display() -> Iterator[Progress | None]:
    """Yield the display that is there, or one of our own, or None where there is nobody to look at it."""
    global _shown
    if _shown is not None or not _somebody_looks():
        yield _shown
        return
    with _new_display() as _shown:
        try:
            yield _shown
        finally:
            _shown = None


def _somebody_looks() -> bool:
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell: Any = sys.modules.get("IPython")  # there is no notebook where it was not imported
    running = shell.get_ipython() if shell is not None else None
    return type(running).__name__ == "ZMQInteractiveShell"


def _new_display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        # what is printed meanwhile goes above the line; but a file that takes standard output gets it as it is
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    from kconvert.tables import printable

    return escape(printable(text))
