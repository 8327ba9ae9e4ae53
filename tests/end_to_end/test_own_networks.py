"""A network of the user's own on the real command line: named there it is trained, and named elsewhere refused."""

import numpy as np
import pytest

from tests.end_to_end.conftest import EXPERIMENTS, CommandLine

CODE = """
import pathlib
from torch import nn

pathlib.Path(__file__).with_name("imported").touch()

def network(shape, outputs, width=16):
    features = shape[0] if len(shape) == 1 else shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs))
"""


@pytest.fixture
def own(issgd: CommandLine) -> CommandLine:
    """The command line in a folder with a module of the user's."""
    (issgd.place / "users_net.py").write_text(CODE)
    return issgd


def test_no_code_is_imported_because_a_file_names_it(own: CommandLine) -> None:
    """Neither an experiment's nor a run folder's, and not by --set: --model alone allows it."""
    file, folder = own.place / "own.toml", own.place / "results" / "own" / "issgd-1" / "seed-000"
    file.write_text(f'extends = "{EXPERIMENTS / "smoke.toml"}"\n[model]\nnetwork = "users_net:network"\n')
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(file.read_text())
    data = ("--data-dir", own.data_dir)
    commands: list[tuple[object, ...]] = [
        ("train", file, *data),
        ("train", file, *data, "--set", "model.arguments.width=8"),
        ("train", folder / "config.toml", *data, "--resume"),
        own.train("set", "--set", "model.network=users_net:network"),
        ("reproduce", file, *data),
        ("reproduce", file, *data, "--dry-run"),
        ("reproduce", file, *data, "--model", "users_net:another"),
    ]
    for command in commands:
        done = own.here(*command)
        assert done.returncode == 1
        assert "add `--model users_net:network`" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (own.place / "imported").exists()
    for command in (("status",), ("plot", folder), ("doctor", *data)):
        own.here(*command)
        assert not (own.place / "imported").exists()


@pytest.mark.long
def test_a_network_of_ones_own_is_trained_by_processes_that_are_told_of_it(own: CommandLine) -> None:
    """By master, workers and monitor, and by a simulated run that `reproduce` does in a process of its own."""
    settings = ("--model", "users_net:network", "--set", "model.arguments.width=12")
    local = own(*own.train("local", "--mode", "exact", *settings))
    assert local.returncode == 0, local.stderr
    file = own.place / "apart.toml"
    file.write_text(
        f'extends = "{EXPERIMENTS / "smoke.toml"}"\nname = "apart"\n[master]\nmode = "exact"\n'
        '[cluster]\nkind = "simulated"\n[model]\nnetwork = "users_net:network"\narguments = { width = 12 }\n'
    )
    apart = own("reproduce", file, "--only", "method=issgd", "--data-dir", own.data_dir, "--model", "users_net:network")
    assert apart.returncode == 0, apart.stdout + apart.stderr
    (folder,) = (own.place / "results" / "apart").glob("*issgd*/seed-000")
    with np.load(own.run_of("local") / "parameters.npz") as one, np.load(folder / "parameters.npz") as other:
        assert one["1.weight"].shape[0] == 12
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
