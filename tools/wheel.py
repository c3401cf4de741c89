"""Does the package work as people install it? Builds sdist and wheel, checks both, and tries the wheel where nothing
else is.

Run by ``make wheel``. The wheel is built from the sdist, so a file that is missing in the sdist is noticed. The wheel
is installed, without extras and with the newest dependencies, into an empty environment below ``.local/wheel``. The
tests in tests/wheel run its commands there. Exit status: that of the first step that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".local" / "wheel"
_UV = str(ROOT / ".local" / "uv" / "bin" / "uv")
#: The program of the empty environment that the tests call; they are left out without it.
VARIABLE = "WHEEL_PYTHON"


def main() -> int:
    """Build, check, install, try; return the exit status."""
    dist, venv = HOME / "dist", HOME / "venv"
    shutil.rmtree(dist, ignore_errors=True)
    python = venv / "bin" / "python"
    try:
        # With the hatchling of this environment.
        _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist))
        built = sorted(map(str, dist.iterdir()))
        [wheel] = [file for file in built if file.endswith(".whl")]
        _run(sys.executable, "-m", "twine", "check", "--strict", *built)
        _run(str(Path(sys.executable).with_name("check-wheel-contents")), wheel)
        _run(_UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv))
        _run(_UV, "pip", "install", "--quiet", "--python", str(python), wheel)
        _run(sys.executable, "-m", "pytest", "-q", "tests/wheel", **{VARIABLE: str(python)})
    except subprocess.CalledProcessError as error:
        print(f"`{' '.join(map(str, error.cmd))}` ended with status {error.returncode}.", file=sys.stderr)
        return error.returncode
    print("\n".join(built))
    return 0


def _run(*command: str, **env: str) -> None:
    subprocess.run(command, cwd=ROOT, env={**os.environ, **env, "UV_NO_PROGRESS": "1"}, check=True)


if __name__ == "__main__":
    sys.exit(main())
