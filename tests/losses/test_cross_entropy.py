"""Softmax cross-entropy that stays right for sure predictions, in both directions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from issgd_cli.errors import LossError
from issgd_cli.losses.cross_entropy import cross_entropy

LABEL = 2


def exact(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient in float64; the label's entry as minus the sum of the others'."""
    logits = logits.double()
    differences = logits - logits.gather(1, labels[:, None])
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    gradient = torch.softmax(logits, 1) * others
    gradient = gradient.scatter(1, labels[:, None], -gradient.sum(1, keepdim=True))
    sums = torch.where(others, differences.clamp(max=700).exp(), torch.zeros_like(logits)).sum(1)
    plain = functional.cross_entropy(logits, labels, reduction="none")
    return torch.where(sums < 1, torch.log1p(sums), plain), gradient


def ours(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    losses = cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach(), gradient


def sure(gap: float, right: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One example whose label's logit is `gap` above the best other (right), or below (wrong)."""
    logits = torch.tensor([[-0.5, 0.0, 0.0, -1.25]], dtype=dtype)
    logits[0, LABEL] = gap if right else -gap
    return logits + 3, torch.tensor([LABEL])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_losses_and_gradients_equal_torchs_in_float64(seed: int, classes: int, scale: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, classes, generator=random, dtype=torch.float64) * scale
    labels = torch.randint(classes, (20,), generator=random)
    losses, gradient = ours(logits, labels)
    theirs = logits.clone().requires_grad_()
    expected = functional.cross_entropy(theirs, labels, reduction="none")
    expected.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient, theirs.grad, rtol=1e-10, atol=1e-14)


def test_the_gradient_is_the_losss_by_finite_differences() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=random, dtype=torch.float64).requires_grad_()
    labels = torch.randint(5, (4,), generator=random)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels), (logits,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("gap", [5.0, 20.0, 50.0])
def test_sure_predictions_keep_their_digits(gap: float, right: bool, dtype: torch.dtype) -> None:
    logits, labels = sure(gap, right, dtype)
    losses, gradient = ours(logits, labels)
    expected_losses, expected_gradient = exact(logits, labels)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(losses.double(), expected_losses, rtol=tolerance, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=1e-40)
    assert losses > 0
    assert gradient[0, LABEL] < 0


@pytest.mark.parametrize("gap", [20.0, 30.0, 50.0])
def test_a_float32_examples_label_entry_is_minus_the_sum_of_the_others_where_softmax_minus_one_would_be_zero(
    gap: float,
) -> None:
    logits, labels = sure(gap, True, torch.float32)
    assert torch.softmax(logits, 1)[0, LABEL] == 1  # why the usual formula gives 0
    _, gradient = ours(logits, labels)
    others = gradient[0].double().sum() - gradient[0, LABEL].double()
    assert others > 0
    assert gradient[0, LABEL].double() == pytest.approx(-float(others), rel=1e-6)
    _, expected = exact(logits, labels)
    assert float(gradient[0, LABEL]) == pytest.approx(float(expected[0, LABEL]), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [100.0, 1000.0])
def test_beyond_the_floats_range_losses_and_gradients_are_their_limits(gap: float, dtype: torch.dtype) -> None:
    losses, gradient = ours(*sure(gap, True, dtype))
    assert 0 <= losses < 1e-40
    assert gradient.abs().max() < 1e-40
    wrong_logits, labels = sure(gap, False, dtype)
    losses, gradient = ours(wrong_logits, labels)
    expected, expected_gradient = exact(wrong_logits, labels)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-6, atol=1e-40)
    assert gradient[0, LABEL] == pytest.approx(-1, rel=1e-6)


def test_each_examples_gradient_is_scaled_by_its_own_factor() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels, factors = torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)
    (weighted,) = torch.autograd.grad((factors * cross_entropy(logits, labels)).sum(), logits)
    (plain,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    torch.testing.assert_close(weighted, factors[:, None] * plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_give_a_loss_that_is_none(bad: float) -> None:
    losses = cross_entropy(torch.tensor([[bad, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert not torch.isfinite(losses[0])
    assert torch.isfinite(losses[1])


@pytest.mark.parametrize("gap", [5.0, 20.0, 50.0])
def test_the_analytic_gradients_are_those_of_the_backward_pass_to_the_bit(gap: float) -> None:
    for right in (True, False):
        logits, labels = sure(gap, right, torch.float32)
        assert torch.equal(cross_entropy.output_gradients(logits, labels), ours(logits, labels)[1])


@pytest.mark.parametrize(
    ("outputs", "labels", "words"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 1, dtype=torch.int64), r"labels\.squeeze\(1\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4), r"float32 of shape \(3, 4\) for 3 .*labels\.argmax\(1\)"),
        (torch.zeros(3, 4), torch.zeros(3), "wants class numbers"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), r"wants class numbers of shape \(3,\)"),
        (torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.int64), r"outputs are of shape \(3, 4, 2\)"),
        ((torch.zeros(3, 4), None), torch.zeros(3, dtype=torch.int64), r"outputs are a tuple.*outputs\[0\]"),
    ],
)
def test_what_are_no_logits_and_class_numbers_is_refused_with_the_remedy(
    outputs: Tensor, labels: Tensor, words: str
) -> None:
    with pytest.raises(LossError, match=words):
        cross_entropy(outputs, labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 4, 1, 9], r"2 of 4 labels are none of the 4 classes.*0 to 3; the first is 4, at place 1"),
        ([0, 1, -100, 3], r"1 of 4 labels.*the first is -100, at place 2.*leave out examples"),
    ],
)
def test_a_label_that_is_no_class_is_refused_by_its_place(labels: list[int], words: str) -> None:
    with pytest.raises(LossError, match=words):
        cross_entropy(torch.zeros(4, 4), torch.tensor(labels))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_numbers_may_be_of_any_integer_type(kind: torch.dtype) -> None:
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 2, 2, 0])
    torch.testing.assert_close(ours(logits, labels.to(kind)), ours(logits, labels), rtol=0, atol=0)
