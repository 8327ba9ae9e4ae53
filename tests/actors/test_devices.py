"""Devices and threads, dealt out among a run's actors."""

import os
from collections.abc import Callable

import pytest
import torch

from issgd_cli.actors.devices import computing, device_of, threads
from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError

Configured = Callable[..., Config]


def test_devices_are_dealt_master_first_then_workers_then_the_monitor(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    actors = (("master", 0), ("worker", 0), ("worker", 1), ("monitor", 0))
    automatic, named = configured(), configured("cluster.devices=['cpu', 'meta', 'auto']")
    assert [device_of(automatic, *actor) for actor in actors] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [device_of(named, *actor) for actor in actors] == ["cpu", "meta", "cuda:0", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert {device_of(automatic, *actor) for actor in actors} == {"cpu"}


def test_a_device_that_is_not_there_is_told_with_those_that_are(configured: Configured) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.devices: torch cannot use 'cuda:99' here .* There is cpu"):
        device_of(configured("cluster.devices=['cuda:99']"), "master", 0)


def test_threads_are_fixed_where_bits_depend_on_them_else_the_cores_are_shared_out(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    monkeypatch.delenv("ISSGD_JOBS", raising=False)
    assert threads(configured()) == 1  # exact
    assert threads(configured("master.mode=relaxed", "cluster.kind=simulated")) == 1
    assert threads(configured("cluster.threads=5")) == 5
    assert threads(configured("master.mode=relaxed", "worker.count=3")) == 6
    monkeypatch.setenv("ISSGD_JOBS", "2")
    assert threads(configured("master.mode=relaxed", "worker.count=3")) == 3
    assert threads(configured("master.mode=relaxed", "worker.count=99")) == 1


@pytest.mark.parametrize(
    ("there", "settings", "tf32", "repeatable"),
    [
        (True, ["master.mode=exact"], False, True),
        (True, ["master.mode=relaxed"], False, False),
        (True, ["master.mode=relaxed", "cluster.kind=simulated", "cluster.matmul_precision=high"], True, True),
        (False, ["master.mode=exact"], False, False),
    ],
)
def test_a_runs_precision_holds_for_convolutions_too_and_ends_with_it(
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    settings: list[str],
    tf32: bool,
    repeatable: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")

    def state() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()

    before = state()
    with computing(configured(*settings)):
        assert state() == (tf32, repeatable)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == repeatable
    assert state() == before
