"""Where an actor computes, and with how many threads: the configuration's, dealt out among a run's actors."""

import contextlib
import os
from collections.abc import Iterator

import torch

from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError


def device_of(config: Config, kind: str, index: int) -> str:
    """The device that the configuration deals to an actor: master first, then workers, then the monitor."""
    devices = config.cluster.devices
    place = {"master": 0, "server": 0, "monitor": 1 + hands(config)}.get(kind, 1 + index)
    device = devices[place % len(devices)]
    count = torch.cuda.device_count()
    if device == "auto":
        return f"cuda:{place % count}" if count else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch built without CUDA
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"cluster.devices: torch cannot use {device!r} here ({reason}). There is {there}.") from None
    return device


def hands(config: Config) -> int:
    """How many workers, or peers, a run is configured to have."""
    return config.peers.count if config.cluster.roles == "peers" else config.worker.count


def threads(config: Config) -> int:
    """Torch threads an actor: as configured, else 1 where the bits must not depend on the machine, else its cores
    shared out."""
    if config.cluster.threads is not None:
        return config.cluster.threads
    if _is_repeatable(config):
        return 1
    if cores := os.environ.get("ISSGD_CORES"):  # a launcher that gives its actors cores of their own says how many
        return max(1, int(cores))
    actors = (hands(config) + 1) * int(os.environ.get("ISSGD_JOBS", "1"))
    return max(1, (os.cpu_count() or 1) // actors)


@contextlib.contextmanager
def computing(config: Config) -> Iterator[None]:
    """Within, torch has the configuration's threads and precision; and where a run is to be repeated to the bit, CUDA's
    deterministic kernels: torch warns of what has none."""
    precision = config.cluster.matmul_precision
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads(config))
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"  # convolutions have a switch of their own, which is on
    try:
        with _deterministic() if _is_repeatable(config) and torch.cuda.is_available() else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32 = before[2]


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Within, CUDA has its deterministic kernels. Loads torch's compiler, for a second: a CPU needs none of this."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS's are not; read when it is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _is_repeatable(config: Config) -> bool:
    return config.master.mode == "exact" or config.cluster.kind == "simulated"
