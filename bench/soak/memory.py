"""How much memory do Airflow's servers take, over time?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from stack.process import Server
from stack.watchdog import family

_MB = 2**20


class Memory:
    """Samples of the servers' memory.

    The triggerer's work is done by a child, the others' by the process itself. A worker of the scheduler is no server.
    """

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        #: Seconds since the epoch, process id and resident megabytes, by server; of all together, the proportional set.
        self.samples: dict[str, list[tuple[float, int, float]]] = {name: [] for name in (*servers, "all")}

    def sample(self) -> None:
        """Look once."""
        now, total = time.time(), 0.0
        for name, server in self._servers.items():
            processes = family(server.pid) if server.pid else []
            looked = processes if name == "triggerer" else processes[:1]
            sizes = [(_rss(process), process.pid) for process in looked]
            if sizes:
                most, pid = max(sizes)
                self.samples[name].append((now, pid, most))
            total += sum(map(_pss, processes))
        self.samples["all"].append((now, 0, total))

    def course(self, name: str) -> tuple[float, float, float, float]:
        """Return minutes, megabytes in the first and the last third, and megabytes an hour, of the longest life."""
        lives: dict[int, list[tuple[float, float]]] = {}
        for when, pid, size in self.samples[name]:
            lives.setdefault(pid, []).append((when, size))
        longest = max(lives.values(), key=len)
        third = max(1, len(longest) // 3)
        first, last = longest[:third], longest[-third:]
        before, after = (statistics.median(size for _, size in part) for part in (first, last))
        hours = (statistics.mean(when for when, _ in last) - statistics.mean(when for when, _ in first)) / 3600
        minutes = (longest[-1][0] - longest[0][0]) / 60
        return minutes, before, after, (after - before) / hours if hours else 0.0


def _rss(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.memory_info().rss) / _MB
    return 0.0


def _pss(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.memory_full_info().pss) / _MB
    return 0.0
