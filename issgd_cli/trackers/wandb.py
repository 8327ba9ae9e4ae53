"""Weights & Biases: with an account, or under WANDB_MODE=offline in the run's own folder."""

from collections.abc import Mapping

import wandb

from issgd_cli.runs.folder import RunFolder
from issgd_cli.trackers.tracker import Tracker, described


class WandB(Tracker):
    """One of W&B's runs, always a new one: it takes nothing back."""

    def __init__(self, folder: RunFolder) -> None:
        settings = wandb.Settings(console="off")  # what is printed here may be of several runs
        self._run = wandb.init(**described(folder), dir=str(folder.path), reinit="create_new", settings=settings)
        # Its own steps may only grow: audits, which come last, would be refused.
        self._run.define_metric("*", step_metric="step")

    @staticmethod
    def sign_in() -> None:
        wandb.login()

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, "seconds": seconds, **values})

    def close(self) -> None:
        self._run.finish()
