"""How biased is OMIS, and what does it gain? `python -m tests.benchmarks.bias` lists all draws of tiny problems.

Five examples and two parameters, each with a proposal of its own, as the paper has it: p_j in proportion to the
gradient's j-th part. Gradients are normal, of norms spread over two orders of magnitude. Nothing is trained: parameters
and proposals stay as they are, and the mean gradient of the five is what is to be estimated.

- Of one minibatch (beta = 0) every draw there is, with its chance: bias and mean squared error are exact.
- With what is remembered they are of a long chain of minibatches, beside momentum of the same strength on the balance
  heuristic's gradients: a running mean with the same beta.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from issgd_cli.equations import salaun2024
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.files import write_text

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "omis"
EXAMPLES, PROPOSALS, PROBLEMS = 5, 2, 20
DRAWS = (1, 2, 3)  # of each proposal
RIDGES = (1e-6, 1e-3, 1e-2, 1e-1, 1.0)
BETA, MINIBATCHES, BEFORE = 0.7, 4000, 40
MIS, OMIS, CORRECTED = "mis", "omis", "omis, unbiased"
# Name -> which estimate, and whether momentum is added.
CHAINED = {
    MIS: (MIS, False),
    f"{MIS} + momentum": (MIS, True),
    OMIS: (OMIS, False),
    CORRECTED: (CORRECTED, False),
    f"{CORRECTED} + momentum": (CORRECTED, True),
}


class Problem(NamedTuple):
    """Gradients, shape (5, 2), and what their proposals give for n draws each; see salaun2024 for the names."""

    gradients: Float64s
    chances: Float64s
    n: Float64s
    mixture: Float64s
    shares: Float64s

    @property
    def mean(self) -> Float64s:
        """What is to be estimated."""
        return np.asarray(self.gradients.mean(0))


class Found(NamedTuple):
    """Of an estimate: its bias and its mean squared error, over the mean gradient's norm and its square."""

    bias: float
    error: float


def problem(seed: int, draws: int) -> Problem:
    """One of them, with so many draws of each proposal."""
    random = np.random.default_rng(seed)
    gradients = random.normal(0.3, 1.0, (EXAMPLES, PROPOSALS)) * 10 ** random.uniform(-1, 1, (EXAMPLES, 1))
    chances = np.abs(gradients).T / np.abs(gradients).sum(0)[:, None]
    n = np.full(PROPOSALS, float(draws))
    mixture = salaun2024.mixture(chances, n)
    return Problem(gradients, chances, n, mixture, salaun2024.shares(chances, mixture))


def minibatches(given: Problem) -> Iterator[tuple[list[int], float]]:
    """All that may be drawn, whatever the order, and their chances."""
    draws = int(given.n[0])
    of_each = [list(itertools.combinations_with_replacement(range(EXAMPLES), draws))] * PROPOSALS
    for parts in itertools.product(*of_each):
        chance = 1.0
        for chances, part in zip(given.chances, parts, strict=True):
            orders = math.factorial(draws) / math.prod(math.factorial(part.count(i)) for i in set(part))
            chance *= orders * chances[list(part)].prod()
        yield [i for part in parts for i in part], chance


def balance(given: Problem, drawn: list[int]) -> Float64s:
    """The balance heuristic's estimate of the mean gradient."""
    return np.asarray(salaun2024.balance_factors(given.mixture[drawn], EXAMPLES) @ given.gradients[drawn])


def optimal(given: Problem, drawn: list[int], ridge: float) -> Float64s:
    """OMIS's, for beta = 0."""
    shares = given.shares[:, drawn]
    w = salaun2024.multipliers(salaun2024.sampled_matrix(shares), given.n, ridge)
    return np.asarray(salaun2024.coefficients(w, shares, given.mixture[drawn]) @ given.gradients[drawn] / EXAMPLES)


def listed(given: Problem, estimate: Callable[[list[int]], Float64s]) -> Found:
    """Exactly, over all minibatches."""
    drawn = list(minibatches(given))
    odds, found = np.array([chance for _, chance in drawn]), np.array([estimate(each) for each, _ in drawn])
    return _found(given, odds @ found, float(odds @ np.square(found - given.mean).sum(1)))


def chained(given: Problem, seed: int, ridge: float) -> dict[str, Found]:
    """Over a long chain of minibatches of each estimate, and of its running mean where it has none of its own."""
    random = np.random.default_rng([seed, 1])
    by = np.repeat(np.arange(PROPOSALS), given.n.astype(int))
    matrix, b = np.zeros((PROPOSALS, PROPOSALS)), np.zeros((PROPOSALS, PROPOSALS))
    found: dict[str, list[Float64s]] = {name: [] for name in CHAINED}
    running = {name: np.zeros(PROPOSALS) for name in CHAINED}
    for number in range(BEFORE + MINIBATCHES):
        drawn = [int(random.choice(EXAMPLES, p=given.chances[j])) for j in by]
        shares, gradients = given.shares[:, drawn], given.gradients[drawn]
        a = salaun2024.solution(matrix, b, ridge) if number else b
        corrected = salaun2024.control_variate(gradients, given.chances[:, drawn], given.mixture[drawn], a) / EXAMPLES
        rate = (1 - BETA) / (1 - BETA ** (number + 1))
        matrix = matrix + rate * (salaun2024.sampled_matrix(shares) - matrix)
        b = b + rate * (shares / given.mixture[drawn] @ gradients - b)
        now = {
            MIS: balance(given, drawn),
            OMIS: salaun2024.multipliers(matrix, given.n, ridge) @ b / EXAMPLES,
            CORRECTED: corrected,
        }
        for name, (source, is_averaged) in CHAINED.items():
            running[name] = running[name] + (rate if is_averaged else 1.0) * (now[source] - running[name])
            if number >= BEFORE:
                found[name].append(running[name])
    return {
        name: _found(given, np.mean(each, 0), float(np.square(np.array(each) - given.mean).sum(1).mean()))
        for name, each in found.items()
    }


def _found(given: Problem, mean: Float64s, error: float) -> Found:
    norm = float(np.linalg.norm(given.mean))
    return Found(float(np.linalg.norm(mean - given.mean)) / norm, error / norm**2)


def table(draws: Sequence[int] = DRAWS) -> list[list[str]]:
    """Rows of bias and error by draws of each proposal and by ridge: medians over the problems."""
    rows = []
    for each in draws:
        problems = [problem(seed, each) for seed in range(PROBLEMS)]
        of_balance = _median([listed(given, partial(balance, given)) for given in problems])
        rows.append([str(each), MIS, *_cells(of_balance)])
        for ridge in RIDGES:
            found = [listed(given, partial(optimal, given, ridge=ridge)) for given in problems]
            rows.append([str(each), f"omis, ridge {ridge:g}", *_cells(_median(found))])
    return rows


def chain_table(draws: int = 2, ridge: float = 1e-2) -> list[list[str]]:
    """Rows of bias and error with beta = .7: medians over the problems."""
    found = [chained(problem(seed, draws), seed, ridge) for seed in range(PROBLEMS)]
    return [[name, *_cells(_median([each[name] for each in found]))] for name in CHAINED]


def _median(found: Sequence[Found]) -> Found:
    return Found(*np.median(np.array(found), 0).tolist())


def _cells(found: Found) -> tuple[str, str]:
    return f"{found.bias:.2f}", f"{found.error:.3g}"


def page() -> str:
    """What is kept, for people."""
    doc = (__doc__ or "").partition("\n\n")[2]
    head = ["bias / norm", "error / norm^2"]
    lines = ["# OMIS: bias and mean squared error", "", doc.rstrip(), "", f"Medians over {PROBLEMS} problems."]
    lines += ["", "## One minibatch, by draws of each proposal and by ridge", ""]
    lines += _markdown(["draws", "estimate", *head], table())
    lines += ["", f"## Chains: two draws of each proposal, beta = {BETA}, ridge 0.01", ""]
    lines += _markdown(["estimate", *head], chain_table())
    lines += ["", f"A chain is of {MINIBATCHES:,} minibatches: a bias below about 0.03 may be noise."]
    return "\n".join([*lines, "", "Made by `python -m tests.benchmarks.bias`."]) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Lists, and keeps the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bias", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the page goes")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    text = page()
    write_text(options.results / "README.md", text)
    print(text)


if __name__ == "__main__":
    main()
