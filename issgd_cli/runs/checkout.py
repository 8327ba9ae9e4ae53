"""Which code a run was made by."""

import subprocess
from pathlib import Path
from typing import Any


def checkout() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from, and whether it is dirty; None when it is installed without one.

    Results that are made again beside a run change nothing of it: they leave the checkout clean.
    """
    here = Path(__file__).parent
    try:
        ours = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=False
        )
        if ours.returncode:
            return None
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
        status = ["git", "status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)results"]
        dirty = subprocess.run(status, cwd=here, capture_output=True, check=False)
    except OSError:
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(dirty.stdout)}
