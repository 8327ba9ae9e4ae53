"""How large the benchmarks' problems are: the paper's, and tiny ones to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """See the module.

    Attributes:
        features, hidden, classes: Of the network.
        batches: Sizes of a minibatch, or of a chunk that is scored.
        examples: N of the training split.
        many: N where it is to be seen that something scales, and its steps up to there.
        chunk_size: Examples that a worker scores at once.
        repeats: Rounds of interleaved timings.
        long_repeats: The same of what takes minutes.
        training_steps: Of the network that counts as trained.
        official: Examples of SVHN's train, extra and test files.
        seconds: How long throughput is watched.
        worker_counts: Processes of which the throughput is measured; None: up to twice the cores.
        shrink: What widths, lengths and minibatches of the networks beside the paper's are divided by.
    """

    features: int = 3072
    hidden: tuple[int, ...] = (2048, 2048, 2048, 2048)
    classes: int = 10
    batches: tuple[int, ...] = (128, 512)
    examples: int = 600_000
    many: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    chunk_size: int = 2048
    repeats: int = 15
    long_repeats: int = 3
    training_steps: int = 300
    official: tuple[int, int, int] = (73_257, 531_131, 26_032)
    seconds: float = 10.0
    worker_counts: tuple[int, ...] | None = None
    shrink: int = 1


FULL = Scale()
QUICK = Scale(
    features=48,
    hidden=(16, 16),
    batches=(8,),
    examples=3000,
    many=(1000, 2000),
    chunk_size=256,
    repeats=2,
    long_repeats=1,
    training_steps=20,
    official=(120, 200, 60),
    seconds=0.2,
    worker_counts=(1,),
    shrink=4,
)
