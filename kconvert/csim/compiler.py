"""Compile sources into a shared object, once for every content: results are kept in a cache folder.

The cache is ``$KCONVERT_CACHE``, or ``kconvert`` in the user's cache folder. An object's name is a hash of the sources,
the headers, the compiler, its flags and the processor; it appears by an atomic rename, so that any number of processes
may share the folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from kconvert.errors import CompileError

log = logging.getLogger(__name__)

FLAGS = (
    *("-std=c++20", "-O2", "-march=native", "-fPIC", "-shared", "-pthread", "-DKCONVERT_CSIM"),
    *("-Wno-psabi", "-Wno-unknown-pragmas", "-fno-math-errno", "-fvisibility=hidden"),
)
KEPT_OBJECTS = 1000


def find_compiler() -> list[str]:
    """Return the C++ compiler as the words of a command: ``$CXX``, or g++, or clang++.

    Raises:
        CompileError: there is none; the message names the package to install.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise CompileError(f"the C++ compiler CXX={os.environ['CXX']!r} is not on PATH: install it or unset CXX")
        return named
    for name in ("g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise CompileError(
        "no C++ compiler found, and compile() needs one: install g++ (Debian, Ubuntu: 'apt-get install g++', Fedora: "
        "'dnf install gcc-c++', macOS: 'xcode-select --install'), or name one in the environment variable CXX"
    )


def cache_folder() -> Path:
    """Return the folder of compiled objects, made if it is missing; a temporary one where none can be written."""
    base = os.environ.get("KCONVERT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base) if base else Path(home).expanduser() / "kconvert"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        log.warning("cannot write the cache folder %s (%s): compiled objects will not be kept", folder, error)
        return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    return Path(tempfile.mkdtemp(prefix="kconvert-"))


def compile_object(sources: Mapping[str, str], main: str) -> Path:
    """Return the shared object of `main`, one of `sources` (path -> text), from the cache if it is there.

    Raises:
        CompileError: no compiler, no space, or the compiler's own message.
    """
    command = find_compiler()
    digest = _digest(sources, command)
    folder = cache_folder()
    for known in folder.glob(f"{digest}-*.so"):
        if known.name == f"{digest}-{known.stat().st_size}.so":  # loading a truncated object would end the process
            _touch(known)
            return known
    work = None
    try:
        work = Path(tempfile.mkdtemp(prefix="build-", dir=folder))
        for name, text in sources.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        built = work / "object.so"
        _run(
            [
                *command,
                *FLAGS,
                "-I",
                str(include_folder()),
                "-I",
                str(work),
                str(work / main),
                "-o",
                str(built),
            ]
        )
        target = folder / f"{digest}-{built.stat().st_size}.so"
        os.replace(built, target)
    except OSError as error:
        raise CompileError(f"cannot write the compiled object into {folder}: {error}") from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    _forget_oldest(folder)
    return target


def include_folder() -> Path:
    """Folder of the simulation's headers."""
    return Path(str(resources.files("kconvert") / "csim" / "include"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        shown = "\n".join(lines[:60]) + (f"\n... {len(lines) - 60} more lines" if len(lines) > 60 else "")
        raise CompileError(f"{command[0]} rejected the generated source:\n{shown}")


def _digest(sources: Mapping[str, str], command: list[str]) -> str:
    found = hashlib.sha256()
    for part in (*_identity(tuple(command)), *FLAGS, _processor(), _headers()):
        found.update(part.encode() + b"\0")
    for name in sorted(sources):
        found.update(f"{name}\0{sources[name]}\0".encode())
    return found.hexdigest()[:40]


@functools.cache
def _identity(command: tuple[str, ...]) -> tuple[str, ...]:
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", check=False)
    if version.returncode:
        raise CompileError(f"{shlex.join(command)} --version failed: {version.stderr.strip()}")
    return (*command, version.stdout)


@functools.cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return f"{platform.machine()} {platform.processor()}"


@functools.cache
def _headers() -> str:
    return "\0".join(
        file.name + "\0" + file.read_text(encoding="utf-8") for file in sorted(include_folder().glob("*.h"))
    )


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        log.debug("cannot touch %s", path)


def _forget_oldest(folder: Path) -> None:
    """Keep the most recently used objects."""
    try:
        objects = sorted(folder.glob("*.so"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in objects[KEPT_OBJECTS:]:
            file.unlink(missing_ok=True)
    except OSError:
        log.debug("cannot clean up %s", folder)
