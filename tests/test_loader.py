"""The loader for a loop of one's own: draws as they are said to be, whatever its workers load ahead, and resumed."""

import io
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

from issgd_cli.errors import ConfigError, WeightError
from issgd_cli.library import ImportanceLoader, ImportanceSampler, Minibatch, cross_entropy, weighted_backward

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

EXAMPLES, SIZE = 22, 4
EPOCH = 6  # the last one is whole, too
WORKERS = [
    {"num_workers": 0},
    {"num_workers": 1},
    {"num_workers": 2, "prefetch_factor": 1},
    {"num_workers": 4, "persistent_workers": True},
]


def made_up_norms(step: int, indices: Tensor) -> Tensor:
    """Of each example in the step, so that the proposal changes with each."""
    return torch.from_numpy(np.random.default_rng(step).lognormal(0, 1, EXAMPLES))[indices]


def taught(loader: ImportanceLoader) -> Iterator[Minibatch]:
    """An epoch whose minibatches get made-up norms after they are looked at."""
    for examples, drawn in loader:
        assert torch.equal(examples, drawn.indices)
        yield drawn
        loader.update(drawn, made_up_norms(drawn.step, drawn.indices))


def drawn_ahead(options: dict[str, Any]) -> int:
    """How many minibatches are drawn before the first is given out, as torch documents it."""
    return int(options["num_workers"] * options.get("prefetch_factor", 2))


def proposed(norms: NDArray[np.float64], constant: float) -> NDArray[np.float64]:
    known = ~np.isnan(norms)
    if known.sum() < 0.1 * len(norms):
        return np.ones(len(norms))
    return np.where(known, norms + constant, np.nanmean(norms) + constant)


@pytest.mark.parametrize("options", WORKERS, ids=str)
def test_factors_are_those_of_the_proposal_at_the_draw_whatever_was_learned_since(options: dict[str, Any]) -> None:
    loader = ImportanceLoader(range(EXAMPLES), SIZE, smoothing=0.5, refresh_every=1, seed=3, **options)
    tables = [np.full(EXAMPLES, np.nan)]  # after so many updates
    for epoch in range(3):
        minibatches = 0
        for number, drawn in enumerate(taught(loader)):
            assert drawn.step == epoch * EPOCH + number == len(tables) - 1
            weights = proposed(tables[epoch * EPOCH + max(0, number - drawn_ahead(options))], 0.5)
            np.testing.assert_allclose(drawn.factors, weights.mean() / weights[drawn.indices], rtol=1e-12)
            assert drawn.indices.shape == drawn.factors.shape == (SIZE,)
            tables.append(tables[-1].copy())
            tables[-1][drawn.indices] = made_up_norms(drawn.step, drawn.indices)
            minibatches += 1
        assert minibatches == len(loader) == EPOCH


@pytest.mark.parametrize("workers", [0, 2])
def test_weighted_means_are_unbiased_while_the_norms_change_all_the_time(workers: int) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(1, 3, EXAMPLES))
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = ImportanceLoader(range(EXAMPLES), SIZE, smoothing=0.1, refresh_every=1, **options)
    weighted = []
    for _ in range(100 if workers == 0 else 20):
        for drawn in taught(loader):
            weighted.append(float((drawn.factors * values[drawn.indices]).mean()))
    error = np.std(weighted) / len(weighted) ** 0.5
    assert abs(np.mean(weighted) - float(values.mean())) < 3 * error


def test_draws_follow_the_norms() -> None:
    loader = ImportanceLoader(range(EXAMPLES), 4000, smoothing=0.0)
    norms = torch.arange(EXAMPLES).double()
    (_, first), *_ = loader
    loader.update(first, norms[first.indices])
    (_, second), *_ = loader
    found = np.bincount(second.indices, minlength=EXAMPLES) / 4000
    np.testing.assert_allclose(found, norms / norms.sum(), atol=0.015)
    torch.testing.assert_close(loader.weights, norms.clamp(min=1e-8 * float(norms.mean())))


def test_variance_optimal_smoothing_learns_from_examples_whose_norms_were_told_twice() -> None:
    loader = ImportanceLoader(range(EXAMPLES), 40, refresh_every=1)
    norms = torch.arange(1.0, EXAMPLES + 1)
    for epoch in range(12):
        for _, drawn in loader:
            # The third draw is the first that looks at norms of which some are known at two times.
            assert (epoch > 1) == bool(loader.weights.std() > 0)
            loader.update(drawn, norms[drawn.indices])
    torch.testing.assert_close(loader.weights, norms.double(), rtol=1e-3, atol=1e-3)  # they don't change: nothing added


def test_a_pass_that_is_left_is_over_and_a_new_one_draws_the_same_with_and_without_workers() -> None:
    def steps(workers: int) -> list[tuple[int, list[int]]]:
        loader = ImportanceLoader(range(EXAMPLES), SIZE, num_workers=workers)
        found = [drawn for _, drawn in islice(loader, 2)]
        found += [drawn for _, drawn in loader]
        return [(drawn.step, drawn.indices.tolist()) for drawn in found]

    assert [step for step, _ in steps(0)] == list(range(2 + EPOCH))
    assert steps(0) == steps(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_step_that_the_loop_has_seen_is_drawn_again(workers: int) -> None:
    loader = ImportanceLoader(range(EXAMPLES), SIZE, num_workers=workers)
    seen = [drawn.step for _ in range(5) for _, drawn in islice(loader, 4)]
    assert seen == list(range(20))


@pytest.mark.slow
def test_there_may_be_more_examples_than_float32_can_count() -> None:
    many = 2**24 + 3
    loader = ImportanceLoader(range(many), 4, smoothing=0.0)
    state = loader.state_dict()
    assert isinstance(state["norms"], Tensor)
    state["norms"][:] = 0
    state["norms"][-2:] = torch.tensor([1.0, 3.0])
    loader.load_state_dict(state)
    drawn = [drawn for _, drawn in islice(loader, 100)]
    assert {many - 2, many - 1} == set(torch.cat([each.indices for each in drawn]).tolist())
    last = torch.cat([each.indices for each in drawn]) == many - 1
    assert 0.65 < last.float().mean() < 0.85


def test_draws_depend_on_the_seed_and_leave_the_global_generators_alone() -> None:
    before = random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state()
    one, again, other = ([d.indices.tolist() for _, d in ImportanceLoader(range(99), 9, seed=s)] for s in (0, 0, 1))
    assert one == again != other
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


class Words(Dataset[dict[str, Any]]):
    """Examples that are no tensors, which are loaded many at once."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise AssertionError("one at a time")

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{"word": "x" * index} for index in indices]


def lengths(examples: list[dict[str, Any]]) -> list[int]:
    return [len(example["word"]) for example in examples]


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_may_be_anything_that_the_datasets_own_collate_function_takes(workers: int) -> None:
    for collated, drawn in ImportanceLoader(Words(), SIZE, collate_fn=lengths, num_workers=workers):
        assert collated == drawn.indices.tolist()


# Resuming


def pictures() -> TensorDataset:
    random = np.random.default_rng(0)
    images, labels = random.normal(0, 1, (EXAMPLES, 2, 6, 6)).astype(np.float32), random.integers(0, 3, EXAMPLES)
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))


class Loop:
    """A training loop of one's own, of a small CNN that draws at random, too."""

    def __init__(self, workers: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            convolution = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Dropout(0.2))
            self.model = nn.Sequential(convolution, nn.Flatten(), nn.Linear(64, 3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 18)
        self.loader = ImportanceLoader(pictures(), SIZE, smoothing="entropy:0.9", refresh_every=2, num_workers=workers)
        self.parts: tuple[Any, ...] = (self.model, self.optimizer, self.schedule, self.loader)
        self.losses: list[float] = []

    def saved(self, epoch: int) -> dict[str, Any]:
        buffer = io.BytesIO()
        random = torch.get_rng_state()
        torch.save({"parts": [part.state_dict() for part in self.parts], "epoch": epoch, "random": random}, buffer)
        buffer.seek(0)
        loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
        return loaded

    def train(self, epochs: range, save_at: int | None = None) -> dict[str, Any]:
        """Three epochs, or the rest of them; what was saved at a step, or else behind the first epoch."""
        saved = {}
        for epoch in epochs:
            for (images, labels), drawn in self.loader:
                self.optimizer.zero_grad()
                losses, norms = weighted_backward(cross_entropy, self.model, images, labels, drawn.factors)
                self.loader.update(drawn, norms)
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                self.losses.append(float(losses.mean()))
                if drawn.step == save_at:
                    saved = self.saved(epoch)
            if save_at is None and not saved:
                saved = self.saved(epoch + 1)
        return saved


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("save_at", [7, 9, EPOCH - 1, 2 * EPOCH - 1, None])
def test_a_loop_that_is_resumed_goes_on_to_the_bit(workers: int, save_at: int | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        whole, rest = Loop(workers), Loop(workers)
        saved = whole.train(range(3), save_at)
        torch.manual_seed(2)
        for part, state in zip(rest.parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        torch.set_rng_state(saved["random"])
        rest.train(range(saved["epoch"], 3))
    done = EPOCH if save_at is None else save_at + 1
    assert len(whole.losses) == 3 * EPOCH
    assert rest.losses == whole.losses[done:]
    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)
    ends = [loop.loader.state_dict() for loop in (whole, rest)]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name], err_msg=name)


def test_what_was_drawn_ahead_keeps_the_factors_of_its_draw_when_resumed() -> None:
    loader = ImportanceLoader(range(EXAMPLES), SIZE, refresh_every=1, smoothing=0.5, num_workers=2)
    passing = iter(loader)
    _, drawn = next(passing)
    loader.update(drawn, torch.full((SIZE,), 50.0))
    state = loader.state_dict()
    assert isinstance(state["ahead_indices"], Tensor)
    assert state["ahead_indices"].shape == (4, SIZE)
    resumed = ImportanceLoader(range(EXAMPLES), SIZE, refresh_every=1, smoothing=0.5)  # of no workers
    resumed.load_state_dict(state)
    found = [drawn for _, drawn in resumed]
    assert [drawn.step for drawn in found] == [1, 2, 3, 4, 5]
    for one, (_, other) in zip(found[:4], passing, strict=False):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.factors, other.factors)
    assert (found[0].factors == 1).all()


class Noisy(Dataset[Tensor]):
    """Examples with an augmentation at random, as torch's are, in workers that torch seeds."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(2)


def test_workers_draw_their_augmentations_anew_each_epoch_and_as_then_in_an_epoch_that_is_repeated() -> None:
    loader = ImportanceLoader(Noisy(), SIZE, num_workers=1)
    first = [examples for examples, _ in loader]
    state = loader.state_dict()
    second = [examples for examples, _ in loader]
    assert not torch.equal(first[0], second[0])
    again = ImportanceLoader(Noisy(), SIZE, num_workers=1)
    again.load_state_dict(state)
    assert all(torch.equal(*pair) for pair in zip(second, (examples for examples, _ in again), strict=True))


# The sampler alone, under a DataLoader of one's own


@pytest.mark.parametrize("options", WORKERS, ids=str)
def test_a_data_loader_of_ones_own_is_given_what_the_loader_gives(options: dict[str, Any]) -> None:
    sampler = ImportanceSampler(EXAMPLES, SIZE, smoothing=0.5, refresh_every=1, seed=3)
    assert isinstance(sampler, Sampler)
    examples: Any = range(EXAMPLES)
    own = DataLoader(examples, batch_sampler=sampler, **options)
    ours = ImportanceLoader(range(EXAMPLES), SIZE, smoothing=0.5, refresh_every=1, seed=3, **options)
    assert len(own) == EPOCH
    for _ in range(3):
        for (loaded, drawn), other in zip(sampler.along(own), taught(ours), strict=True):
            assert torch.equal(loaded, drawn.indices)
            assert torch.equal(drawn.indices, other.indices)
            assert torch.equal(drawn.factors, other.factors)
            sampler.update(drawn, made_up_norms(drawn.step, drawn.indices))


@pytest.mark.parametrize("workers", [0, 2])
def test_minibatches_without_their_factors_are_refused(workers: int) -> None:
    sampler = ImportanceSampler(EXAMPLES, SIZE)
    examples: Any = range(EXAMPLES)
    loader = DataLoader(examples, batch_sampler=sampler, num_workers=workers)
    with pytest.raises(ConfigError, match=r"biased: loop over sampler\.along\(loader\)"):
        next(iter(loader))
    assert [drawn.step for _, drawn in sampler.along(loader)] == list(range(EPOCH))
    with pytest.raises(ConfigError, match="biased"):
        next(iter(loader))


def test_another_data_loader_is_refused_instead_of_given_factors_that_are_not_its_own() -> None:
    sampler = ImportanceSampler(EXAMPLES, SIZE)
    examples: Any = range(EXAMPLES)
    others: list[Any] = [
        DataLoader(examples, SIZE),
        DataLoader(examples, batch_sampler=BatchSampler(RandomSampler(examples), SIZE, drop_last=False)),
        DataLoader(examples, batch_sampler=ImportanceSampler(EXAMPLES, SIZE)),
        DataLoader(examples, batch_sampler=[[0, 1], [2, 3]]),
    ]
    for other in others:
        with pytest.raises(ConfigError, match="make it with batch_sampler"):
            next(sampler.along(other))


# What is refused


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (range(3), {"shuffle": True}, "take out shuffle"),
        (range(3), {"in_order": False, "num_workers": 1}, "take out in_order=False"),
        (range(3), {"sampler": [0], "drop_last": True}, "take out sampler, drop_last"),
        (Stream(), {}, "Stream has no examples"),
        (range(0), {}, "range has no examples"),
        (range(3), {"batch_size": 0}, r"batch_size \(0\) must be a whole number of 1 at least"),
        (range(3), {"batch_size": 8.5}, r"batch_size \(8\.5\)"),
        (range(3), {"batch_size": True}, r"batch_size \(True\)"),
        (range(3), {"refresh_every": 0}, r"refresh_every \(0\)"),
        (range(3), {"refresh_every": 1.5}, r"refresh_every \(1\.5\)"),
        (range(3), {"seed": -1}, r"seed \(-1\) must be a whole number of 0 at least"),
        (range(3), {"seed": None}, r"seed \(None\)"),
        (range(3), {"smoothing": "much"}, "'much' is unknown"),
        (range(3), {"smoothing": "second-moment"}, "use 'variance-optimal'"),
    ],
)
def test_what_cannot_be_drawn_by_importance_is_refused(given: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        next(iter(ImportanceLoader(given, **{"batch_size": 2, **options})))


def test_an_option_that_a_data_loader_does_not_know_is_refused_as_it_does() -> None:
    with pytest.raises(TypeError, match="num_worker"):
        ImportanceLoader(range(3), 2, num_worker=1)


@pytest.mark.parametrize(
    ("norms", "words"),
    [([1, 2], r"shape \(2,\)"), ([1, 2, float("nan")], "1 of 3 weights are NaN"), ([1, -2, 3], "negative")],
)
def test_norms_that_cannot_be_true_are_refused_and_change_nothing(norms: list[float], words: str) -> None:
    loader = ImportanceLoader(range(9), 3)
    (_, drawn), *_ = loader
    with pytest.raises(WeightError, match=words):
        loader.update(drawn, torch.tensor(norms))
    assert torch.as_tensor(loader.state_dict()["norms"]).isnan().all()


def test_norms_that_are_all_0_ask_for_smoothing_by_the_name_that_it_has_here() -> None:
    loader = ImportanceLoader(range(3), 3, smoothing=0.0)
    (_, drawn), *_ = loader
    loader.update(drawn, torch.zeros(3))
    with pytest.raises(WeightError, match=r"norms are zero.*Set `smoothing`"):
        next(iter(loader))


def test_the_state_of_another_loader_is_refused() -> None:
    state = ImportanceLoader(range(9), 3, seed=1).state_dict()
    with pytest.raises(ConfigError, match=r"examples 9 for 8, seed 1 for 0\. Make"):
        ImportanceLoader(range(8), 3).load_state_dict(state)
