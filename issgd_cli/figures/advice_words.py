"""advice.json in words and tables, for the screen and the page."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from issgd_cli.config.toml import toml_lines

Told = Mapping[str, Any]  # experiments/advice/record.py says what is in it

WIDTH = 100  # letters of a line on the screen

COLUMNS = (
    "sweep: steps until workers have scored all; Tr: a minibatch's variance, in a plain one's; survives: of the ideal "
    "gain; work: of steps and what is computed beside them, by workers too, in operations, as scoreboards count it; "
    "seconds: of the same on this device, one after the other, as timed now; sampling error: of work, from the trial's "
    "examples alone, while what is assumed may be off by more; begin to end: work, were all as then."
)

MODEL = (
    "A minibatch of B draws has a mean gradient whose expected square is |g|² + Tr/B, signal and variance. A second "
    "run, with larger minibatches and all else the same, shows which share s of the steps is there because of noise. "
    "For the same loss a method then takes 1 - s + s Tr/Tr(uniform) of the steps; where s is above 1, a power of "
    "Tr/Tr(uniform) that fits both runs. Work adds what is computed beside steps, in operations, and seconds how long "
    "that takes on this device. Tr is eq. 6 on the measured examples, by norms as old as the method's table would have "
    "held them, with the best smoothing under that staleness; of m draws from M examples that are looked at it is "
    "B (Tr(uniform)/M + Tr/m), and looking is taken to know where that pays. Assumed: the same losses and norms on the "
    "way, the same learning rate (less noise may bear a larger one), noise as harmful in any direction, systematic "
    "draws, which keep what reshuffling gains, and that after the trial all stays as at its last moment. None of that "
    "is in the sampling error, which is of the trial alone; and nothing is said of test errors."
)

# Of what no trial at a run's beginning can foretell.
TRYING = (
    "Or let the run find out: looking is reshuffled SGD until its loss falls slowly, which may be later than this "
    "trial; then it tries whether it pays to look at more examples than it trains on, and goes on as before where it "
    "does not."
)
LOOKING = {"proposal": {"method": "looking"}}


class Table(NamedTuple):
    """Of plain texts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def headline(told: Told) -> str:
    """What is advised, in a sentence."""
    choice = method(told, told["choice"])
    if choice["label"] == "reshuffled":
        return (
            f"Uniform draws (reshuffled SGD): nothing else promises to save {told['pays_from']:.0%} of the seconds on "
            f"this device, because {told['because']}."
        )
    return (
        f"Use {choice['name']}: it would take {choice['seconds']:.2f} of the seconds of reshuffled SGD on this device "
        f"(sampling error of the trial alone: {choice['seconds_low']:.2f} to {choice['seconds_high']:.2f}), and "
        f"{choice['work']:.2f} of the work, because {told['because']}."
    )


def trying(told: Told) -> str:
    """What may be done as well; empty where it is advised anyway."""
    return "" if method(told, told["choice"])["settings"] == LOOKING else TRYING


def spare(told: Told) -> str:
    """What workers on devices of their own would do; empty where that is nothing."""
    if told["quickest"] is None:
        return ""
    one = method(told, told["quickest"])
    return (
        f"With devices to spare, {one['name']}: {one['steps']:.2f} of the steps, and so of the time, at "
        f"{one['work']:.1f} times the work; a sweep takes {one['sweep_steps']:,.0f} steps."
    )


def method(told: Told, name: str) -> Mapping[str, Any]:
    """What is told of a method."""
    found: Mapping[str, Any] = next(one for one in told["methods"] if one["name"] == name)
    return found


def settings(told: Told, name: str) -> str:
    """The lines that a TOML file needs for a method."""
    return lines(method(told, name)["settings"])


def lines(settings: Mapping[str, Any]) -> str:
    """Of a TOML file."""
    return "\n".join(toml_lines(settings)).strip()


def what_was_run(told: Told) -> list[str]:
    """Of the trial, a line a fact."""
    trial, costs = told["trial"], told["costs"]
    planned = f" (of {trial['planned_steps']:,})" if trial["planned_steps"] > trial["steps"] else ""
    norms = "none (BatchNorm)" if costs["norms"] is None else _cost(costs["norms"])
    return [
        f"Trial: {trial['steps']:,} steps of reshuffled SGD{planned}, {trial['steps'] / trial['steps_an_epoch']:.1f} "
        f"epochs; learning rate {trial['learning_rate']:g}, minibatches of "
        f"{trial['minibatch_size']}, seed {trial['seed']}",
        f"Problem: {trial['network']} ({trial['parameters']:,} parameters), {trial['loss']}, on {trial['data']}; "
        f"{trial['measured']:,} of {trial['examples']:,} training examples measured",
        f"Costs on {trial['device']}: a step {costs['step_seconds']:.3g} s; in such steps, by operations | by seconds: "
        f"scoring a minibatch {_cost(costs['scoring'])}, keeping the norms of the trained one {norms}, a forward pass "
        f"{_cost(costs['look'])}, as many examples again {_cost(costs['larger'])}",
        _held_up(told),
    ]


def _cost(cost: Mapping[str, float]) -> str:
    """Small ones are told to the first digit that tells anything."""
    return f"{cost['work']:.2g} | {cost['seconds']:.2f}"


def _held_up(told: Told) -> str:
    shares, times = told["quieter"]["shares_of_noise"], told["quieter"]["times"]
    if not shares:
        return "Held up by noise: unknown, since the loss has hardly fallen"
    share = sum(shares) / len(shares)
    return (
        f"Held up by noise: s = {share:.2f} ({min(shares):.2f} to {max(shares):.2f}), the share of the steps that is "
        f"there because of it, by a second run with minibatches {times} times as large (1: in proportion to noise)"
    )


def moments(told: Told, what: str = "best") -> Table:
    """How uneven the norms are, and how fast they go stale; `what`: with the best smoothing, or `unsmoothed`."""
    ages = list(told["moments"][-1]["by_age"])
    smoothing = "with the best smoothing" if what == "best" else "unsmoothed"
    rows = [
        [
            f"{one['step']:,}",
            f"{one['epoch']:.1f}",
            f"{one['loss']:.3g}",
            f"{one['variance_share']:.0%}",
            f"{one['ideal']:.2f} ({one['ideal'] ** 0.5:.2f})",
            *(f"{one['by_age'][age][what]:.2f}" if age in one["by_age"] else "" for age in ages),
        ]
        for one in told["moments"]
    ]
    head = ["step", "epoch", "loss", "variance", "ideal (root)", *(f"{int(age):,}" for age in ages)]
    title = f"Tr(Sigma) in uniform draws', ideal and by norms so many steps old, {smoothing}"
    return Table(title, head, rows, "variance: its share of the expected square of a minibatch's mean gradient")


def methods(told: Told) -> Table:
    """What is predicted of each."""
    rows = [
        [
            one["name"],
            "" if one["sweep_steps"] is None else f"{one['sweep_steps']:,.0f}",
            f"{one['trace']:.2f}",
            "" if one["survives"] is None else f"{one['survives']:.0%}",
            f"{one['steps']:.2f}",
            f"{one['work']:.2f}",
            f"{one['seconds']:.2f}",
            f"{one['work_low']:.2f} to {one['work_high']:.2f}",
            f"{one['work_by_moment'][0]:.2f} to {one['work_by_moment'][-1]:.2f}",
        ]
        for one in told["methods"]
    ]
    head = ["method", "sweep", "Tr", "survives", "steps", "work", "seconds", "sampling error", "begin to end"]
    return Table("Predicted, to reach the training loss that reshuffled SGD reaches (1: as much)", head, rows, COLUMNS)


def screen(told: Told) -> str:
    """One screen of it."""
    parts = [
        "\n".join(map(_wrapped, what_was_run(told))),
        *(_aligned(table) for table in (moments(told), methods(told))),
        f"{_wrapped(headline(told))}\n{_indented(settings(told, told['choice']))}",
    ]
    if trying(told):
        parts.append(f"{_wrapped(trying(told))}\n{_indented(lines(LOOKING))}")
    if told["quickest"] is not None:
        parts.append(f"{_wrapped(spare(told))}\n{_indented(settings(told, told['quickest']))}")
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() if line)


def _aligned(table: Table) -> str:
    lines = [list(table.head), *map(list, table.rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.head))]
    is_name = table.head[0] == "method"
    texts = [
        "  ".join(
            cell.ljust(width) if place == 0 and is_name else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    note = textwrap.wrap(table.note, WIDTH - 2)
    return "\n".join([table.title, *(f"  {text}" for text in (*texts, *note))])
