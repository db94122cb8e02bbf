"""The command line as its user has it: a process of its own, in a folder with nothing but the files of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

# A module of this name on PYTHONPATH is run by every interpreter first: it lets TensorFlow and Keras look uninstalled.
BLOCKER = """
import sys

class _Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "tf_keras", "qkeras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, _Blocker())
"""


def environment(*more_paths: Path, **variables: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, [*more_paths, ROOT]))
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": "80", **variables}


@dataclass(frozen=True)
class Kconvert:
    """Runs commands in a folder."""

    folder: Path
    paths: tuple[Path, ...] = ()

    def run(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kconvert", *map(str, arguments)],
            cwd=self.folder,
            env=environment(*self.paths, **variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def __call__(self, *arguments: object, **variables: str) -> str:
        """Run what has to succeed, and return its output."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: object, **variables: str) -> Any:
        return json.loads(self(*arguments, "--json", **variables))

    def fails(self, *arguments: object, code: int = 1, **variables: str) -> str:
        """Run what has to fail, and return the one line it says."""
        done = self.run(*arguments, **variables)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        (line,) = done.stderr.splitlines()
        assert line.startswith("kconvert: ")
        return line.removeprefix("kconvert: ")


def without_keras(folder: Path) -> Path:
    """Make a folder which, put on PYTHONPATH, hides TensorFlow, Keras and QKeras."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    return folder
