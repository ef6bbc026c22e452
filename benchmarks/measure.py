"""How long something takes, and how much memory a process has needed."""

import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path


def seconds_of(function: Callable[[], object], at_least: float = 0.3) -> float:
    """Mean seconds of a call, over as many calls as take `at_least` seconds."""
    calls = 0
    elapsed = 0.0
    started = time.perf_counter()
    while elapsed < at_least:
        function()
        calls += 1
        elapsed = time.perf_counter() - started
    return elapsed / calls


def peak_mb() -> float:
    """The most memory, in MB, that this process had in use, on Linux since `forget_peak`."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins with what the process that started this one had
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def forget_peak() -> float:
    """Let `peak_mb` begin anew, where the system can, and return what it begins with."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()
