"""How much memory a process has needed."""

import resource
from pathlib import Path


def peak_mb() -> float:
    """The most memory, in MB, that this process had in use, on Linux since the system was last told to forget it."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins with what the process that started this one had
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
