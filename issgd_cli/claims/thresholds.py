"""Every threshold that a verdict rests on, why it is what it is, and what else it might have been."""

from dataclasses import dataclass, field, fields
from typing import Any

from issgd_cli.claims.chances import Test


def _because(value: Any, reason: str, *others: Any) -> Any:
    return field(default=value, metadata={"reason": reason, "others": others})


@dataclass(frozen=True)
class Thresholds:
    """Of all claims; the test is one of the choices, too."""

    test: Test = _because("sign", "exact whatever the numbers' distribution", "student")
    visible: float = _because(
        0.02,
        "two curves that lie 2% of SGD's mean apart can be told apart in figure 2; C1, C2 and C7 alike",
        0.01,
        0.05,
    )
    reached: float = _because(0.01, "a loss below it draws as the paper's 0.0", 0.005, 0.02)
    nearly: float = _because(0.05, "of SGD's error; the paper's two differ by 0.3%", 0.02, 0.1)
    generally: float = _because(0.95, "of the audits; the paper says generally, not always", 0.9, 0.99)
    clear: float = _because(0.95, "a square root 5% below the uniform one's can be seen in figure 4", 0.9, 0.98)
    close: float = _because(0.1, "of the smallest of the three traces", 0.05, 0.2)
    detectable: float = _because(0.1, "an excess that the draws must have been able to show", 0.05, 0.2)


def named(thresholds: Thresholds) -> dict[str, dict[str, Any]]:
    """Each threshold's value and reason."""
    return {
        each.name: {"value": getattr(thresholds, each.name), "reason": each.metadata["reason"]}
        for each in fields(thresholds)
    }


def variations() -> dict[str, Thresholds]:
    """The same with one of them changed: "visible = 0.01" -> thresholds."""
    return {
        f"{each.name} = {other}": Thresholds(**{each.name: other})
        for each in fields(Thresholds)
        for other in each.metadata["others"]
    }
