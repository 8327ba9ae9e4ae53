"""Which packages give right per-example gradient norms where: `python -m tests.benchmarks.conformance` asks them.

Each small network of situations.py is given to each package; what it says is held against plain autograd, one example
after the other. Your own package is asked, too, with `--peer module:function`, where the function is given
a model, which it may change, and returns a function of inputs and labels that returns peers.Found: the squared norms
of each example's own cross-entropy.
"""

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from issgd_cli.files import write_text
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from tests.benchmarks.peers import PEERS, Found, Peer, Standing, Way, one_by_one, standing
from tests.benchmarks.report import RESULTS, commit
from tests.benchmarks.situations import LAYERS, SITUATIONS, USES, Situation

# Of the squares: float32 rounds these small networks' to a hundredth of that.
TOLERANCE = 1e-4
NAME = "conformance"


def issgd(model: nn.Module) -> Way:
    """Ours."""
    return lambda inputs, labels: Found(score(cross_entropy, model, inputs, labels).squared_norms)


OURS = Peer("issgd", "issgd", issgd)


class Answer(NamedTuple):
    """What one package says of one situation."""

    situation: str
    package: str
    outcome: str
    why: str

    @property
    def cell(self) -> str:
        """Of the table."""
        return f"**{self.outcome}**" if self.outcome == "silently wrong" else self.outcome


def ask(peer: Peer, situation: Situation) -> Standing:
    """How a package does; it must be installed."""
    expected = None if situation.mixes else one_by_one(*situation.made(torch.float64))

    def found() -> Found:
        model, inputs, labels = situation.made()
        return peer.build(model)(inputs, labels)

    return standing(found, expected, TOLERANCE)


def answers(peers: Iterable[Peer], situations: Sequence[Situation] = tuple(SITUATIONS.values())) -> list[Answer]:
    """Of every package in every situation."""
    return [Answer(situation.name, peer.name, *ask(peer, situation)) for peer in peers for situation in situations]


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Of each way, the package that it is of, for people; ours is this commit."""
    return {
        peer.name: f"commit {commit()[:12]}" if peer is OURS else f"{peer.package} {peer.version or 'not installed'}"
        for peer in peers
    }


def markdown(found: Sequence[Answer], named: Mapping[str, str]) -> str:
    """The answers as a page."""
    by_place = {(answer.situation, answer.package): answer for answer in found}
    ways = list(dict.fromkeys(answer.package for answer in found))
    lines = [
        "# Conformance: who gives right gradient norms where",
        "",
        f"`python -m tests.benchmarks.{NAME}` has written this page: {len(SITUATIONS)} small networks with "
        "cross-entropy, of which each way below is asked for each example's squared gradient norm.",
        "",
        f"right: in float32, within {TOLERANCE:g} of plain autograd's in float64, one example after the other. "
        "refuses: raises an error, or gives parts that can't be added. **silently wrong**: gives other norms without "
        "an error, or none for a parameter that has a gradient. Where the examples of a minibatch are mixed, none has "
        "a gradient of its own, and only a refusal is right: vmap takes each for a minibatch of one.",
        "",
        f"| way | of | {' | '.join(('right', 'refuses', 'silently wrong'))} |",
        "|---|---|---|---|---|",
    ]
    for way in ways:
        counted = Counter(answer.outcome for answer in found if answer.package == way)
        counts = (str(counted[outcome]) for outcome in ("right", "refuses", "silently wrong"))
        lines.append(f"| {' | '.join((way, named[way], *counts))} |")
    lines += [f"\n{name} ({of}): not asked." for name, of in named.items() if name not in ways]
    for title, group in (("Layers", LAYERS), ("Uses", USES)):
        lines += ["", f"## {title}", "", f"| | {' | '.join(ways)} |", f"|{'---|' * (1 + len(ways))}"]
        for situation in group:
            cells = [by_place[situation.name, way].cell for way in ways]
            said = f"{situation.name} (to be refused)" if situation.mixes else situation.name
            lines.append(f"| {' | '.join([said, *cells])} |")
    lines += ["", "## Why", ""]
    for answer in found:
        if answer.why:
            why = answer.why.replace("|", "\\|").replace("<", "\\<")
            lines.append(f"- {answer.package}, {answer.situation}: {answer.outcome}: {why}")
    return "\n".join(lines) + "\n"


def write(directory: Path, found: Sequence[Answer], named: Mapping[str, str]) -> tuple[Path, Path]:
    """The page, and the same as JSON."""
    when = {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}
    content = {**when, "tolerance": TOLERANCE, "ways": dict(named), "answers": [answer._asdict() for answer in found]}
    directory.mkdir(parents=True, exist_ok=True)
    table, numbers = directory / f"{NAME}.md", directory / f"{NAME}.json"
    write_text(table, markdown(found, named))
    write_text(numbers, json.dumps(content, indent=1) + "\n")
    return table, numbers


def named_peer(name: str) -> Peer:
    """Of `module:function`."""
    module, _, function = name.partition(":")
    return Peer(name, module.partition(".")[0], getattr(importlib.import_module(module), function))


def main(arguments: Sequence[str]) -> None:
    """Asks all that are installed, and writes what they say."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{NAME}", description=__doc__)
    parser.add_argument("--peer", action="append", default=[], metavar="module:function", help="another way to ask")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    options = parser.parse_args(arguments)
    peers: list[Peer] = [OURS, *PEERS, *map(named_peer, options.peer)]
    asked = [peer for peer in peers if peer is OURS or peer.version is not None or peer.name in options.peer]
    for peer in peers:
        if peer not in asked:
            print(f"{peer.name} is not installed: pip install --constraint constraints.txt '.[bench]'")
    found = answers(asked)
    for path in write(options.results, found, versions(peers)):
        print(path.name)
    for way, outcomes in _counted(found).items():
        print(f"{way}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")


def _counted(found: Sequence[Answer]) -> dict[str, Counter[str]]:
    ways = dict.fromkeys(answer.package for answer in found)
    return {way: Counter(answer.outcome for answer in found if answer.package == way) for way in ways}


if __name__ == "__main__":
    main(sys.argv[1:])
