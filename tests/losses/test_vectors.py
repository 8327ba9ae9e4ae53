"""Targets of another shape than the outputs are refused: broadcast, they would give a loss of no meaning."""

import pytest
import torch

from issgd_cli.errors import DataError
from issgd_cli.losses.binary_cross_entropy import binary_cross_entropy
from issgd_cli.losses.squared import squared
from issgd_cli.losses.vectors import as_outputs


def test_one_output_takes_targets_with_and_without_its_column() -> None:
    outputs, flat = torch.zeros(3, 1), torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    for targets in (flat, flat[:, None]):
        found = as_outputs(targets, outputs)
        assert found.dtype == torch.float32
        assert found.tolist() == [[0.0], [1.0], [0.5]]


@pytest.mark.parametrize("loss", [squared, binary_cross_entropy])
@pytest.mark.parametrize(
    ("outputs", "targets"),
    [((3, 2), (3,)), ((3, 2), (3, 1)), ((3, 1), (1,)), ((3, 2), (2,)), ((3,), (3,)), ((3, 2), (2, 3)), ((1, 1), (3,))],
)
def test_others_are_refused(loss: object, outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    assert callable(loss)
    with pytest.raises(DataError, match=r"outputs of shape \(.*\) for targets of shape \(.*targets of shape"):
        loss(torch.zeros(outputs), torch.zeros(targets))
