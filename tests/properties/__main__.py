"""``make stateful``: ten thousand random nights, and what they held.

Exit status: 0 when nothing was wrong in any of them; else the smallest night that shows what was.
"""

from __future__ import annotations

import argparse
import logging
import time

from hypothesis.stateful import run_state_machine_as_test

from tests.properties.machine import Nights, bounded


def main() -> None:
    """Play, then count."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--nights", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="most events of one (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    try:
        run_state_machine_as_test(Nights, settings=bounded(options.nights, stateful_step_count=options.steps))
    finally:
        seen = Nights.seen
        nights = sum(count for name, count in seen.items() if name.startswith("nights "))
        print(f"{nights:,} nights in {time.monotonic() - began:,.0f} s")
        for name in sorted(seen):
            print(f"{seen[name]:>9,}  {name}")


if __name__ == "__main__":
    main()
