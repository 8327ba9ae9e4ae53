"""Who imports by a path of 0.1 is told the new one, whatever form the import has."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from issgd_cli.moved import MOVED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "issgd_cli"

# The modules of 0.1: those at the top, and room by room.
OLD = {
    "": """checkpoints config drawing equations errors examples exchange experiment files locks master monitor
        operations quantiles randomness reproduction runs sampling smoothing staleness_map traces worker""",
    "claims": "evidence generalisation optimisation paired staleness variance verdicts",
    "cli": "actors address doctor output plot prepare reproduce screen signals status train",
    "clusters": """actors apart clock estimate launch local moment recording replay restarts simulated training
        virtual""",
    "database": """binaries documents guard memory permissions protocol records redis rehearsal replies scripts server
        urls""",
    "datasets": "cifar10 classes download house_numbers mat5 mnist prepared sources svhn user writing",
    "figures": "curves figure_1 figure_2 figure_3 figure_4 outputs report run staleness style table_1",
    "gradient_norms": "linear rules scoring",
    "models": "losses mlp reduced",
}

# Names that users may have imported, and where they are now.
NAMES = {
    "checkpoints.load_parameters": "runs.parameters",
    "clusters.simulated.run": "simulation.cluster",
    "clusters.training.train": "experiments.run",
    "config.Config": "config.config",
    "config.as_toml": "config.toml",
    "config.resolve": "config.validation",
    "equations.entropy": "equations.alain2015",
    "gradient_norms.score": "scores",
    "gradient_norms.rules.squared_norms": "scores.rules.rule",
    "master.Master": "actors.master",
    "models.losses.cross_entropy": "losses.cross_entropy",
    "models.mlp.flatten_parameters": "networks.flat",
    "models.mlp.mlp": "networks.mlp",
    "monitor.exact_quantities": "actors.auditing",
    "runs.RunFolder": "runs.folder",
    "runs.find": "runs.folder",
    "sampling.Proposal": "methods.proposal",
    "smoothing.smoothed": "methods.smoothing",
    "traces.drop_after": "runs.cutting",
    "traces.read": "runs.traces",
}


def is_there(module: str) -> bool:
    path = PACKAGE / module.replace(".", "/")
    return path.with_suffix(".py").exists() or is_package(module)


def is_package(module: str) -> bool:
    return (PACKAGE / module.replace(".", "/") / "__init__.py").exists()


def failures(statements: list[str]) -> list[str]:
    """How each fails in a fresh Python, the error's type first; empty where it does not."""
    code = """
import json, sys
told = []
for statement in json.load(sys.stdin):
    try:
        exec(statement)
        told.append("")
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(statements), capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_every_old_module_is_where_it_was_or_listed() -> None:
    old = {f"{room}.{name}".lstrip(".") for room, names in OLD.items() for name in names.split()}
    assert not {module for module in old | set(OLD) - {""} if not is_there(module)} - set(MOVED) - {"models"}
    assert set(MOVED) <= old | {"gradient_norms"}


def test_every_new_path_is_there() -> None:
    assert not [new for places in MOVED.values() for new in places if not is_there(new)]


def test_no_old_path_leads_to_something_else() -> None:
    """A package in an old module's place tells of the names that it lacks; a module would not."""
    assert not [old for old in MOVED if is_there(old) and not is_package(old)]


def test_every_old_path_fails_with_the_new_one() -> None:
    tried = []
    for old in MOVED:
        room, _, name = f"issgd_cli.{old}".rpartition(".")
        tried.append((old, f"from issgd_cli.{old} import anything"))
        if not is_package(old):
            tried += [(old, f"import issgd_cli.{old}"), (old, f"from {room} import {name}")]
    told = failures([statement for _, statement in tried])
    for (old, statement), failure in zip(tried, told, strict=True):
        assert failure.startswith("ImportError: "), f"{statement}: {failure}"
        assert f"issgd_cli.{old} is issgd_cli.{MOVED[old][0]}" in failure, statement
        assert not [new for new in MOVED[old] if f"issgd_cli.{new}" not in failure], statement
        assert failure.endswith(" since 0.2; what users may rely on is in issgd_cli.library."), statement


def test_a_message_is_a_sentence() -> None:
    of_one, of_several, of_a_package = failures(
        ["from issgd_cli.sampling import Proposal", "import issgd_cli.traces", "from issgd_cli.models.mlp import mlp"]
    )
    end = "since 0.2; what users may rely on is in issgd_cli.library."
    assert of_one == f"ImportError: issgd_cli.sampling is issgd_cli.methods.proposal {end}"
    assert of_several == (
        "ImportError: issgd_cli.traces is issgd_cli.runs.traces, issgd_cli.runs.cutting and issgd_cli.database.records "
        + end
    )
    assert of_a_package == (
        "ImportError: issgd_cli.models.losses is issgd_cli.losses.cross_entropy, issgd_cli.models.mlp is "
        "issgd_cli.networks.mlp and issgd_cli.networks.flat, issgd_cli.models.reduced is issgd_cli.networks.reduced "
        + end
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_in_one_of_the_places_told(name: str) -> None:
    old, _, attribute = name.rpartition(".")
    assert NAMES[name] in MOVED[old]
    assert hasattr(importlib.import_module(f"issgd_cli.{NAMES[name]}"), attribute)


def test_what_never_was_fails_as_everywhere() -> None:
    told = failures(
        ["import issgd_cli.nothing", "import nothing", "from issgd_cli import nothing", "import issgd_cli.runs.folder"]
    )
    assert told == [
        "ModuleNotFoundError: No module named 'issgd_cli.nothing'",
        "ModuleNotFoundError: No module named 'nothing'",
        f"ImportError: cannot import name 'nothing' from 'issgd_cli' ({PACKAGE / '__init__.py'})",
        "",
    ]
