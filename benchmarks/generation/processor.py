"""Whether other processes ran while something was measured: two threads that wait for each other in a loop stand still when a third one
takes a core (ik_llama.cpp made 200 tokens per second alone and 3 next to one busy process), so such a measurement is made again."""

from __future__ import annotations

import os
import time
from pathlib import Path

QUIET = 0.05
"""Largest share of the cores that others may have had."""

_SOURCE = Path("/proc/stat")


class Watch:
    """Context that sees how much processor time the whole machine used.

    Example:
        >>> with Watch() as watch:
        ...     pass
        >>> watch.others(processor_s=0.0) >= 0
        True
    """

    def __enter__(self) -> Watch:
        self._begin, self._used = time.monotonic(), busy_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.elapsed = time.monotonic() - self._begin
        used = busy_seconds()
        self.used = None if used is None or self._used is None else used - self._used

    def others(self, processor_s: float) -> float:
        """Share of the cores that went to others than the process that took `processor_s` seconds; 0 where it cannot be seen."""
        if self.used is None:
            return 0.0
        tick = 2 / os.sysconf("SC_CLK_TCK")  # the counters advance in steps
        return max(self.used - processor_s - tick, 0.0) / (max(self.elapsed, tick) * (os.cpu_count() or 1))


def busy_seconds() -> float | None:
    """Processor time of all processes since the start of the machine, or None where the system does not tell."""
    try:
        fields = _SOURCE.read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft = (int(field) for field in fields[:7])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
