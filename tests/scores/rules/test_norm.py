"""Normalisations."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores import squared_norms
from issgd_cli.scores.rules import departure
from tests.loops import check, drawn, normal


def with_statistics(layer: nn.Module) -> nn.Module:
    """The layer in evaluation, with weights and running statistics that are not those it began with."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
    return layer.eval()


@drawn
@given(
    st.integers(1, 3),
    st.lists(st.integers(0, 4), max_size=2),
    st.lists(st.integers(2, 5), min_size=1, max_size=2),
    st.sampled_from(["with a bias", "without", "RMS"]),
)
def test_normalisations_of_the_last_axes(examples: int, middle: list[int], last: list[int], kind: str) -> None:
    layer = nn.RMSNorm(last, eps=1e-5) if kind == "RMS" else nn.LayerNorm(last, bias=kind == "with a bias")
    check(with_statistics(layer), 1 + 3 * normal(examples, *middle, *last))


@pytest.mark.parametrize("scale", [1.0, 3e-4])
def test_the_least_variance_is_the_inputs_types_own_unless_given(scale: float) -> None:
    layer, inputs, deltas = nn.RMSNorm(6), scale * normal(3, 4, 6), normal(3, 4, 6, seed=1)
    squares = []
    for number in range(3):
        (gradient,) = torch.autograd.grad(layer(inputs[number]), [layer.weight], deltas[number])
        squares.append(gradient.square().sum())
    torch.testing.assert_close(squared_norms(layer, inputs, deltas), torch.stack(squares), rtol=1e-5, atol=0)


@drawn
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(2, 4), max_size=3))
def test_group_normalisation(examples: int, groups: int, width: int, sizes: list[int]) -> None:
    if width > 1 or sizes:  # one value alone is refused by the layer
        check(with_statistics(nn.GroupNorm(groups, groups * width)), 1 + 3 * normal(examples, groups * width, *sizes))


def test_groups_of_one_value_leave_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("issgd_cli.scores.rules.slices.MOST_NUMBERS_CPU", 4)  # two examples and one
    layer, inputs = nn.GroupNorm(2, 2), normal(3, 2)
    layer(inputs)
    assert squared_norms(layer, inputs, torch.ones(3, 2)).tolist() == [2, 2, 2]


INSTANCES: dict[int, type[nn.Module]] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCHES: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@drawn
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans())
def test_instance_normalisation(examples: int, channels: int, axes: int, tracked: bool, training: bool) -> None:
    layer = INSTANCES[axes](channels, affine=True, track_running_stats=tracked)
    check(with_statistics(layer).train(training), 1 + 3 * normal(examples, channels, *[3, 2, 4][:axes]))


def test_the_rule_leaves_running_statistics_alone() -> None:
    layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    squared_norms(layer, 5 + normal(4, 3, 6), normal(4, 3, 6, seed=1))
    assert layer.running_mean is not None
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.num_batches_tracked == 0


@drawn
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_batch_normalisation_in_evaluation(examples: int, channels: int, axes: int) -> None:
    layer = with_statistics(BATCHES[max(1, axes)](channels))
    assert departure(layer) is None
    check(layer, 1 + 3 * normal(examples, channels, *[3, 2, 4][:axes]))


@pytest.mark.parametrize("kind", BATCHES.values())
def test_batch_normalisation_by_the_minibatch_is_a_departure(kind: type[nn.Module]) -> None:
    assert "mixes the examples" in str(departure(kind(3)))
    assert "mixes the examples" in str(departure(kind(3, track_running_stats=False).eval()))


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (partial(nn.LayerNorm, 4, elementwise_affine=False), (3, 2, 4)),
        (partial(nn.RMSNorm, 4, elementwise_affine=False), (3, 2, 4)),
        (partial(nn.GroupNorm, 2, 4, affine=False), (3, 4)),
        (partial(nn.InstanceNorm1d, 4), (3, 4, 5)),
        (lambda: nn.BatchNorm1d(4, affine=False).eval(), (3, 4)),
    ],
)
def test_without_weights_there_is_no_gradient(layer: Callable[[], nn.Module], inputs: tuple[int, ...]) -> None:
    assert squared_norms(layer(), normal(*inputs), normal(*inputs)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("numbers", [1, 50, 10**9])
def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    monkeypatch.setattr("issgd_cli.scores.rules.slices.MOST_NUMBERS_CPU", numbers)
    check(nn.LayerNorm(6), normal(7, 3, 6))
    check(nn.GroupNorm(2, 4), normal(7, 4, 3))


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.LayerNorm([4, 5]), torch.ones(4, 5)),
        (nn.RMSNorm(4), torch.ones(4)),
        (nn.InstanceNorm1d(4, affine=True), torch.ones(4, 5)),  # which it takes for one example
        (nn.InstanceNorm2d(4, affine=True), torch.ones(4, 5, 5)),
    ],
)
def test_inputs_without_an_axis_of_examples_are_refused(layer: nn.Module, inputs: Tensor) -> None:
    with pytest.raises(LayerError, match="the first for the examples"):
        squared_norms(layer, inputs, inputs)
