"""Honest timings: what is compared runs in turns, so that a busy machine slows all of it alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median process seconds of each, run after run in turns; the first, which compiles, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
