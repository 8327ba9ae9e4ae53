"""What of the runs is not as in the papers that they reproduce, as far as configurations and manifests tell."""

from issgd_cli.claims.evidence import FIRST_PAPER, PEERS, Runs, audits_told, is_papers
from issgd_cli.config.sections import ORIGINAL_CHUNK, PAPER_EXAMPLES
from issgd_cli.figures.conditions import PAPER_MINIBATCH, PAPER_PUBLISH, dataset_of, listed

# The first paper's. Source: section 5.1, Table 1, the original code.
PAPER_HIDDEN, PAPER_SEEDS, PAPER_STD = (2048,) * 4, 50, 0.01
OFFICIAL_TEST, SMALL_TEST = 26_032, 2_000  # crops: of SVHN, and of the small files that svhn-small was made for


def differences(runs: Runs) -> list[str]:
    """A line each; of the first paper and of those that followed, whichever the runs are about."""
    if not runs.runs:
        return []
    first = _from_first(runs) if FIRST_PAPER in runs.papers else []
    return [*first, *(_from_followers(runs) if set(runs.papers) - {FIRST_PAPER, PEERS} else [])]


def _from_first(runs: Runs) -> list[str]:
    lines = [*_data_differs(runs), *_model_differs(runs)]
    issgd = [run.config for run in runs.runs if run.config.proposal.method == "issgd" and is_papers(run)]
    chosen = {(config.optimizer.learning_rate, config.proposal.smoothing) for config in issgd}
    if not chosen <= {(0.01, 10.0), (0.001, 1.0)}:
        lines.append("Learning rates or smoothings are not the paper's (0.01 with +10, 0.001 with +1).")
    lines += [*_steps_differ(runs), *_publishing_differs(runs), *_chunks_differ(runs)]
    seeds = len({run.seed for run in runs.runs})
    if seeds != PAPER_SEEDS:
        lines.append(f"Seeds: {seeds}, the paper has {PAPER_SEEDS}.")
    counts = {config.worker.count for config in issgd}
    if counts - {3}:
        lines.append(f"Workers of ISSGD: {listed([str(count) for count in sorted(counts)])}, the paper has 3.")
    if runs.virtual:
        lines.append(
            "Time and place: simulated; all seconds are those of the virtual clock. With a preset a worker's rate is "
            "scaled by N / 570,000, so that a sweep takes as many steps as on the paper's cluster; in epochs it is "
            "longer by the inverse factor. The database serves everybody at once: many workers that pull together do "
            "not share its bandwidth, which flatters large clusters."
        )
    return [
        *lines,
        "The paper's curves are means of records at mixed parameter versions; they are drawn so, but claims are judged "
        f"on {audits_told(runs.runs)}.",
        "Its time axes compare different numbers of GPUs; here equal steps, work and seconds are all told. Work is "
        "counted in examples that a method needs: SGD's are those that it trains on, since its worker only measures; "
        "ISSGD's those that it trains on and those that its workers score.",
        "The original's plotted stale curves took a square root of what was already a norm; here eq. 9 is computed as "
        "printed.",
    ]


def _from_followers(runs: Runs) -> list[str]:
    """Neither of these papers has public code, a table of results, or more than curves to compare with."""
    lines = [
        "The papers that followed show curves of single runs, without error bars; here every verdict is by seeds, and "
        f"there are {len({run.seed for run in runs.runs})}.",
        "Values that they don't give are ours, and said so where they stand in the code: epsilon of IS, the law of "
        "pruning, which output nodes are proposals where there are more of them, the ridge of OMIS.",
        "Beside their baseline, uniform draws, there are reshuffled epochs, what everybody really uses; beside equal "
        "epochs and equal seconds there is equal work.",
    ]
    sizes = {dataset_of(run).get("train"): run for run in runs.runs}
    told = [f"{size:,} of {run.config.data.name}" for size, run in sizes.items() if isinstance(size, int)]
    lines.append(f"Size: {listed(told)} training examples; networks, steps and minibatches are told above.")
    if any(run.config.cluster.kind == "alone" for run in runs.runs):
        lines.append("Seconds are those of one process that trains; audits are made afterwards and cost it nothing.")
    return lines


def _data_differs(runs: Runs) -> list[str]:
    lines = []
    for name in dict.fromkeys(run.config.data.name for run in runs.runs):
        dataset = next(dataset_of(run) for run in runs.runs if run.config.data.name == name)
        test = dataset.get("test")
        if not name.startswith("svhn"):
            lines.append(f"Data: {name}, not SVHN; test errors don't compare with the paper's.")
        elif name.startswith("svhn-small") or (test and test != OFFICIAL_TEST):
            lines.append(
                "Data: real SVHN crops, not in their official parts; test errors don't compare with the paper's."
            )
            if name.startswith("svhn-small") or test == SMALL_TEST:
                lines.append(
                    "Official test crops are among the training examples: the small files' train part is the first "
                    f"1,083 official train and the first 7,000 official test crops, their test part the next "
                    f"{SMALL_TEST:,} official test crops."
                )
        if (train := dataset.get("train")) and train < 0.9 * PAPER_EXAMPLES:
            lines.append(f"Size: {train:,} training examples of {name}, the paper has about {PAPER_EXAMPLES:,}.")
    return lines


def _model_differs(runs: Runs) -> list[str]:
    model = runs.runs[0].config.model
    lines = [] if model.loss == "cross-entropy" else [f"Loss: {model.loss}, the paper's: cross-entropy."]
    if model.network != "mlp":
        return [*lines, f"Model: {model.network}, the paper's: 4 hidden layers of 2048."]
    if model.hidden != PAPER_HIDDEN:
        lines.append(f"Model: {len(model.hidden)} hidden layers of {model.hidden[0]}, the paper's: 4 of 2048.")
    std = model.initial_weight_std
    if std is not None and std != PAPER_STD:
        lines.append(f"Initial weights: standard deviation {std:g}, the original's {PAPER_STD:g}.")
    elif std is None and min(model.hidden[:-1], default=PAPER_HIDDEN[0]) < PAPER_HIDDEN[0]:
        lines.append(
            f"Initial weights: standard deviation {PAPER_STD:g} as the original's, but sqrt(2048 / width) times that "
            "in hidden layers after the first, which are narrower than 2048."
        )
    return lines


def _steps_differ(runs: Runs) -> list[str]:
    """What a step is made of."""
    lines = []
    kinds = {run.config.optimizer.kind for run in runs.runs}
    if kinds != {"sgd"}:
        lines.append(f"Optimiser: {listed(sorted(kinds))}, the paper's: sgd.")
    sizes = {run.config.master.minibatch_size for run in runs.runs}
    if sizes != {PAPER_MINIBATCH}:
        told = listed([str(size) for size in sorted(sizes)])
        lines.append(f"Minibatches: {told} examples, the original's {PAPER_MINIBATCH}.")
    return lines


def _chunks_differ(runs: Runs) -> list[str]:
    """What B.2's bound is made of."""
    sizes = {run.config.worker.chunk_size for run in runs.runs if run.by_scores}
    if not sizes - {ORIGINAL_CHUNK}:
        return []
    told = listed([f"{size:,}" for size in sorted(sizes)])
    return [f"Chunks that workers score: {told} examples, the original's {ORIGINAL_CHUNK:,}; B.2's bound is by chunks."]


def _publishing_differs(runs: Runs) -> list[str]:
    lines = []
    for method, label in (("issgd", "ISSGD"), ("sgd", "SGD")):
        rates = {run.config.master.publish_every_steps for run in runs.runs if run.config.proposal.method == method}
        if rates - {PAPER_PUBLISH[method]}:
            told = listed([str(rate) for rate in sorted(rates)])
            lines.append(f"{label} publishes every {told} steps, the original every {PAPER_PUBLISH[method]}.")
    return lines
