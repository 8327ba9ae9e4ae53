"""`make chaos`: faults of all kinds upon an exact run and a relaxed one, and what is left of the runs, as a table."""

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from issgd_cli import datasets
from issgd_cli.cli.screen import duration
from issgd_cli.files import write_text
from tests.benchmarks.report import checkout, machine
from tests.chaos.faults import FAULTS
from tests.chaos.run import Run
from tests.chaos.soak import SETTINGS, Outcome, plan, soak

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "chaos"
# Of the master: some seconds, so that a fault meets a run that has got over the one before. A relaxed master trains on
# while its database is frozen, so it is given more to do.
STEPS_A_FAULT = {"exact": 160, "relaxed": 500}
LARGER = ("--set", "model.hidden=[256, 256]")


def chaos(place: Path, data_dir: Path, mode: str, kinds: list[str], random: np.random.Generator) -> Outcome:
    """One run of a mode under these faults."""
    steps = STEPS_A_FAULT[mode] * (len(kinds) + 2)
    settings = (*SETTINGS, *(LARGER if mode == "relaxed" else ()), "--mode", mode, "--steps", str(steps))
    audited = (*settings, "--set", f"monitor.audit_every_steps={steps // 20}")
    return soak(Run(place, data_dir, mode, audited), mode, kinds, steps, random)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """By kind of fault: how often it struck, and how often it was survived; then how the runs ended."""
    struck = [one for outcome in outcomes for one in outcome.struck]
    counts = Counter((one.kind, one.survived) for one in struck)
    lines = [
        "| fault | injected | survived | of those, after `--resume` | longest way back |",
        "|---|---|---|---|---|",
    ]
    for kind in FAULTS:
        ways = [one.seconds for one in struck if one.kind == kind]
        alone, resumed = counts[kind, "alone"], counts[kind, "resumed"]
        longest = f"{max(ways):.1f} s" if ways else "-"
        lines.append(f"| {kind} | {len(ways)} | {alone + resumed} | {resumed} | {longest} |")
    survived = sum(counts[key] for key in counts if key[1] in ("alone", "resumed"))
    lines += [f"| all | {len(struck)} | {survived} | {sum(o.survived == 'resumed' for o in struck)} | |", ""]
    lines += [
        "| run | faults | ended as | rows of trace | rows lost | rows wrong or twice | events twice | trace equal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        equal = "to the bit" if one.lost == one.extra == 0 else "NO"
        lines.append(
            f"| {one.mode} | {len(one.struck)} | {one.state} | {one.rows} | {one.lost} | {one.extra} | "
            f"{one.doubled_events} | {equal if one.mode == 'exact' else 'not promised'} |"
        )
    return lines


def page(outcomes: Sequence[Outcome], faults: int, seed: int, took: float) -> str:
    """results/reference/chaos/README.md."""
    about = machine()
    failed = [one for outcome in outcomes for one in outcome.struck if one.survived not in ("alone", "resumed")]
    lines = [
        "# A soak of faults",
        "",
        f"`make chaos` with seed {seed}: {faults} faults upon an exact run and a relaxed one, with real processes and "
        f"a real server, in {duration(took)} on {about['cpu']}, {about['cores']} cores. A fault strikes when the run "
        "has got over the one before; it is survived when the trace goes on past where it struck. Of faults that no "
        "run can survive by itself, such as a full disk, the run must end saying so, and `--resume` must go on.",
        "",
        *table(outcomes),
        "",
        "The exact run's trace is compared with an undisturbed run's, row by row and to the bit, but for seconds and "
        "`work/*`: rows lost are that one's which it lacks. A relaxed run is never the same twice: rows lost are "
        "audits that it lacks, of those due at every twentieth of its steps.",
        "",
    ]
    if failed:
        lines += ["Not survived:", "", *(f"- {one.kind} at step {one.step}: {one.survived}" for one in failed), ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks both runs, and keeps what is found; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=110, help="in all, half of them upon each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--keep", type=Path, help="a folder for the runs, to look at; else they are removed")
    options = parser.parse_args(arguments)
    place = options.keep or Path(tempfile.mkdtemp(prefix="issgd-chaos-"))
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        data_dir = place / "data"
        datasets.prepare("house-numbers", data_dir, size=2400)
        outcomes = []
        for number, mode in enumerate(("exact", "relaxed")):
            random = np.random.default_rng([options.seed, number])
            kinds = plan(list(FAULTS), options.faults // 2, random)
            outcomes.append(chaos(place, data_dir, mode, kinds, random))
    finally:
        if options.keep is None:
            shutil.rmtree(place, ignore_errors=True)
    took = time.monotonic() - started
    print("\n".join(table(outcomes)))
    content = {
        "command": "make chaos",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": checkout(),
        "machine": machine(),
        "seed": options.seed,
        "seconds": round(took),
        "runs": [asdict(outcome) for outcome in outcomes],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "chaos.json", json.dumps(content, indent=1) + "\n")
    write_text(options.results / "README.md", page(outcomes, sum(len(o.struck) for o in outcomes), options.seed, took))
    return 0 if all(outcome.is_whole for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
