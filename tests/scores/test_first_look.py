"""What the first look at a model sees, what it leaves behind, and what is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.errors import LayerError, LossError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.per_example import per_example
from issgd_cli.scores import score
from issgd_cli.scores.first_look import plan_of
from tests.loops import normal, squares_one_by_one
from tests.scores.test_plan import CLASSES, LABELS, check


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES))


def tokens(*shape: int) -> Tensor:
    return torch.randint(9, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_hook_that_changes_a_parameters_gradient_changes_its_norm(precision: torch.dtype) -> None:
    """Put on after the first look, too; and not lost where float64 is asked for its opinion."""
    model, inputs = two_layers().to(precision), normal(8, 6).to(precision)
    score(cross_entropy, model, inputs, LABELS)
    model[0].weight.register_hook(lambda gradient: 3 * gradient)  # type: ignore[operator]
    found = score(cross_entropy, model, inputs, LABELS).squared_norms
    torch.testing.assert_close(found, squares_one_by_one(model, inputs, LABELS), rtol=1e-5, atol=0)
    assert sorted(unit.way for unit in plan_of(cross_entropy, model, inputs, LABELS).units) == [
        "fallback",  # the bias beside it
        "loop",
        "rule",
    ]


def test_a_hook_for_all_modules_makes_for_another_look() -> None:
    model = two_layers()
    score(cross_entropy, model, normal(8, 6), LABELS)
    hook = nn.modules.module.register_module_forward_hook(
        lambda layer, given, output: 2 * output if isinstance(layer, nn.Linear) else None
    )
    try:
        with pytest.raises(LayerError, match="not what plain autograd gives"):
            score(cross_entropy, model, normal(8, 6), LABELS)
    finally:
        hook.remove()


@pytest.mark.parametrize("is_copied", [False, True])
def test_of_complex_parameters_the_absolute_squares_count(is_copied: bool) -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Parameter(torch.view_as_complex(normal(4, 2)))
            if is_copied:  # modules made of modules give out copies
                self.after = nn.Linear(6, 6)

        def forward(self, inputs: Tensor) -> Any:
            found = torch.fft.irfft(torch.fft.rfft(inputs) * self.filter, n=6)
            return self.after(found) if is_copied else found

    model, inputs = nn.Sequential(nn.Linear(6, 6), Spectral(), nn.Linear(6, CLASSES)), normal(8, 6)
    found = score(cross_entropy, model, inputs, LABELS).squared_norms
    expected = []
    for number in range(len(inputs)):
        loss = cross_entropy(model(inputs[number : number + 1]), LABELS[number : number + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected.append(torch.stack([gradient.abs().square().sum() for gradient in gradients]).sum())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=0)
    copies = plan_of(cross_entropy, model, inputs, LABELS).of("copies")
    assert [list(unit.parameters) for unit in copies] == ([["filter"]] if is_copied else [])


@pytest.mark.parametrize("option", ["sparse", "scale_grad_by_freq"])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_whose_gradient_is_no_sum_of_dense_ones_is_refused_with_the_remedy(kind: Any, option: str) -> None:
    given: dict[str, Any] = {option: True} | ({"mode": "sum"} if kind is nn.EmbeddingBag else {})
    model = nn.Sequential(kind(9, 6, **given), nn.Flatten(), nn.LazyLinear(CLASSES))
    model(tokens(8, 4))
    with pytest.raises(LayerError, match=rf"0 \({kind.__name__}\).*Set {option}=False"):
        score(cross_entropy, model, tokens(8, 4), LABELS)
    model[0].requires_grad_(False)
    score(cross_entropy, model, tokens(8, 4), LABELS)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_scripted_model_is_refused_with_the_remedy() -> None:
    with pytest.raises(LayerError, match=r"ScriptModule.*Score the module that it was made of"):
        score(cross_entropy, torch.jit.script(two_layers()), normal(8, 6), LABELS)


class Plain:
    """A loss of one's own that nobody has looked at."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.function(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (functional.cross_entropy, "plain function.*per_example"),
        (Plain(functional.cross_entropy), r"gave shape \(\) for 3 examples.*reduction"),
        (Plain(lambda outputs, targets: outputs), r"gave shape \(3, 5\) for 3 examples.*reduction"),
        (Plain(lambda outputs, targets: outputs.detach().sum(1)), r"have no gradient.*detach"),
        (per_example(lambda outputs, targets: outputs.argmax(1) != targets), r"have no gradient.*argmax"),
    ],
)
def test_a_loss_that_gives_no_examples_own_is_refused_with_the_remedy(loss: Any, words: str) -> None:
    with pytest.raises(LossError, match=words):
        score(loss, two_layers(), normal(8, 6), LABELS)


def test_no_example_is_too_few_for_a_look() -> None:
    model = two_layers()
    with pytest.raises(LossError, match="no example"):
        score(cross_entropy, model, normal(0, 6), LABELS[:0])
    check(model, normal(8, 6))
    none = score(cross_entropy, model, normal(0, 6).double(), LABELS[:0])
    assert none.squared_norms.shape == (0,)
