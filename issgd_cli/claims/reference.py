"""A fresh experiment beside the committed reference: whether verdicts agree, and whether seeds explain the rest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
            numbers and claims are compared; None where none can be.
        number: Which of the claim's numbers that is.
        only_there, only_here: Folders of the runs that it is made of on one side alone: then nothing is compared.
    """

    claim: str
    there: str
    here: str
    p: float | None = None
    number: str = ""
    only_there: tuple[str, ...] = ()
    only_here: tuple[str, ...] = ()

    @property
    def said(self) -> Literal["agrees", "differs", "new", "other runs"]:
        """Whether both say the same; a verdict and the suggestion of it do."""
        if not self.there:
            return "new"
        if self.only_there or self.only_here:
            return "other runs"
        return "agrees" if self.there.split()[-1] == self.here.split()[-1] else "differs"

    @property
    def explained(self) -> bool:
        """Whether the numbers differ by no more than seeds do."""
        return self.p is None or self.p >= LEVEL


def read(path: Path) -> dict[str, Any]:
    """A reference's claims.json. An older one names no folders: those of its manifests.json stand for every claim's.

    Raises:
        RunError: It cannot be read.
    """
    try:
        found = json.loads(read_text(path, LONGEST))
        if not isinstance(found, dict) or not isinstance(found.get("claims"), list):
            raise ValueError("it lists no claims")
        for claim in found["claims"]:
            if not isinstance(claim, dict) or not all(isinstance(claim.get(key), str) for key in ("id", "verdict")):
                raise ValueError("one of its claims has no id or no verdict")
            if not isinstance(claim.get("values", {}), dict):
                raise ValueError("one of its claims has values without names")
            list(_numbers(claim.get("values", {})))
        if any("folders" not in claim for claim in found["claims"]):
            manifests = json.loads(read_text(path.with_name("manifests.json"), LONGEST))
            found["folders"] = sorted({name.split("/")[-2] for name in manifests})
        return found
    except (OSError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise RunError(
            f"{path} is no claims.json of a reference: {error}. Take it from the repository again."
        ) from None


def compared(
    verdicts: Sequence[Verdict], folders: Mapping[str, Sequence[str]], reference: Mapping[str, Any]
) -> list[Compared]:
    """Each claim beside the reference's, as far as both are of the same runs but for the seeds.

    Args:
        verdicts: Of the runs here.
        folders: Claim -> those of the runs that its numbers are made of.
        reference: Content of the reference's claims.json, as `read` gives it.
    """
    known = {claim["id"]: claim for claim in reference["claims"]}
    everywhere = {folder for some in folders.values() for folder in some}
    rows = []
    for verdict in verdicts:
        claim = known.get(verdict.claim.id)
        if claim is None:
            rows.append(Compared(verdict.claim.id, "", verdict.verdict))
            continue
        row = Compared(verdict.claim.id, claim["verdict"], verdict.verdict)
        there = set(claim.get("folders", reference.get("folders", ())))
        here = set(folders[verdict.claim.id]) if "folders" in claim else everywhere
        if there != here:
            rows.append(replace(row, only_there=tuple(sorted(there - here)), only_here=tuple(sorted(here - there))))
        else:
            rows.append(_numbers_compared(row, dict(_numbers(claim.get("values", {}))), dict(_numbers(verdict.values))))
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p=float(next(adjusted))) for row in rows]


def other_runs(rows: Sequence[Compared]) -> str:
    """What to say where the reference is of other runs than these, in one sentence; empty where it is of the same."""
    others = [row for row in rows if row.said == "other runs"]
    if not others:
        return ""
    sides = {
        "only there": sorted({folder for row in others for folder in row.only_there}),
        "only here": sorted({folder for row in others for folder in row.only_here}),
    }
    told = "; ".join(f"{side}: {', '.join(folders)}" for side, folders in sides.items() if folders)
    claims = ", ".join(row.claim for row in others)
    return f"The reference is of other runs than these ({told}), so that {claims} cannot be compared."


def as_markdown(rows: Sequence[Compared]) -> str:
    """The table, and before it what cannot be compared."""
    lines = ["| claim | reference | here | | the numbers |", "|---|---|---|---|---|"]
    for row in rows:
        if row.p is None:
            numbers = "none to compare"
        elif row.explained:
            numbers = f"no further apart than seeds explain (p = {row.p:.2g})"
        else:
            numbers = f"**further apart than seeds explain**: {row.number} (p = {row.p:.2g})"
        said = "**differs**" if row.said == "differs" else row.said
        lines.append(f"| {row.claim} | {row.there or '-'} | {row.here} | {said} | {numbers} |")
    head = other_runs(rows)
    return "\n".join([*([head, ""] if head else []), *lines]) + "\n"


def _numbers(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Float64s]]:
    """Every number that has one value a seed, by where it stands: a.relative_difference.

    "inf" and "-inf", as a file has them, are of runs that diverged; what is null or no number is left out.
    """
    if "seeds" in values and "values" in values:
        array = np.array([np.nan if value is None else float(value) for value in values["values"]], np.float64)
        if len(array) and not np.isnan(array).any():
            yield path, array
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}.{name}" if path else str(name))


def _numbers_compared(row: Compared, there: Mapping[str, Float64s], here: Mapping[str, Float64s]) -> Compared:
    """With the number that lies furthest apart, of those that both sides have."""
    shared = [name for name in here if name in there]
    if not shared:
        return row
    adjusted = holm([_apart(there[name], here[name]) for name in shared])
    place = int(np.argmin(adjusted))
    return replace(row, p=float(adjusted[place]), number=shared[place])


def _apart(there: Float64s, here: Float64s) -> float:
    """Two-sided p-value of the two samples' being from one distribution (Mann and Whitney); 1 where they are equal."""
    from scipy.stats import mannwhitneyu

    if np.array_equal(there, here):
        return 1.0
    return float(mannwhitneyu(there, here, alternative="two-sided").pvalue)
