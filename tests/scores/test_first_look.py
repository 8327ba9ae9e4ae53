"""What the first look at a model sees, what it leaves behind, and what is refused by name."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from issgd_cli.errors import LayerError, LossError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.per_example import per_example
from issgd_cli.scores import first_look, score
from issgd_cli.scores.first_look import look, plan_of
from tests.loops import normal, squares_one_by_one
from tests.scores.test_plan import CLASSES, LABELS, Model, check


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
        with pytest.raises(LayerError, match=r"not what plain autograd gives.*hook on all modules \(.*<lambda>\)"):
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


def centred(values: Tensor) -> Tensor:
    return values - values.mean(0)


@pytest.mark.parametrize(
    "mixes",
    [centred, lambda values: values.roll(1, 0), lambda values: values.flip(0), lambda values: values / values.norm()],
)
@pytest.mark.parametrize("place", ["inputs", "detached", "outputs"])
def test_a_loss_that_depends_on_which_others_are_there_is_refused(
    mixes: Callable[[Tensor], Tensor], place: str
) -> None:
    """Before the first parameter, or without a gradient, it is no gradient that tells."""

    def mixing(model: Any, inputs: Tensor) -> Any:
        if place == "inputs":
            return model.last(model.first(mixes(inputs)).tanh())
        found = model.last(model.first(inputs).tanh())
        return mixes(found) if place == "outputs" else found + (mixes(found) - found).detach()

    with pytest.raises(LayerError, match="mixes or reorders"):
        check(Model(mixing, first=nn.Linear(6, 6), last=nn.Linear(6, CLASSES)), normal(8, 6))


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, labels: cross_entropy(outputs, labels) / len(labels),
        lambda outputs, labels: cross_entropy(outputs, labels) / torch.bincount(labels, minlength=CLASSES)[labels],
        lambda outputs, labels: (outputs[:, :1] - labels).square().mean(1),  # (B, 1) against (B,)
    ],
)
def test_a_loss_that_counts_the_examples_is_refused(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    labels = torch.tensor([0, 1, 0, 2, 3, 4, 0, 1])  # the third's class is the first's, too
    with pytest.raises(LayerError, match=r"An example's loss is another one.*broadcast"):
        score(per_example(loss), two_layers(), normal(8, 6), labels)


@pytest.mark.parametrize("mixes", [centred, lambda values: values.roll(1, 0)])
def test_what_is_behind_weights_of_0_is_looked_at_when_it_has_a_gradient(mixes: Callable[[Tensor], Tensor]) -> None:
    def gated(model: Any, inputs: Tensor) -> Any:
        return model.last(inputs + model.scale * mixes(model.first(inputs)))

    parts = {"first": nn.Linear(6, 6), "last": nn.Linear(6, CLASSES)}
    model, inputs = Model(gated, **parts, scale=nn.Parameter(torch.zeros(6))), normal(8, 6)
    score(per_example(lambda outputs, labels: outputs[:, 0] * 0), model, inputs, LABELS)  # nothing is seen at all
    nn.init.ones_(model.scale)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match=r"mixes or reorders"):
        score(cross_entropy, model, inputs, LABELS)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_first_look_that_saw_nothing_is_not_the_last(value: float) -> None:
    model, inputs = two_layers(), normal(8, 6)
    assert not plan_of(per_example(lambda outputs, labels: outputs[:, 0] * value), model, inputs, LABELS).is_seen
    plan = plan_of(cross_entropy, model, inputs, LABELS)
    assert plan.is_seen
    assert plan_of(cross_entropy, model, inputs, LABELS) is plan


def test_what_never_has_a_gradient_is_looked_at_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = Model(lambda own, inputs: own.last(inputs) + 0 * own.first(inputs)), normal(8, 6)
    model.first, model.last = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)
    looks: list[int] = []

    def counted(*given: Any) -> Any:
        looks.append(done)
        return look(*given)

    monkeypatch.setattr(first_look, "look", counted)
    for done in range(300):  # noqa: B007
        plan_of(cross_entropy, model, inputs, LABELS)
    assert looks == [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]
    model.last.requires_grad_(False)
    plan_of(cross_entropy, model, inputs, LABELS)
    assert looks[-1] == 299  # the state is another


def test_the_first_look_puts_the_global_generators_back() -> None:
    class Drawing(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * (1 + random.random() + np.random.random() + torch.rand(()))

    model = nn.Sequential(Drawing(), nn.Linear(6, CLASSES))
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    plan_of(cross_entropy, model, normal(8, 6), LABELS)
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (random.getstate(), str(np.random.get_state())) == before[:2]


def test_the_first_look_leaves_buffers_as_they_were() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(16, CLASSES))
    model, inputs = nn.Sequential(convolution, norm, nn.Flatten(), linear).train(), normal(8, 2, 6)
    before = [buffer.clone() for buffer in model.buffers()]
    plan_of(cross_entropy, model, inputs, LABELS)
    assert all(torch.equal(buffer, then) for buffer, then in zip(model.buffers(), before, strict=True))


def test_spectral_norm_is_right_in_training_mode_where_each_call_changes_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(30, 20)), nn.Tanh(), nn.Linear(20, CLASSES))
    model, inputs = model.double().train(), normal(8, 30).double()
    for _ in range(3):
        with torch.no_grad():
            model.get_parameter("0.parametrizations.weight.original").copy_(torch.randn(20, 30))
        before = copy.deepcopy(model)
        found = score(cross_entropy, model, inputs, LABELS).squared_norms
        expected = []
        for loss in cross_entropy(before(inputs), LABELS):
            gradients = torch.autograd.grad(loss, list(before.parameters()), retain_graph=True)
            expected.append(torch.stack([gradient.square().sum() for gradient in gradients]).sum())
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("is_reentrant", "is_attention"), [(True, False), (False, True)])
def test_a_checkpoint_that_does_not_bear_it_is_refused_with_the_remedy(is_reentrant: bool, is_attention: bool) -> None:
    def checkpointed(model: Any, inputs: Tensor) -> Any:
        return model.last(checkpoint(model.part, model.first(inputs), use_reentrant=is_reentrant).mean(1))

    part = nn.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True) if is_attention else nn.Linear(6, 6)
    model = Model(checkpointed, first=nn.Linear(6, 6), part=part, last=nn.Linear(6, CLASSES))
    with pytest.raises(LayerError, match=r"torch.utils.checkpoint.*use_reentrant=False"):
        score(cross_entropy, model, normal(8, 4, 6), LABELS)


def test_layers_with_rules_may_be_checkpointed() -> None:
    def checkpointed(model: Any, inputs: Tensor) -> Any:
        return model.last(checkpoint(model.part, model.first(inputs), use_reentrant=False))

    parts = {"first": nn.Linear(6, 6), "part": two_layers(), "last": nn.Linear(CLASSES, CLASSES)}
    check(Model(checkpointed, **parts), normal(8, 6))


def test_a_model_that_does_not_bear_a_pass_without_gradients_is_given_none() -> None:
    def watched(model: Any, inputs: Tensor) -> Any:
        hidden = model.first(inputs)
        hidden.register_hook(lambda gradient: 3 * gradient)
        return model.last(hidden.tanh())

    check(Model(watched, first=nn.Linear(6, 6), last=nn.Linear(6, CLASSES)), normal(8, 6))
