"""Every threshold that a verdict rests on, why it is what it is, and what else it might have been."""

from dataclasses import dataclass, field, fields
from typing import Any

from issgd_cli.claims.chances import Test


def _because(reason: str, *others: Any) -> dict[str, Any]:
    return {"reason": reason, "others": others}


@dataclass(frozen=True)
class Thresholds:
    """Of all claims; the test is one of the choices, too."""

    test: Test = field(
        default="sign",
        metadata=_because("exact whatever the numbers' distribution; for C9's means of many, Student's t", "student"),
    )
    visible: float = field(
        default=0.02,
        metadata=_because(
            "curves 2% of SGD's mean apart can be told apart in figure 2 (C1, C2, C7, C10, D, M)",
            0.01,
            0.05,
        ),
    )
    reached: float = field(
        default=0.01, metadata=_because("a loss below it draws as the paper's 0.0 (C1)", 0.005, 0.02)
    )
    nearly: float = field(
        default=0.05,
        metadata=_because(
            "of SGD's error (C4), whose two in the paper differ by 0.3%; of the error without pruning (D4)", 0.02, 0.1
        ),
    )
    generally: float = field(
        default=0.95, metadata=_because("of the audits, at least (C5); the paper says generally, not always", 0.9, 0.99)
    )
    clear: float = field(
        default=0.95,
        metadata=_because("a square root 5% below the uniform one's can be seen in figure 4 (C6)", 0.9, 0.98),
    )
    close: float = field(default=0.1, metadata=_because("of the smallest of the three traces (C11)", 0.05, 0.2))
    detectable: float = field(
        default=0.1, metadata=_because("an excess that the draws must have been able to show (C9)", 0.05, 0.2)
    )

    alike: float = field(
        default=0.9, metadata=_because("of the rank correlation: two orders much alike (D5)", 0.8, 0.95)
    )

    @property
    def test_of_means(self) -> Test:
        """The test of numbers that are means of many: as good as normal, unless the other test is asked for."""
        return "student" if self.test == "sign" else "sign"


def reasons(thresholds: Thresholds) -> dict[str, dict[str, Any]]:
    """Each threshold's value and reason."""
    return {
        each.name: {"value": getattr(thresholds, each.name), "reason": each.metadata["reason"]}
        for each in fields(thresholds)
    }


def variations() -> dict[str, Thresholds]:
    """The same with one of them changed, by what is said of it: "visible = 0.01" -> thresholds."""
    return {
        "the other test" if each.name == "test" else f"{each.name} = {other}": Thresholds(**{each.name: other})
        for each in fields(Thresholds)
        for other in each.metadata["others"]
    }
