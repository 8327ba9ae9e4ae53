"""Claims of Salaun et al. 2024, multiple importance sampling: M1-M4. The paper shows curves alone, no tables."""

from collections.abc import Callable

from issgd_cli.claims.contests import Contest, contested, elsewhere
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding

M1 = Claim("M1", "Polynomial: OMIS converges as the exact gradient does; then come IS, MIS and SGD.", "Fig. 2")
M2 = Claim("M2", "MNIST: OMIS is better than IS, and that than DLIS, at equal epochs and at equal time.", "Fig. 3")
M3 = Claim("M3", "PointNet: OMIS is the best per epoch, IS the best per second.", "On ModelNet40")
M4 = Claim("M4", "Picture: OMIS is the best.", "On 2D regression")


def finding_m1(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean training losses at equal steps."""
    contests = [
        Contest("OMIS", "the exact gradient", as_good=True),
        Contest("OMIS", "IS"),
        Contest("IS", "MIS"),
        Contest("MIS", "uniform"),
    ]
    return elsewhere(runs, contested(runs, M1, contests, thresholds), "polynomial regression", _on("polynomial"))


def finding_m2(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean test errors along both axes."""
    pairs = (("OMIS", "IS"), ("IS", "DLIS"))
    contests = [Contest(*pair, what="test error", axis=axis) for axis in ("steps", "seconds") for pair in pairs]
    return elsewhere(runs, contested(runs, M2, contests, thresholds), "MNIST", _on("mnist"))


def finding_m3(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean training losses: of OMIS at equal epochs, of IS at equal seconds."""
    contests = [
        Contest("OMIS", "IS"),
        Contest("OMIS", "uniform"),
        Contest("IS", "OMIS", axis="seconds"),
        Contest("IS", "uniform", axis="seconds"),
    ]
    found = contested(runs, M3, contests, thresholds)
    return elsewhere(runs, found, "a PointNet", lambda run: run.config.model.network == "pointnet")


def finding_m4(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean training losses at equal epochs."""
    contests = [Contest("OMIS", other) for other in ("IS", "uniform")]
    found = contested(runs, M4, contests, thresholds)
    return elsewhere(runs, found, "pictures", lambda run: run.config.model.network == "siren")


def _on(data: str) -> Callable[[Run], bool]:
    return lambda run: run.config.data.name == data
