"""Progress is shown to somebody who looks, and to nobody else."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest

from kconvert import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of standard error; not a fixture, as pytest sets it again before the test."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return found


def test_a_terminal_shows_what_runs_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    seen = []
    for item in progress.steps("abc", "checking [b]3[/b] layers"):
        assert progress._shown is not None
        progress._shown.refresh()
        seen.append(item)
    assert seen == ["a", "b", "c"]
    text = screen.getvalue()
    assert "checking [b]3[/b] layers" in text  # a name is not markup
    assert "2/3" in text


def test_work_inside_of_work_shares_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    with progress.working("outer", 2) as advance:
        outer = progress._shown
        assert outer is not None
        with progress.working("inner\nline"):
            assert progress._shown is outer
            outer.refresh()
            assert [task.description for task in outer.tasks] == ["outer", "inner\ufffdline"]
        advance(1)
        assert [(task.description, task.completed) for task in outer.tasks] == [("outer", 1)]
    assert progress._shown is None


def test_an_error_ends_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), progress.working("dividing"):
        raise ZeroDivisionError
    assert progress._shown is None


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = io.StringIO()
    monkeypatch.setattr(sys, "stderr", found)
    assert list(progress.steps(iter([1, 2]), "counting")) == [1, 2]
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console
    with progress.working("waiting") as advance:
        advance(1)
    assert found.getvalue() == ""


def test_a_notebook_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    class ZMQInteractiveShell:
        pass

    class IPython:
        shell: Any = ZMQInteractiveShell()

        def get_ipython(self) -> Any:
            return self.shell

    monkeypatch.setitem(sys.modules, "IPython", IPython())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress._somebody_looks()
    monkeypatch.setattr(IPython, "shell", None)  # IPython was imported, and no notebook runs
    assert not progress._somebody_looks()


def test_silent_programs_do_without_rich() -> None:
    code = (
        "import sys; from kconvert import progress\n"
        "with progress.working('x'): pass\n"
        "assert list(progress.steps([1], 'y')) == [1]\n"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
