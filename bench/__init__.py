"""What does it cost? Each figure as a ratio to the plain way, in the same run on the same machine. Run with ``make
bench``.
"""

from __future__ import annotations

import re
from pathlib import Path


def peak_megabytes() -> float:
    """Return this process's own peak of resident memory: `getrusage` would count what its parent had when it forked."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux says so"
    return int(found[1]) / 1024
