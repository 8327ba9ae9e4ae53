"""The live screen shows what a run knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from issgd_cli.cli.screen import line, screen
from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.config.config import Config
from issgd_cli.runs.folder import RunFolder


def shown(config: Config, latest: dict[str, float], **told: Any) -> tuple[list[str], str]:
    """First word of each line of the screen; the one line elsewhere."""
    statuses: dict[str, dict[str, Any]] = {"monitor": {"latest": latest}, "master": {"step": 3, **told}}
    snapshot = Snapshot(seconds=1.0, statuses=statuses)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(screen(config, RunFolder(Path("run")), snapshot, {}))
    return [text.split()[0] for text in capture.get().splitlines() if text.strip()], line(config, snapshot, {})


def test_errors_have_a_row_unless_the_loss_knows_none(configured: Callable[..., Config]) -> None:
    config = configured()
    assert "error" in shown(config, {})[0]
    rows, text = shown(config, {"loss/train": 0.5, "error/train": 0.25, "error/valid": 0.3})
    assert {"loss", "error"} <= {*rows}
    assert "valid error 0.3000" in text
    rows, text = shown(config, {"loss/train": 0.5})
    assert "loss" in rows
    assert "error" not in rows
    assert "error" not in text


def test_where_nobody_scores_the_last_minibatchs_loss_is_shown(configured: Callable[..., Config]) -> None:
    rows, text = shown(configured(), {}, loss=1.25)
    assert "last" in rows
    assert "last minibatch's loss 1.2500" in text
    rows, text = shown(configured(), {"loss/train": 0.5}, loss=1.25)
    assert "last" not in rows
    assert "loss 0.5000" in text
    assert "minibatch" not in text
    assert "minibatch" not in shown(configured(), {}, loss=None)[1]
