"""report.md of an experiment on several datasets: where each one's report is, and its verdicts side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.verdicts import Verdict
from issgd_cli.figures import style
from issgd_cli.files import write_text, writing

Judged = Mapping[str, tuple[Runs, Sequence[Verdict]]]


def write(judged: Judged, out: Path, board: Sequence[str] = ()) -> Path:
    """Writes `page` as report.md beside the datasets' folders."""
    path = out / "report.md"
    with writing(path, style.ELSEWHERE):
        write_text(path, page(judged, board))
    return path


def page(judged: Judged, board: Sequence[str] = ()) -> str:
    """The page as Markdown.

    Args:
        judged: Dataset -> its runs, and the verdict on each claim; no verdicts where there are no runs yet.
        board: What the scoreboard of all of them says, where there is one.
    """
    verdicts = {
        dataset: {verdict.claim: verdict.verdict for verdict in found}
        for dataset, (_, found) in judged.items()
        if found
    }
    claims = list(dict.fromkeys(claim for found in verdicts.values() for claim in found))
    rows = [["", "The paper says", *verdicts], ["---"] * (2 + len(verdicts))]
    for claim in claims:
        rows.append([claim.id, claim.statement, *(found.get(claim, "") for found in verdicts.values())])
    name = next(runs.name for runs, _ in judged.values() if runs.name).partition("/")[0]
    sections = [
        f"# {name}: its datasets, each by itself",
        *_of_board(board),
        "Runs on different datasets are never compared with each other: each has its own report, figures, table and "
        "claims.",
        "\n".join(_line(dataset, runs) for dataset, (runs, _) in judged.items()),
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n\n".join(sections) + "\n"


def _of_board(board: Sequence[str]) -> list[str]:
    if not board:
        return []
    picture = "![Work to get where reshuffled SGD gets](board.png)"
    return [picture, "\n".join(f"- {line}" for line in board), "The tables: [board.md](board.md)."]


def _line(dataset: str, runs: Runs) -> str:
    """Where its report is, on what data, and how many runs."""
    if not runs.runs:
        return f"- {dataset}: {runs.tally()}."
    data = ", ".join(dict.fromkeys(run.config.data.name for run in runs.runs))
    return f"- [{dataset}]({dataset}/report.md){'' if data == dataset else f' ({data})'}: {runs.tally()}."
