"""Runs on a GPU: every method, some networks, to the bit where that is promised, resumed, with real processes."""

import json

import pytest
import torch

from issgd_cli.registries import METHODS
from tests.end_to_end.conftest import CommandLine, comparable
from tests.end_to_end.test_simulated import Eventually, content, interrupted
from tests.gpus import DEVICE, needed

pytestmark = [needed, pytest.mark.slow]

THERE = ("--set", f'cluster.devices=["{DEVICE}"]')
SHORT = (*THERE, "--cluster", "simulated", "--mode", "relaxed", "--set", "cluster.clock.examples_per_second=2000")
SMALL = {
    "resnet18": ("resnet18.width=4",),
    "vit": ("vit.width=24", "vit.depth=2", "vit.patch=8"),
    "cnn": ("cnn.widths=[4,8,8]",),
}


def settings(*pairs: str) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in ("--set", pair))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_repeats_its_run_to_the_bit(issgd: CommandLine, method: str) -> None:
    for name in ("once", "again"):
        done = issgd.here(*issgd.train(name, *SHORT, "--method", method))
        assert done.returncode == 0, done.stderr
    once, again = (comparable(issgd.run_of(name)) for name in ("once", "again"))
    assert len(once) > 20
    assert once.equals(again)


@pytest.mark.parametrize("network", SMALL)
def test_a_network_is_trained_and_scored(issgd: CommandLine, network: str) -> None:
    few = settings("data.train_size=600", "master.minibatch_size=32", *SMALL[network])
    done = issgd.here(*issgd.train(network, *SHORT, "--model", network, "--steps", "40", *few))
    assert done.returncode == 0, done.stderr
    table = comparable(issgd.run_of(network))
    audited = table[table.quantity == "audit/trace/in_use"]
    assert len(audited)
    assert (audited.value > 0).all()


CNN = ("--model", "cnn", "--steps", "32", *settings("data.train_size=300", *SMALL["cnn"]))


@pytest.mark.parametrize("network", [(), CNN], ids=["mlp", "cnn"])  # convolutions have a precision of their own
def test_real_processes_give_the_bits_of_the_simulated_cluster(issgd: CommandLine, network: tuple[str, ...]) -> None:
    real = issgd(*issgd.train("real", "--cluster", "local", *THERE, *network))
    assert real.returncode == 0, real.stderr
    virtual = issgd.here(*issgd.train("virtual", "--cluster", "simulated", *THERE, *network))
    assert virtual.returncode == 0, virtual.stderr
    order = ["quantity", "step"]
    one, other = (comparable(issgd.run_of(name)).sort_values(order, ignore_index=True) for name in ("real", "virtual"))
    assert len(one) > 20
    assert one.equals(other)


def test_an_interrupted_run_goes_on_to_the_same_bytes(issgd: CommandLine, eventually: Eventually) -> None:
    often = (*SHORT, "--steps", "600", "--set", "master.checkpoint_every_seconds=0.5")
    whole = issgd.here(*issgd.train("whole", *often))
    assert whole.returncode == 0, whole.stderr
    interrupted(issgd, eventually, "broken", *often)
    resumed = issgd.here(*issgd.train("broken", *often), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert content(issgd.run_of("broken")) == content(issgd.run_of("whole"))


def test_a_relaxed_run_with_real_processes_tells_of_the_gpu(issgd: CommandLine) -> None:
    done = issgd(*issgd.train("relaxed", "--cluster", "local", "--mode", "relaxed", "--steps", "400", *THERE))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((issgd.run_of("relaxed") / "manifest.json").read_text())
    assert DEVICE == "cpu" or torch.cuda.get_device_name() in manifest["machine"]["gpus"]
