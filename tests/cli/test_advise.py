"""`issgd advise` on a tiny set of the user's own: the same bytes again, any network and loss, refusals, Ctrl-C."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from issgd_cli.cli import app
from issgd_cli.errors import IssgdError
from issgd_cli.experiments.advice import costs, trial
from tests.trials import COSTS

SMALL = ["--set", "model.hidden=[8]", "--set", "master.minibatch_size=20", "--steps", "36", "--examples", "100"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    inputs = random.normal(0, 1, (300, 6)).astype(np.float32)
    np.savez("classes.npz", inputs=inputs, labels=(inputs[:, 0] > 0.3).astype(np.uint8))
    np.savez("numbers.npz", inputs=inputs, targets=inputs[:, :2] ** 2)


def advise(*arguments: object, status: int = 0) -> str:
    """What it says."""
    done = CliRunner().invoke(app, ["advise", *map(str, arguments)])
    if isinstance(done.exception, IssgdError):
        assert status == 1
        return str(done.exception)
    assert done.exit_code == status, f"{done.output} {done.exception}"
    return done.output


def told(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "advice.json").read_text())
    return found


@pytest.mark.long  # three times
def test_the_same_seed_advises_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "costs_of", lambda *all_: COSTS)
    first = advise("--data", "classes.npz", *SMALL, "--out", tmp_path / "first")
    advise("--data", "classes.npz", *SMALL, "--out", tmp_path / "again")
    advise("--data", "classes.npz", *SMALL, "--out", tmp_path / "other", "--seed", 1)
    for name in ("advice.json", "advice.html", "advice.png", "advice.pdf"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert told(tmp_path / "first")["moments"] != told(tmp_path / "other")["moments"]
    for one in told(tmp_path / "first")["methods"]:
        line = next(line for line in first.splitlines() if line.strip().startswith(one["name"]))
        each = " ".join(f"{one[key]:.2f}" for key in ("steps", "work", "seconds"))
        numbers = f"{each} {one['work_low']:.2f} to {one['work_high']:.2f}"
        assert numbers in " ".join(line.split())


def test_it_goes_to_a_folder_of_its_data_and_configuration(tmp_path: Path) -> None:
    text = advise("--data", "classes.npz", *SMALL)
    (place,) = (tmp_path / "results" / "advice").iterdir()
    assert place.name.startswith("classes-")
    assert str(place.relative_to(tmp_path) / "advice.html") in text
    found = told(place)
    assert found["trial"]["steps"] == 36
    assert found["costs"]["scoring"]["work"] > 2 / 3
    assert found["costs"]["scoring"]["seconds"] > 0
    assert found["choice"] in [one["name"] for one in found["methods"]]
    other = advise("--data", "classes.npz", *SMALL, "--seed", 7)
    assert str(place.relative_to(tmp_path)) + "-seed-7/advice.html" in other
    assert told(place) == found  # another seed's lies beside it


def test_regression_and_a_network_of_ones_own_by_the_command_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n"
        "def make(shape, outputs, width=4):\n"
        "    return nn.Sequential(nn.Linear(shape[0], width), nn.Tanh(), nn.Linear(width, outputs))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    more = ["--set", "model.loss=squared", "--set", "model.arguments.width=5", "--out", tmp_path / "own"]
    advise("--data", "numbers.npz", "--model", "own_network:make", *SMALL[2:], *more)
    found = told(tmp_path / "own")
    assert found["trial"]["network"] == "own_network:make"
    assert found["trial"]["parameters"] == 6 * 5 + 5 + 5 * 2 + 2
    named = tmp_path / "named.toml"
    named.write_text("[model]\nnetwork = 'other_network:make'\n")
    assert "only where the command line" in advise(named, "--data", "numbers.npz", status=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "5"], "12 steps or more"),
        (["--set", "model.loss=squared"], "compares with numbers"),
        (["--set", "optimizer.learning_rate=1e30", "--steps", "40"], "diverged"),
        (["--data", "missing.npz"], "missing.npz"),
        (["--setting", "none"], "No setting"),
    ],
)
def test_what_cannot_be_advised_on_is_refused(arguments: list[str], said: str) -> None:
    data = [] if "--data" in arguments else ["--data", "classes.npz"]
    assert said in advise(*data, *SMALL[:4], *arguments, status=1)


def test_an_interrupt_ends_it_with_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trial, "measured", interrupted)
    assert "interrupted" in advise("--data", "classes.npz", *SMALL, status=130)
    assert not (tmp_path / "results").exists()
