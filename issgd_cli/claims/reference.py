"""A fresh experiment beside the committed reference: whether verdicts agree, and whether seeds explain the rest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from issgd_cli.claims.chances import LEVEL, holm
from issgd_cli.claims.verdicts import Verdict
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import RunError
from issgd_cli.files import read_text

LONGEST = 16 * 2**20  # bytes of a claims.json


@dataclass(frozen=True)
class Compared:
    """A claim, there and here.

    Attributes:
        claim: Its id.
        there, here: The verdicts; `there` is empty where the reference does not know the claim.
        p: The chance that seeds alone set the claim's numbers so far apart, the smallest of them, adjusted for how many
            are compared; None where none can be.
        number: Which of the claim's numbers that is.
    """

    claim: str
    there: str
    here: str
    p: float | None = None
    number: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both say the same; a verdict and the suggestion of it do."""
        return self.there.split()[-1:] == self.here.split()[-1:]

    @property
    def explained(self) -> bool:
        """Whether the numbers differ by no more than seeds do."""
        return self.p is None or self.p >= LEVEL


def read(path: Path) -> dict[str, Any]:
    """A reference's claims.json.

    Raises:
        RunError: It cannot be read.
    """
    try:
        found = json.loads(read_text(path, LONGEST))
        if not isinstance(found, dict) or not isinstance(found.get("claims"), list):
            raise ValueError("it lists no claims")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is no claims.json of a reference: {error}. Take it from the repository again."
        ) from None


def compared(verdicts: Sequence[Verdict], reference: Mapping[str, Any]) -> list[Compared]:
    """Each claim beside the reference's.

    Args:
        verdicts: Of the runs here.
        reference: Content of the reference's claims.json.
    """
    known = {claim["id"]: claim for claim in reference["claims"]}
    rows = []
    for verdict in verdicts:
        claim = known.get(verdict.claim.id)
        if claim is None:
            rows.append(Compared(verdict.claim.id, "", verdict.verdict))
            continue
        there, here = (dict(_numbers(values)) for values in (claim.get("values") or {}, verdict.values))
        shared = [name for name in here if name in there]
        p_values = [_apart(there[name], here[name]) for name in shared]
        p, number = (None, "") if not shared else _least(p_values, shared)
        rows.append(Compared(verdict.claim.id, str(claim["verdict"]), verdict.verdict, p, number))
    return rows


def as_markdown(rows: Sequence[Compared]) -> str:
    """The table."""
    lines = ["| claim | reference | here | | the numbers |", "|---|---|---|---|---|"]
    for row in rows:
        said = "agrees" if row.agrees else "**differs**" if row.there else "new"
        if row.p is None:
            numbers = "none to compare"
        elif row.explained:
            numbers = f"no further apart than seeds explain (p = {row.p:.2g})"
        else:
            numbers = f"**further apart than seeds explain**: {row.number} (p = {row.p:.2g})"
        lines.append(f"| {row.claim} | {row.there or '-'} | {row.here} | {said} | {numbers} |")
    return "\n".join(lines) + "\n"


def _numbers(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Float64s]]:
    """Every number that has one value a seed, by where it stands: a.relative_difference."""
    if "seeds" in values and "values" in values:
        array = np.array([np.nan if value is None else value for value in values["values"]], np.float64)
        if len(array) and not np.isnan(array).any():
            yield path, array
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}.{name}" if path else str(name))


def _apart(there: Float64s, here: Float64s) -> float:
    """Two-sided p-value of the two samples' being from one distribution (Mann and Whitney); 1 where they are equal."""
    from scipy.stats import mannwhitneyu

    if np.array_equal(there, here):
        return 1.0
    return float(mannwhitneyu(there, here, alternative="two-sided").pvalue)


def _least(p_values: Sequence[float], names: Sequence[str]) -> tuple[float, str]:
    adjusted = holm(p_values)
    place = int(np.argmin(adjusted))
    return float(adjusted[place]), names[place]
