"""Measures CPU time by stage, with each thread's own clock around the functions of a stage."""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


class StageClock:
    """Adds up CPU seconds by stage; the time of a nested stage does not count for the outer one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cpu_s: defaultdict[str, float] = defaultdict(float)
        self._of_thread = threading.local()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, and whose CPU time counts for the stage."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            outer_inside_s = getattr(self._of_thread, "inside_s", 0.0)
            self._of_thread.inside_s = 0.0
            before_s = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                used_s = time.thread_time() - before_s
                with self._lock:
                    self._cpu_s[stage] += used_s - self._of_thread.inside_s
                self._of_thread.inside_s = outer_inside_s + used_s

        return call

    def read(self) -> dict[str, float]:
        """Return the CPU seconds by stage so far."""
        with self._lock:
            return dict(self._cpu_s)


def native_threads_cpu_s() -> float:
    """Return the CPU seconds of this process's threads that Python did not start: those of PyTorch (Linux)."""
    pythons = {thread.native_id for thread in threading.enumerate()}
    used_ns = 0
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) not in pythons:
            used_ns += int((task / "schedstat").read_text().split()[0])
    return used_ns / 1e9
