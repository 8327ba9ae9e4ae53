"""Online importance sampling that gives examples up for good as training goes on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Fraction
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods import online
from issgd_cli.methods.method import Drawn, Refreshed, Seen
from issgd_cli.methods.table import Table
from issgd_cli.randomness import generator


class Settings(online.Settings):
    """The configuration's [pruning]: [online]'s, and these."""

    by: Literal["importance", "random", "none"] = "importance"
    # K, ours, since the paper's law is not known: the least important examples that hold so much of all importance
    # together leave at an epoch's end. Few while all are alike, many once few hold nearly all.
    reduction: Fraction = 0.005
    keep: Fraction = 0.1  # of the examples, at least; ours


class Pruning(online.Online):
    """`online`, and at every epoch's end, examples leave for good.

    An epoch is as many draws as there are examples left, so that it gets shorter. By `importance` those leave that the
    law says (see `reduction`); by `random` as many, whichever; by `none` nobody, as `online`.

    Bias: given the parameters, q and who is left, the expected gradient is the mean of those that are left; with
    systematic draws, as the block began.

    Source: Salaun et al. 2023, on pruning; the law is ours.
    """

    settings: Settings

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.began = 0  # the step of this epoch's beginning
        self.made, self.epochs = 0, 0.0  # epochs before it, and with what of it is over

    def own_settings(self) -> Settings:
        return self.config.own(Settings)

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        super().learn(step, drawn, seen, squared_norms)
        self.epochs = self.made + (step + 1 - self.began) * self.config.master.minibatch_size / self.drawable

    def ended(self, step: int) -> int:
        return int((step + 1 - self.began) * self.config.master.minibatch_size >= self.drawable)

    def end(self, step: int, epochs: int) -> None:
        self.prune(step)
        self.began, self.made = step + 1, self.made + 1
        super().end(step, epochs)

    def prune(self, step: int) -> None:
        """Sees off those who leave at the end of an epoch, after this step."""
        values = self.importances.values.cpu().numpy()
        left = np.flatnonzero(values)
        count = leaving(values[left], self.settings.reduction, int(np.ceil(self.settings.keep * self.examples)))
        if self.settings.by == "none" or count == 0:
            return
        if self.settings.by == "importance":
            gone = left[np.argsort(values[left], kind="stable")[:count]]
        else:
            gone = generator(self.config.seed, "pruning", step).choice(left, count, replace=False)
        indices = torch.from_numpy(gone).to(self.device)
        self.importances.change(indices, torch.zeros(count, dtype=torch.float64, device=self.device))
        self.drawable -= count

    def refreshed(self, table: Table) -> Refreshed:
        found = super().refreshed(table)
        return replace(found, values={**found.values, "proposal/kept_fraction": self.told.support / self.examples})

    def learned(self) -> dict[str, NDArray[Any]]:
        told = {"began": np.array(self.began), "made": np.array(self.made), "epochs": np.array(self.epochs)}
        return {**super().learned(), **told}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        super().recall(learned)
        self.began, self.made, self.epochs = int(learned["began"]), int(learned["made"]), float(learned["epochs"])
        if min(self.began, self.made, self.epochs) < 0:
            raise ValueError("its epoch began before the first step")
        if self.is_filled:
            self.drawable = int(np.count_nonzero(learned["importances"]))


def leaving(importances: Float64s, reduction: float, keep: int) -> int:
    """How many of these examples leave: those of least importance that together hold at most so much of all.

    Args:
        importances: Of those that are left, shape (K,).
        reduction: Which part of the sum.
        keep: So many stay at least; one in any case.
    """
    held = np.cumsum(np.sort(importances))
    count = int(np.searchsorted(held, reduction * held[-1], side="right"))
    return max(0, min(count, len(importances) - max(1, keep)))
