"""C12 and C13 come out of traces made for them, each way; and nobody else's report changes for there being peers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims import FINDERS, PAPERS, Run, Runs, findings
from issgd_cli.claims.contests import ROLES, playing
from issgd_cli.claims.evidence import FIRST_PAPER, PEERS, is_papers
from issgd_cli.claims.peers import HELP, IMPEDE, NEITHER, OPEN, interaction
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


def run_of(
    label: str,
    seed: int,
    times: float | Sequence[float],
    sent: float = 1e6,
    pace: float = 1.0,
    curve: Sequence[float] = tuple(FALLING),
) -> Run:
    """A run whose loss is so many times this one at steps 0, 10, ..., and has sent so many bytes at the end."""
    values: Mapping[str, Any] = {"seed": seed, **SETTINGS[label]}
    rows = [
        Row(10 * place, pace * 10 * place, name, float(value) * (1 + 0.001 * seed))
        for name, values_of in {
            "audit/loss/train": np.array(curve) * times,
            "audit/error/test": np.array(curve) * 0.1,
            "audit/trace/in_use": np.full(len(curve), 0.81),
            "audit/trace/uniform": np.ones(len(curve)),
            "work/bytes_sent": np.linspace(0, sent, len(curve)),
        }.items()
        for place, value in enumerate(values_of)
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
    ("peers", "asgd", "workers", "expected", "answer"),
    [
        (0.8, 1.0, 1.0, "holds", HELP),
        (0.8, 0.7, 1.0, "fails", IMPEDE),  # importance sampling impedes ASGD
        (0.8, 1.0, 0.7, "fails", IMPEDE),  # and peers ISSGD
        (0.7, 1.0, 0.75, "holds", HELP),
        (0.7, 1.0, 0.71, "fails", NEITHER),  # ahead of both, but importance sampling gains ASGD what it gains SGD
        (1.0, 1.0, 1.0, "fails", NEITHER),  # not visibly
    ],
)
def test_c13_asks_that_each_gains_by_the_other(
    peers: float, asgd: float, workers: float, expected: str, answer: str
) -> None:
    runs = runs_of(issgd_peers=peers, asgd=asgd, issgd=workers, sgd=1.0)
    found = verdict("C13", runs)
    assert found.verdict == expected
    gap, ends = interaction(runs, "")
    np.testing.assert_allclose(gap.values, peers / asgd - 1 - (workers - 1), atol=1e-9)
    assert ends == (40, 40)
    assert found.values[""]["interaction"]["answer"] == answer
    assert f"interaction: {answer}." in found.evidence
    assert "impede" not in found.evidence.replace(IMPEDE, "") or answer == OPEN
    for what in ("test error at the end", "sqrt Tr in use / uniform", "bytes a second", "steps"):
        assert what in found.evidence
    assert found.values[""]["ISSGD with peers"]["sqrt Tr in use / uniform"]["median"] == pytest.approx(0.9)


def test_c13_says_so_where_the_seeds_do_not_agree() -> None:
    runs = runs_of(issgd_peers=1.0, asgd=1.0, issgd=1.0, sgd=1.0)
    mixed = [run_of("issgd-peers", seed, 0.8 if seed % 2 else 1.2) for seed in range(SEEDS)]
    others = [run for run in runs.runs if run.method != "issgd-peers"]
    found = verdict("C13", Runs("test", (*mixed, *others), len(runs.runs)))
    assert found.values[""]["interaction"]["answer"] == OPEN


def test_the_interaction_is_of_the_steps_that_all_four_cover() -> None:
    """Drawing by importance does the same to both at each step: ever more; peers have come a fifth as far."""
    curve = np.exp(-np.arange(101) / 50) + 0.2
    gains = 1 - 0.005 * np.arange(101)
    lengths = {"issgd": 101, "sgd": 91, "issgd-peers": 21, "asgd": 25}
    runs = [
        run_of(label, seed, gains[:length].tolist() if "issgd" in label else 1.0, curve=curve[:length].tolist())
        for label, length in lengths.items()
        for seed in range(SEEDS)
    ]
    gap, ends = interaction(Runs("test", tuple(runs), len(runs)), "")
    assert len(gap) == SEEDS
    np.testing.assert_allclose(gap.values, 0, atol=1e-12)
    assert ends == (200, 200)
    found = verdict("C13", Runs("test", tuple(runs), len(runs)))
    assert found.values[""]["interaction"]["answer"] == NEITHER
    assert "that all of them cover, 0 to 200 (" in found.evidence


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


def with_diverged(runs: Runs, label: str, seeds: Sequence[int]) -> Runs:
    """The same runs, but that these of a method diverged."""
    failure = {"actor": "server", "reason": "The training has diverged."}
    changed = tuple(
        replace(run, state="failed", manifest={**run.manifest, "state": "failed", "failure": failure})
        if run.method == label and run.seed in seeds
        else run
        for run in runs.runs
    )
    return Runs("test", changed, len(changed))


@pytest.mark.parametrize("label", ["issgd", "asgd"])
@pytest.mark.parametrize(("sent", "expected"), [(1e5, "holds"), (1e7, "fails")])
def test_what_diverged_says_nothing_of_traffic(label: str, sent: float, expected: str) -> None:
    runs = runs_of({"issgd": sent, "asgd": 1e6}, issgd=1.0, asgd=1.0)
    some = verdict("C12", with_diverged(runs, label, range(3)))
    assert some.verdict == f"suggests it {expected}"
    assert "; 3 seeds, of which not both have finished and counted, not compared" in some.evidence
    assert verdict("C12", with_diverged(runs, label, range(SEEDS))).verdict == "untestable"


@pytest.mark.parametrize(
    ("label", "side"), [("issgd-peers", np.inf), ("asgd", -np.inf), ("issgd", -np.inf), ("sgd", np.inf)]
)
def test_an_interaction_counts_what_diverged(label: str, side: float) -> None:
    """Of ISSGD with peers, that they impede each other; of ASGD, that they help; of a master's the other way round."""
    runs = with_diverged(runs_of(issgd_peers=0.8, asgd=1.0, issgd=1.0, sgd=1.0), label, range(4))
    gap, ends = interaction(runs, "")
    assert [value == side for value in gap.values] == [True] * 4 + [False] * 6
    assert ends == (40, 40)
    both = with_diverged(
        runs,
        {"issgd-peers": "asgd", "asgd": "issgd-peers"}.get(label, "sgd" if label == "issgd" else "issgd"),
        range(4),
    )
    assert interaction(both, "")[0].seeds == (4, 5, 6, 7, 8, 9)
    assert "; 4 seeds of which that is not known" in FINDERS["C13"](both, Thresholds()).parts[0].text


@pytest.mark.parametrize("left", ["issgd", ""])
def test_where_all_or_all_but_one_diverged_nothing_is_known(left: str) -> None:
    runs = runs_of(issgd_peers=0.8, asgd=1.0, issgd=1.0, sgd=1.0)
    for label in {"issgd-peers", "asgd", "issgd", "sgd"} - {left}:
        runs = with_diverged(runs, label, range(SEEDS))
    assert len(interaction(runs, "")[0]) == 0
    assert FINDERS["C13"](runs, Thresholds()).parts
