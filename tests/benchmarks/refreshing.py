"""The master's refresh: from the table in a real server to a proposal that can be drawn from."""

from functools import partial

import numpy as np

from issgd_cli.actors.master import Master
from issgd_cli.database import Published
from issgd_cli.methods.proposal import Proposal
from issgd_cli.problem import Problem
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import interleaved

PATH = "master: reading and preparing the weights"
OURS, FLOOR = "issgd", "GET and cumulative sums alone"
BAR_MS = 15.0
SETTINGS = {
    OURS: [],
    "issgd, staleness limit 0.5 s": ["proposal.staleness_limit_seconds=0.5"],
    "issgd, entropy 0.9": ["proposal.smoothing=entropy:0.9"],
    "issgd, variance-optimal": ["proposal.smoothing=variance-optimal"],
}


def rows(scale: Scale) -> list[Row]:
    """With a constant added, with a filter, and with the adaptive smoothings."""
    layout = stage.layout(scale)
    with stage.dataset(scale) as data, stage.run_folder() as folder, stage.real_database(layout) as (database, _, _):
        masters = {}
        for name, extra in SETTINGS.items():
            config = stage.config(scale, *extra)
            masters[name] = Master.of(config, Problem(config, data), database, folder, stage.CPU)
        newest = Published(4, 0)
        timings = interleaved(
            {
                **{name: partial(master.refreshed, newest) for name, master in masters.items()},
                FLOOR: lambda: Proposal.of(database.weights().norms.astype(np.float64) + 10.0),
            },
            scale.repeats,
        )
    return [
        Row(
            PATH,
            name,
            f"N = {layout.train:,}",
            timings.seconds(name).times(1e3),
            "ms",
            bar=BAR_MS if name == OURS else None,
            note="GET, filter, smoothing, cumulative sums, and the report for the trace" if name == OURS else "",
        )
        for name in timings.rounds
    ]
