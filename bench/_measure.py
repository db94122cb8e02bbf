"""Time with the share of the processor that was spent: on a busy machine only CPU time can be compared."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any


def cpu_seconds() -> float:
    """User and system time so far of this process, its threads and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def spent(work: Callable[[], Any]) -> dict[str, float]:
    """Return what one call of `work` takes."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return {"cpu_s": cpu_seconds() - cpu, "wall_s": time.perf_counter() - wall}


def rate(work: Callable[[], Any], samples: int, rounds: int, seconds: float) -> dict[str, float]:
    """Return samples a second of `work`, which handles `samples` of them a call.

    Every round calls `work` until `seconds` of CPU time are spent; one call before the first round warms up.
    """
    work()
    by_cpu, by_wall = [], []
    for _ in range(rounds):
        cpu, wall, done = cpu_seconds(), time.perf_counter(), 0
        while cpu_seconds() - cpu < seconds:
            work()
            done += samples
        by_cpu.append(done / (cpu_seconds() - cpu))
        by_wall.append(done / (time.perf_counter() - wall))
    return {
        "per_cpu_s": max(by_cpu),
        "per_cpu_s_median": statistics.median(by_cpu),
        "per_s": max(by_wall),
        "per_s_median": statistics.median(by_wall),
    }
