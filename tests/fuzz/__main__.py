"""``make fuzz``: 100,000 generated request lines, judged by lint and by the emulator's importer, and cured.

Exit status: 0 when the two readings agree everywhere, 1 with the smallest file that shows otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter

from tests.fuzz.cures import broken_promises
from tests.fuzz.differential import disagreements, lint, refusals, smallest
from tests.fuzz.generate import request_file


def main() -> int:
    """Generate, compare, count; then let atheris try, where it is installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="lines to generate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first file (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="for atheris, if installed (default: %(default)s)")
    options = parser.parse_args()
    return generated(options.lines, options.seed) or coverage_guided(options.seconds)


def generated(lines: int, seed: int) -> int:
    """Compare both readings of generated files until there were so many lines."""
    counts: Counter[str] = Counter()
    started = time.monotonic()
    while counts["lines"] < lines:
        file = request_file(random.Random(seed + counts["files"]))
        rows = file.splitlines(keepends=True)
        counts.update(files=1, lines=len(rows))
        if found := disagreements(file):
            print(f"seed {seed + counts['files'] - 1}: {found}\n{smallest(file)!r}")
            return 1
        for row in rows:
            if broken := list(broken_promises(row)):
                print(f"seed {seed + counts['files'] - 1}: {broken}\n{row!r}")
                return 1
        is_clean = not any(finding.severity == "error" for finding in lint(file))
        counts.update(clean_lines=len(rows) if is_clean else 0, refused_lines=len(refusals(file)))
    print(
        f"{counts['lines']:,} lines in {counts['files']:,} files, {time.monotonic() - started:.0f} s: "
        f"{counts['clean_lines']:,} in files without errors, all imported; "
        f"{counts['refused_lines']:,} refused, all reported. No disagreement."
    )
    return 0


def coverage_guided(seconds: int) -> int:
    """Run the harness of `tests.fuzz.coverage_guided` in a process of its own."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: no coverage-guided run.")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        limits = [f"-max_total_time={seconds}", "-max_len=8192", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
        return subprocess.run(
            [sys.executable, "-m", "tests.fuzz.coverage_guided", *limits, folder], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
