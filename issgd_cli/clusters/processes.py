"""Processes of this machine: what they find in their environment."""

import os
import sys
from pathlib import Path

# For the environment of processes that compute: keeps glibc from handing back and faulting in again the same megabytes
# at every step, 14% of a CPU step.
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def environment() -> dict[str, str]:
    """Of a process of ours: it imports what we do, from where we do, and nothing that lies in the current folder."""
    ours = [path for path in sys.path if os.path.isabs(path) and os.path.exists(path) and os.pathsep not in path]
    home = str(Path(__file__).parents[2])  # for a checkout that was never installed
    paths = ours if home in ours else [*ours, home]
    return {**os.environ, **ALLOCATION, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
