"""Methods that are not the paper's, beside the two that are: told, not judged; the paper claims nothing of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from issgd_cli.claims.evidence import Run, Runs, is_papers
from issgd_cli.claims.paired import difference, mean_difference
from issgd_cli.claims.verdicts import PerSeed


@dataclass(frozen=True)
class Comparison:
    """One method against one of the paper's, in one setting.

    Attributes:
        against: How a text calls the paper's method.
        difference: Of mean audited training losses at equal steps, relative to that method's; negative is better.
    """

    setting: str
    method: str
    against: str
    difference: PerSeed

    def plain(self) -> dict[str, Any]:
        """For claims.json."""
        return {
            "setting": self.setting,
            "method": self.method,
            "against": self.against,
            "relative_difference": self.difference.plain(),
        }


def comparisons(runs: Runs) -> list[Comparison]:
    """Every method of ours in every setting where a run of the paper's SGD or ISSGD has the same seed."""
    loss = mean_difference("audit/loss/train", "steps", relative=True)
    found = []
    for setting in runs.settings:
        theirs_of: dict[str, Sequence[Run]] = {
            "SGD": runs.of_first(setting, "sgd"),
            "ISSGD": runs.of_first(setting, "issgd"),
        }
        for method in runs.methods:
            group = tuple(run for run in runs.of(setting, method) if not is_papers(run))
            for against, theirs in theirs_of.items():
                gap = difference(group, theirs, loss, (method, against))
                if len(gap):
                    found.append(Comparison(setting, method, against, gap))
    return found
