"""A table of importances that changes at every step, and draws in proportion to it that stay cheap all the same."""

import torch
from torch import Tensor

WIDTH = 64  # of a row: a step sums N / 64 numbers, and 64 for each of its examples


class Importances:
    """q of N examples, in rows, and the sums of these: O(N / 64 + 64 B) for B draws or changes, not O(N).

    Attributes:
        values: q, float64, >= 0, shape (N,); changed by the methods here alone.
    """

    def __init__(self, values: Tensor) -> None:
        """Of these, shape (N,), on their device."""
        rows = -(-len(values) // WIDTH)
        self._grid = torch.zeros((rows, WIDTH), dtype=torch.float64, device=values.device)
        self.values = self._grid.view(-1)[: len(values)]
        self.values.copy_(values)
        self._sums = self._grid.sum(1)

    def change(self, indices: Tensor, values: Tensor) -> None:
        """q of these examples, float64, shapes (B,). Of one that is there twice, the last value counts."""
        self.values[indices] = values
        rows = indices // WIDTH
        self._sums[rows] = self._grid[rows].sum(1)  # anew: what is resumed has the same sums, to the bit

    def add(self, amount: float) -> None:
        """To q of all but those of no importance, which have left."""
        self.values += amount * (self.values > 0)
        self._sums = self._grid.sum(1)

    def draw(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Examples in proportion to q.

        Args:
            places: Random numbers in [0, 1), float64, shape (B,).

        Returns:
            Indices, int64, and 1 / p of each, float64, shapes (B,).
        """
        ends = self._sums.cumsum(0)
        total = ends[-1]
        wanted = places * total
        # As in Proposal.draw: never an example of no importance, nor one past the end where rounding leads there.
        rows = torch.searchsorted(ends, wanted, right=True).clamp_(max=torch.searchsorted(ends, total))
        within = self._grid[rows].cumsum(1)  # (B, WIDTH)
        wanted = (wanted - (ends[rows] - self._sums[rows])).clamp_(min=0)[:, None]
        columns = torch.searchsorted(within, wanted, right=True)
        columns = torch.minimum(columns, torch.searchsorted(within, within[:, -1:].contiguous()))
        indices = rows * WIDTH + columns.squeeze(1)
        return indices, total / self.values[indices]
