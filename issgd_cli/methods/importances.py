"""A table of importances that changes at every step, and draws in proportion to it that stay cheap all the same."""

from types import EllipsisType

import torch
from torch import Tensor

WIDTH = 64  # of a row: a step sums N / 64 numbers, and 64 for each of its examples


class Importances:
    """q of N examples, in rows, and the sums of these: O(N / 64 + 64 B) for B draws or changes, not O(N).

    Where J proposals have one each, all shapes here begin with J.

    Attributes:
        values: q, float64, >= 0, shape (N,); changed by the methods here alone.
    """

    def __init__(self, values: Tensor) -> None:
        """Of these, shape (N,), on their device."""
        *proposals, examples = values.shape
        rows = -(-examples // WIDTH)
        self._grid = torch.zeros((*proposals, rows, WIDTH), dtype=torch.float64, device=values.device)
        self.values = self._grid.flatten(-2)[..., :examples]  # a view
        self.values.copy_(values)
        self._sums = self._grid.sum(-1)

    def change(self, indices: Tensor, values: Tensor) -> None:
        """q of these examples, shape (B,), float64. Of one that is there twice, the last value counts."""
        self.values[..., indices] = values
        rows = indices // WIDTH
        self._sums[..., rows] = self._grid[..., rows, :].sum(-1)  # anew: what is resumed has the same sums, to the bit

    def renew(self, indices: Tensor, found: Tensor, alpha: float, floor: float, fills: bool = False) -> None:
        """q <- alpha q + (1 - alpha) found, of these examples, once, and no less than the floor.

        What is no number is left out: a loss that is none ends the run at the end of its block. Examples of no
        importance have left, and stay away though they were drawn before they did; unless the table is being filled.
        """
        old = self.values[..., indices]
        mixed = (alpha * old + (1 - alpha) * found).clamp_(min=floor)
        known = mixed.isfinite() if fills else mixed.isfinite() & (old > 0)
        self.change(indices, torch.where(known, mixed, old))

    def add(self, amount: float) -> None:
        """To q of all but those of no importance, which have left."""
        self.values += amount * (self.values > 0)
        self._sums = self._grid.sum(-1)

    def chances(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """p = q / sum q, of these examples, or of all, float64, shape (B,)."""
        return self.values[..., indices] / self._sums.sum(-1, keepdim=True)

    def draw(self, places: Tensor, proposal: int | EllipsisType = ...) -> tuple[Tensor, Tensor]:
        """Examples in proportion to q.

        Args:
            places: Random numbers in [0, 1), float64, shape (B,).
            proposal: By whose q, where there are several.

        Returns:
            Indices, int64, and 1 / p of each, float64, shapes (B,).
        """
        grid, sums, values = self._grid[proposal], self._sums[proposal], self.values[proposal]
        ends = sums.cumsum(0)
        total = ends[-1]
        wanted = places * total
        # As in Proposal.draw: never an example of no importance, nor one past the end where rounding leads there.
        rows = torch.searchsorted(ends, wanted, right=True).clamp_(max=torch.searchsorted(ends, total))
        within = grid[rows].cumsum(1)  # (B, WIDTH)
        wanted = (wanted - (ends[rows] - sums[rows])).clamp_(min=0)[:, None]
        columns = torch.searchsorted(within, wanted, right=True)
        columns = torch.minimum(columns, torch.searchsorted(within, within[:, -1:].contiguous()))
        indices = rows * WIDTH + columns.squeeze(1)
        return indices, total / values[indices]
