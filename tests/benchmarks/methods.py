"""What each method that needs no workers costs a step, against a plain loop of uniform SGD: an MLP, a small ResNet."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import isqrt

import numpy as np
import torch

from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.looking import Looking
from issgd_cli.methods.online import Online
from issgd_cli.methods.trials import Trials
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import CALLS, interleaved
from tests.masters import refresh, train

PLAIN = "plain, fused"
MOST_EXAMPLES = 50_000
# By name: settings, and the most times a plain step on the MLP, and on the ResNet, that it may take.
METHODS: dict[str, tuple[list[str], float | None, float | None]] = {
    "sgd": (["proposal.method=sgd"], None, None),
    "online": (["proposal.method=online"], 1.03, 1.03),
    "adaptive": (["proposal.method=adaptive"], 1.03, 1.03),
    "mis, J = 3": (["proposal.method=mis"], 1.05, 1.05),
    "omis, J = 3, beta = 0": (["proposal.method=omis", "omis.beta=0"], 1.10, 1.10),
    "omis, J = 3, beta = .7": (["proposal.method=omis"], 2.2, 2.5),
    "omis, J = 3, beta = .7, unbiased": (["proposal.method=omis", "omis.correction=unbiased"], None, None),
    "dlis, always looking": (["proposal.method=dlis", "dlis.threshold=1e-9"], None, None),
    "low": (["proposal.method=low"], None, None),
    "reshuffled": (["proposal.method=reshuffled"], None, None),
    "pruning": (["proposal.method=pruning"], 1.03, 1.03),
    "infobatch": (["proposal.method=infobatch", "infobatch.until=1"], None, None),
    "second-moment": (["proposal.method=second-moment"], 1.03, 1.03),
    "looking, always, for 2 x the work": (["proposal.method=looking"], 2.1, 2.1),
}
NETWORKS = {
    "MLP": [],
    "MLP of width 256": ["model.hidden=[256,256,256,256]"],  # the scoreboard's
    "ResNet-18 of width 8": ["model.network=resnet18", "resnet18.width=8", "resnet18.norm=group"],
}


def rows(scale: Scale, device: torch.device = stage.CPU) -> list[Row]:
    """Each method beside the plain loop alone, so that a machine's memory is not full of networks; the bars are a
    CPU's."""
    with stage.dataset(scale, min(scale.examples, MOST_EXAMPLES)) as data, stage.run_folder() as folder:
        side = isqrt(data.shape[0] // 3)
        pictures = replace(data, shape=(3, side, side))
        return [
            row
            for network in NETWORKS
            for row in _of(scale, network, data if network.startswith("MLP") else pictures, folder, device)
        ]


def _of(scale: Scale, network: str, data: Prepared, folder: RunFolder, device: torch.device) -> Iterator[Row]:
    size = scale.batches[0]
    settings = [*NETWORKS[network], f"master.minibatch_size={size}", "worker.count=0"]
    plain = _plain(stage.config(scale, *settings), data, device)
    for name, (own, most_of_mlp, most_of_others) in METHODS.items():
        master = _master(stage.config(scale, *settings, *own), data, folder, device)
        ways: dict[str, Callable[[], object]] = {PLAIN: plain, name: partial(train, master)}
        timings = interleaved(ways, scale.repeats, device=device, calls=CALLS[device.type])
        yield Row(
            f"methods: a step of the {network}",
            name,
            f"batch {size}",
            timings.ratios(name, PLAIN),
            "x plain",
            timings.seconds(name).median,
            {"MLP": most_of_mlp, "MLP of width 256": None}.get(network, most_of_others),
            counts=device.type == "cpu",
        )


def _plain(config: Config, data: Prepared, device: torch.device) -> Callable[[], None]:
    """A step of uniform SGD with momentum as a user would write it, on the same network and the same examples."""
    examples, random = Examples(data, data.splits["train"], device), torch.Generator(device).manual_seed(0)
    model = Problem(config, data).initial_network(0, device)
    steps = torch.optim.SGD(model.parameters(), 0.0001, 0.95, nesterov=True, fused=True)

    def step() -> None:
        indices = torch.randint(len(examples), (config.master.minibatch_size,), generator=random, device=device)
        inputs, labels = examples[indices]
        steps.zero_grad()
        cross_entropy(model(inputs), labels).mean().backward()  # type: ignore[no-untyped-call]
        steps.step()

    return step


def _master(config: Config, data: Prepared, folder: RunFolder, device: torch.device) -> Master:
    """In its second epoch, where its method has a table of importances; the second moment keeps norms in both."""
    database = stage.memory_database(stage.layout_of(data, config))
    master = Master.of(config, Problem(config, data), database, folder, device)
    master.publishing.version = stage.NEXT_VERSION
    refresh(master)
    method = master.method
    if isinstance(method, Online):
        importances = np.random.default_rng(0).exponential(1.0, method.importances.values.shape)
        method.recall({**method.learned(), "importances": importances, "is_filled": np.array(True)})
    if config.proposal.method == "dlis":
        method.recall({"gain": np.array(1.0)})
    if isinstance(method, Looking):
        method.recall({**method.learned(), "trials": Trials(under_way=True, succeeded=True).numbers()})
    return master
