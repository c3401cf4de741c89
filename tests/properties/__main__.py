"""``make stateful``: ten thousand random nights, and what they held.

Exit status: 0 when nothing was wrong in any of them; else the night that shows what was, and the seed of its batch.
"""

from __future__ import annotations

import argparse
import logging
import random
import time

from hypothesis import Phase, seed
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.machine import Nights, bounded

_BATCH = 500


def main() -> None:
    """Play, then count."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--nights", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="most events of one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the first batch of nights (default: a random one)")
    parser.add_argument("--shrink", action="store_true", help="look for the smallest night that shows a failure")
    options = parser.parse_args()
    phases = [Phase.generate, Phase.shrink] if options.shrink else [Phase.generate]
    logging.disable(logging.CRITICAL)
    first = random.randrange(1_000_000) if options.seed is None else options.seed
    began, batches = time.monotonic(), -(-options.nights // _BATCH)
    try:
        for number in range(batches):
            # Hypothesis remembers what it has tried: batches keep that small.
            few = min(_BATCH, options.nights)
            nights = bounded(few, stateful_step_count=options.steps, database=None, phases=phases)
            run_state_machine_as_test(seed(first + number)(Nights), settings=nights)
            print(f"{(number + 1) * few:,} nights, {time.monotonic() - began:,.0f} s", flush=True)
    finally:
        seen = Nights.seen
        nights = sum(count for name, count in seen.items() if name.startswith("nights "))
        events = sum(count for name, count in seen.items() if name.startswith("event: "))
        took = time.monotonic() - began
        print(f"{nights:,} nights, {events:,} events, {took:,.0f} s; seeds {first} to {first + number}")
        for name in sorted(seen):
            print(f"{seen[name]:>9,}  {name}")


if __name__ == "__main__":
    main()
