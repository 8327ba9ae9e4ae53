"""The page of all seeds: what was injected, what was survived, what is left."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from issgd_cli.cli.screen import duration
from issgd_cli.files import write_text
from tests.chaos.faults import FAULTS
from tests.chaos.sitting import Seed
from tests.chaos.soak import HASTE, Outcome

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "chaos"


def write_page(results: Path) -> str:
    """Makes README.md of a folder anew, from all seed-*.json and peers-seed-*.json there; returns its text."""
    names = {path: path.stem.rpartition("seed-") for path in results.glob("*seed-*.json")}
    paths = sorted(names, key=lambda path: (names[path][0], int(names[path][2])))
    text = page([Seed.read(path) for path in paths])
    write_text(results / "README.md", text)
    return text


def page(seeds: Sequence[Seed]) -> str:
    """The text, in Markdown."""
    return "\n".join(["# A soak of faults", "", *_total(seeds), "", *_method(), "", *table(seeds), "", *_flaws(seeds)])


def _total(seeds: Sequence[Seed]) -> list[str]:
    """All in all, in one paragraph."""
    runs = [run for seed in seeds for run in seed.runs]
    struck = [one for run in runs for one in run.struck]
    how = Counter(one.survived if one.is_survived else "not" for one in struck)
    exact = [run for run in runs if run.mode == "exact"]
    same = sum(is_equal(run) for run in exact)
    machines = dict.fromkeys(f"{seed.machine['cpu']}, {seed.machine['cores']} cores" for seed in seeds)
    commits = list(dict.fromkeys(commit for seed in seeds for commit in seed.commits))
    named = ", ".join(f"{commit[:12]}{' with changes' if commit.endswith('+') else ''}" for commit in commits)
    asked = sum(seed.faults for seed in seeds)
    return [
        f"{asked:,} faults planned under {_count(len(seeds), 'seed')}, {len(struck):,} injected into "
        f"{_count(len(runs), 'run')}: the run survived {how['alone']:,} of them alone and {how['resumed']:,} after "
        f"`--resume`; {how['not']:,} it did not, and {asked - len(struck):,} could not be injected. "
        f"{sum(run.lost for run in runs):,} rows of {sum(run.rows for run in runs):,} lost, "
        f"{sum(run.extra for run in runs):,} wrong or twice, {sum(run.doubled_events for run in runs):,} events twice; "
        f"{same} of {_count(len(exact), 'exact trace')} equal to the undisturbed one's to the bit.",
        "",
        f"It took {duration(sum(seed.seconds for seed in seeds))}, all seeds together, some of them side by side, on "
        f"{' and on '.join(machines)}. "
        + (f"Not all of it ran on the same code: commits {named}." if len(commits) > 1 else f"Commit {named}."),
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")


def _method() -> list[str]:
    """What a reader must know to judge the tables."""
    rare = [f"{kind} in one of {fault.every} rounds" for kind, fault in FAULTS.items() if fault.every > 1]
    return [
        "`make chaos SEED=1 FAULTS=200` does one seed: half of its faults upon exact runs, half upon relaxed ones, one "
        "run after the other, with real processes and a real server. With MODES=peers all strike relaxed runs of two "
        "peers and a parameter server: a peer where it says worker, the parameter server where it says master; and "
        "what cannot be true are gradients, too. A fault strikes at a step drawn from the seed, "
        f"when the run has got over the one before; one in {1 / HASTE:.0f} strikes a launcher that has just been "
        "killed and resumed instead. Starting: the launcher had not yet started its master when the fault struck. Each "
        f"kind comes once in a round, but {', '.join(rare)}. A fault is survived when the trace goes on past where it "
        "struck. Of faults that no run can survive by itself, such as a full disk, the run must end saying so, with "
        "the right exit status, and `--resume` must go on. One that is not survived is noted, the run is repaired and "
        "resumed, and the soak goes on.",
        "",
        "An exact run's trace is compared with an undisturbed run's, row by row and to the bit, but for seconds and "
        "`work/*`: rows lost are that one's which it lacks. A relaxed run is never the same twice: rows lost are "
        "audits that it lacks, of those due at every tenth of its steps.",
    ]


def table(seeds: Sequence[Seed]) -> list[str]:
    """By kind of fault: how often it struck, and how often it was survived; then how the runs ended."""
    struck = [one for seed in seeds for one in seed.struck()]
    lines = [
        "| fault | injected | starting | survived alone | after `--resume` | not survived | longest way back |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in [*FAULTS, "all"]:
        these = [one for one in struck if kind in (one.kind, "all")]
        counts = Counter(one.survived for one in these)
        alone, resumed, starting = counts["alone"], counts["resumed"], sum(one.moment == "starting" for one in these)
        longest = f"{max(one.seconds for one in these):.1f} s" if these else "-"
        cells = (kind, len(these), starting, alone, resumed, len(these) - alone - resumed, longest)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "| seed | runs | faults | ended as | rows of trace | rows lost | rows wrong or twice | events twice "
        "| traces equal | took |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in seeds:
        for mode in dict.fromkeys(run.mode for run in seed.runs):
            runs = [run for run in seed.runs if run.mode == mode]
            same = f"{sum(map(is_equal, runs))} of {len(runs)}, to the bit" if mode == "exact" else "not promised"
            states = Counter("lost" if run.is_lost else run.state for run in runs)
            row = (
                *(seed.seed, f"{len(runs)} {'of ' * (mode == 'peers')}{mode}", sum(len(run.struck) for run in runs)),
                ", ".join(f"{count} {state}" for state, count in states.items()),
                *(sum(run.rows for run in runs), sum(run.lost for run in runs), sum(run.extra for run in runs)),
                *(sum(run.doubled_events for run in runs), same, duration(seed.seconds)),
            )
            lines.append(f"| {' | '.join(map(str, row))} |")
    return lines


def is_equal(run: Outcome) -> bool:
    """Whether an exact run has left the undisturbed one's trace."""
    return run.state == "finished" and run.lost == run.extra == 0


def _flaws(seeds: Sequence[Seed]) -> list[str]:
    """Everything that was not survived, with the reason."""
    lines = [
        f"- seed {seed.seed}, {run.name}, step {one.step}, {one.moment or 'before'}: {one.kind}: {one.survived}"
        for seed in seeds
        for run in seed.runs
        for one in run.struck
        if not one.is_survived
    ]
    lines += [
        f"- seed {seed.seed}, {run.name}: {run.state}" for seed in seeds for run in seed.runs if run.state != "finished"
    ]
    return ["Not survived:", "", *lines, ""] if lines else []
