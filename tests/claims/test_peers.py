"""C12 and C13 come out of traces made for them, each way; and nobody else's report changes for there being peers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims import FINDERS, PAPERS, Run, Runs, findings
from issgd_cli.claims.contests import ROLES, playing
from issgd_cli.claims.evidence import FIRST_PAPER, PEERS, is_papers
from issgd_cli.claims.peers import interaction
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Verdict, weighed
from issgd_cli.config.validation import resolve
from issgd_cli.runs.traces import Row

SEEDS = 10
FALLING = np.array([2.0, 1.0, 0.5, 0.2, 0.1])
SETTINGS: dict[str, dict[str, Any]] = {
    "issgd": {},
    "sgd": {"proposal": {"method": "sgd"}},
    "issgd-peers": {"cluster": {"roles": "peers"}},
    "issgd-peers-bfloat16": {"cluster": {"roles": "peers"}, "peers": {"gradients": "bfloat16"}},
    "asgd": {"proposal": {"method": "sgd"}, "cluster": {"roles": "peers"}},
    "synchronous-sgd": {
        "proposal": {"method": "sgd"},
        "cluster": {"roles": "peers"},
        "peers": {"mode": "synchronous"},
    },
}


def run_of(label: str, seed: int, times: float, sent: float = 1e6, pace: float = 1.0) -> Run:
    """A run whose loss is so many times the usual one at steps 0, 10, ... 40, and has sent so many bytes at the end."""
    values: Mapping[str, Any] = {"seed": seed, **SETTINGS[label]}
    rows = [
        Row(10 * place, pace * 10 * place, name, float(value) * (1 + 0.001 * seed))
        for name, curve in {
            "audit/loss/train": FALLING * times,
            "audit/error/test": FALLING * 0.1,
            "audit/trace/in_use": np.full(5, 0.81),
            "audit/trace/uniform": np.ones(5),
            "work/bytes_sent": np.linspace(0, sent, 5),
        }.items()
        for place, value in enumerate(curve)
    ]
    manifest = {"state": "finished", "dataset": {"train": 1_000, "valid": 100, "test": 100}}
    trace = pd.DataFrame(rows, columns=list(Row._fields))
    path = Path("results/test") / f"{label}-0" / f"seed-{seed:03d}"
    return Run(path, "", label, seed, "finished", resolve(values, "test"), manifest, trace)


def runs_of(sent: Mapping[str, float] | None = None, pace: float = 1.0, **times: float) -> Runs:
    """Ten runs of each of these, by how many times their loss is the usual one."""
    labels = {name.replace("_", "-"): factor for name, factor in times.items()}
    runs = tuple(
        run_of(label, seed, factor, (sent or {}).get(label, 1e6), pace if "peers" in label else 1.0)
        for label, factor in labels.items()
        for seed in range(SEEDS)
    )
    return Runs("test", runs, len(runs))


def verdict(claim: str, runs: Runs) -> Verdict:
    return weighed([FINDERS[claim](runs, Thresholds())])[0]


@pytest.mark.parametrize(("issgd", "asgd", "expected"), [(1e5, 1e6, "holds"), (1e6, 1e5, "fails"), (1e6, 1e6, "fails")])
def test_c12_is_about_bytes_a_second_and_a_step(issgd: float, asgd: float, expected: str) -> None:
    runs = runs_of({"issgd": issgd, "asgd": asgd}, issgd=1.0, asgd=1.0)
    found = verdict("C12", runs)
    assert found.verdict == expected
    for what in ("second", "step"):
        assert found.values[""][f"bytes a {what}"]["median"] == pytest.approx(issgd / asgd - 1)


def test_c12_needs_both() -> None:
    assert verdict("C12", runs_of(issgd=1.0, issgd_peers=1.0)).verdict == "untestable"


@pytest.mark.parametrize(
    ("peers", "asgd", "workers", "expected"),
    [
        (0.8, 1.0, 1.0, "holds"),
        (0.8, 0.7, 1.0, "fails"),  # importance sampling impedes ASGD
        (0.8, 1.0, 0.7, "fails"),  # and peers ISSGD
        (1.0, 1.0, 1.0, "fails"),  # not visibly
    ],
)
def test_c13_asks_that_each_gains_by_the_other(peers: float, asgd: float, workers: float, expected: str) -> None:
    runs = runs_of(issgd_peers=peers, asgd=asgd, issgd=workers, sgd=1.0)
    found = verdict("C13", runs)
    assert found.verdict == expected
    gap = interaction(runs, "")
    np.testing.assert_allclose(gap.values, peers / asgd - 1 - (workers - 1), atol=1e-9)
    for what in ("test error at the end", "sqrt Tr in use / uniform", "bytes a second", "steps"):
        assert what in found.evidence
    assert found.values[""]["ISSGD with peers"]["sqrt Tr in use / uniform"]["median"] == pytest.approx(0.9)


def test_c13_compares_at_equal_seconds() -> None:
    """Peers that need ten times as long for the same steps are behind."""
    runs = runs_of(pace=10.0, issgd_peers=0.9, asgd=1.0, issgd=1.0, sgd=1.0)
    finding = FINDERS["C13"](runs, Thresholds())
    assert weighed([finding])[0].verdict == "fails"
    steps = finding.values[""]["ISSGD with peers - ASGD at equal steps, training loss"]
    assert steps["median"] == pytest.approx(-0.1)


def test_every_role_is_played_by_its_label_alone() -> None:
    runs = runs_of(None, 1.0, **{label.replace("-", "_"): 1.0 for label in SETTINGS})
    played = {
        "ISSGD with workers": "issgd",
        "uniform": "sgd",
        "ISSGD with peers": "issgd-peers",
        "ISSGD with peers, bfloat16": "issgd-peers-bfloat16",
        "ASGD": "asgd",
        "synchronous SGD": "synchronous-sgd",
    }
    for role in ROLES:
        assert {run.method for run in playing(runs, "", role)} == ({played[role]} if role in played else set())
    assert {run.method for run in runs.runs if is_papers(run)} == {"issgd", "sgd"}
    assert (runs.label("issgd"), runs.label("sgd")) == ("issgd", "sgd")


def test_only_a_report_with_peers_has_their_claims() -> None:
    assert runs_of(issgd=1.0, sgd=1.0).papers == (FIRST_PAPER,)
    with_peers = runs_of(issgd=1.0, sgd=1.0, asgd=1.0)
    assert with_peers.papers == (FIRST_PAPER, PEERS)
    claims = [finding.claim.id for finding in findings(with_peers, Thresholds())]
    assert claims == [*PAPERS[FIRST_PAPER].finders, "C12", "C13"]
