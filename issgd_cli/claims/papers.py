"""The papers, and what each claims. A new claim is a function, and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from issgd_cli.claims import (
    generalisation,
    optimisation,
    peers,
    reduction,
    salaun2023,
    salaun2024,
    staleness,
    traffic,
    variance,
)
from issgd_cli.claims.evidence import FIRST_PAPER, PEERS, Runs
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Finding

Finder = Callable[[Runs, Thresholds], Finding]


@dataclass(frozen=True)
class Paper:
    """What is reproduced.

    Attributes:
        title: Authors, title, year.
        finders: Its claims, by their names, in the order of the report.
    """

    title: str
    finders: Mapping[str, Finder]


PAPERS: dict[str, Paper] = {
    FIRST_PAPER: Paper(
        "Alain, Lamb, Sankar, Courville, Bengio: Variance Reduction in SGD by Distributed Importance Sampling, 2015",
        {
            "C1": optimisation.finding_c1,
            "C2": optimisation.finding_c2,
            "C3": generalisation.finding_c3,
            "C4": generalisation.finding_c4,
            "C5": variance.finding_c5,
            "C6": reduction.finding_c6,
            "C7": staleness.finding_c7,
            "C8": variance.finding_c8,
            "C9": staleness.finding_c9,
            "C10": optimisation.finding_c10,
            "C11": variance.finding_c11,
        },
    ),
    PEERS: Paper(
        "Alain, Lamb, Sankar, Courville, Bengio, 2015: what sections 2 and 6 say of asynchronous SGD, and left open",
        {"C12": traffic.finding_c12, "C13": peers.finding_c13},
    ),
    "salaun-2023": Paper(
        "Salaün, Huang, Georgiev, Mitra, Singh: Online Importance Sampling for Stochastic Gradient Optimization, 2023",
        {
            "D1": salaun2023.finding_d1,
            "D2": salaun2023.finding_d2,
            "D3": salaun2023.finding_d3,
            "D4": salaun2023.finding_d4,
            "D5": salaun2023.finding_d5,
            "D6": salaun2023.finding_d6,
        },
    ),
    "salaun-2024": Paper(
        "Salaün, Huang, Georgiev, Mitra, Singh: Multiple Importance Sampling for Stochastic Gradient Estimation, 2024",
        {
            "M1": salaun2024.finding_m1,
            "M2": salaun2024.finding_m2,
            "M3": salaun2024.finding_m3,
            "M4": salaun2024.finding_m4,
        },
    ),
}

FINDERS: dict[str, Finder] = {claim: find for paper in PAPERS.values() for claim, find in paper.finders.items()}
