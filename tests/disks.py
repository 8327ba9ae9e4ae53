"""Disks that fill."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full(size: int = 0) -> Iterator[None]:
    """Within, no file of this process can grow beyond so many bytes: the system itself cuts a write short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
