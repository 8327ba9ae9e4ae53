"""The monitor's hot path, eq. 6-9 with six smoothing constants, and the search for the variance-optimal constant."""

from issgd_cli.actors.monitor import quantities
from issgd_cli.equations import alain2015 as equations
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.smoothing import smoothed, variance_optimal_constant
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import interleaved

CONSTANTS = (10.0, 0.0, 0.1, 1.0, 3.0, 100.0)  # the first is the one in use
TRACES, SEARCH = "monitor: eq. 6-9, six smoothing constants", "smoothing: variance-optimal constant"
OURS, ONE_BY_ONE = "issgd", "the equations one by one"
BARS_MS = {TRACES: 60.0, SEARCH: 50.0}


def rows(scale: Scale) -> list[Row]:
    """One sample of everything but the reading, and one search."""
    layout = stage.layout(scale)
    records = stage.all_records(layout)
    train = records["train"]

    def one_by_one() -> None:
        squared = train.norms.astype(float) ** 2
        equations.ideal_trace(squared, 0.0)
        equations.uniform_trace(squared, 0.0)
        for constant in CONSTANTS:
            weights = smoothed(train.previous_norms, constant)
            equations.stale_trace(squared, weights.clip(FLOOR * weights.mean()), 0.0)

    timings = interleaved(
        {
            OURS: lambda: quantities(records, layout, CONSTANTS[0], CONSTANTS[1:]),
            ONE_BY_ONE: one_by_one,
            SEARCH: lambda: variance_optimal_constant(train.previous_norms, train.norms),
        },
        scale.repeats,
    )
    return [
        Row(
            SEARCH if name == SEARCH else TRACES,
            OURS if name == SEARCH else name,
            f"N = {layout.train:,}",
            timings.seconds(name).times(1e3),
            "ms",
            bar=None if name == ONE_BY_ONE else BARS_MS[SEARCH if name == SEARCH else TRACES],
            note="with the means of losses and errors and both estimates of ||g_TRUE||^2" if name == OURS else "",
        )
        for name in timings.rounds
    ]
