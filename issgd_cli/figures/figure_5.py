"""Methods side by side, as the papers that followed show them: at equal epochs, at equal work and at equal seconds.

Not a figure of the first paper. Steps are epochs, since all methods' minibatches are of one size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.quantiles import BINS, Axis
from issgd_cli.claims.settings import setting_title
from issgd_cli.figures import style
from issgd_cli.figures.curves import PREFIX, Curve, Panel, Source, draw_panel, method_curves, runs_note, sampled_bands
from issgd_cli.figures.figure_4 import rooted
from issgd_cli.registries import METHODS
from issgd_cli.runs.traces import IN_EXAMPLES

TITLE = "Methods side by side: losses, errors and the variance of what is drawn from"
AXES: tuple[Axis, ...] = ("steps", "examples", "seconds")
ROW_COUNT = 3
FALLS_FAR = 5.0  # or a fall that is drawn logarithmically
FAR_ABOVE = 3.0  # that a beginning is left out
MUCH_FURTHER = 30.0  # how many times as long one method's curve is as another's


def load(runs: Runs, axis: Axis = "steps", source: Source = "audit", interval: bool = False) -> list[list[Panel]]:
    """Panels by row, and by setting and axis: those of AXES, whatever is asked for.

    Source: the figures of Salaun et al. 2023 and 2024; the square roots of traces are those of Alain et al. 2015.
    """
    columns = [(setting, along) for setting in runs.settings for along in AXES]
    rows: list[list[Panel]] = []
    for quantity, label in _rows(runs):
        rows.append(
            [
                Panel(
                    setting_title(runs, setting) if not rows and along == AXES[0] else "",
                    label if along == AXES[0] else "",
                    tuple(_curves(runs, setting, quantity, along, source, interval)),
                    runs.virtual,
                )
                for setting, along in columns
            ]
        )
    return rows


def draw(axes: Sequence[Sequence[Axes]], panels: list[list[Panel]], axis: Axis = "steps") -> None:
    """Draws the panels; axes are logarithmic where a loss falls far, or a method goes much further than another."""
    for places, row in zip(axes, panels, strict=True):
        values = np.concatenate([curve.bands.median for panel in row for curve in panel.curves] or [np.empty(0)])
        values = values[np.isfinite(values)]
        far = len(values) > 0 and values.min() > 0 and values.max() > FALLS_FAR * values.min()
        for number, (place, panel) in enumerate(zip(places, row, strict=True)):
            draw_panel(place, panel, AXES[number % len(AXES)])
            ends = [float(line.get_xdata()[-1]) for line in place.lines if len(line.get_xdata()) > 1]  # type: ignore[index,arg-type]
            if ends and 0 < MUCH_FURTHER * min(ends) < max(ends):
                place.set_xscale("symlog", linthresh=min(ends) / 10)
            else:
                place.locator_params(axis="x", nbins=6)  # numbers of examples are long
            if far:
                place.set_yscale("log")
                place.set_ylim(top=_top(row))
            elif panel.curves:
                place.set_ylim(bottom=min(0.0, place.get_ylim()[0]))
    style.legend_above(axes[0][0])


def _top(row: Sequence[Panel]) -> float | None:
    """Of a logarithmic axis: where all begin far above whatever comes then, what comes then; None: everything."""
    medians = [curve.bands.median[np.isfinite(curve.bands.median)] for panel in row for curve in panel.curves]
    first, then = (np.concatenate([median[part] for median in medians]) for part in (slice(1), slice(1, None)))
    return 1.5 * float(then.max()) if len(then) and first.min() > FAR_ABOVE * then.max() else None


def notes(runs: Runs, source: Source, interval: bool) -> list[str]:
    """Lines of the footnote."""
    if any((run.trace["quantity"] == IN_EXAMPLES).any() for run in runs.runs):
        work = (
            "Work: of an example a third for its forward pass, its backward pass and its weight gradients each, norms "
            "by their operations; a look before drawing and workers' scores, where a method draws by them, count too."
        )
    else:
        work = (
            "Work: examples trained on and, where a method draws by workers' scores, those that they score; a look at "
            "an example before it is drawn is its forward pass, and counts as a third."
        )
    told = [*runs_note(runs, source, interval), work]
    told.append("Where a logarithmic axis ends below it, all begin far above.")
    if not all(map(_is_described, runs.runs)):
        told.append("Sqrt Tr is shown of those methods alone whose minibatches it describes.")
    if any(run.config.proposal.method == "omis" for run in runs.runs):
        told.append("OMIS with beta > 0 averages over minibatches: its Tr is to be compared with that of momentum.")
    return told


def _rows(runs: Runs) -> list[tuple[str, str]]:
    """Quantity and label: without errors there are test losses; the traces come last."""
    has_errors = any(len(run.series("audit/error/test").values) for run in runs.runs)
    second = ("error/test", "test prediction error") if has_errors else ("loss/test", "test loss")
    return [("loss/train", "training loss"), second, ("trace/in_use", "sqrt Tr(Σ) in use")]


def _curves(runs: Runs, setting: str, quantity: str, axis: Axis, source: Source, interval: bool) -> Iterator[Curve]:
    """One a method; of traces their square roots, and the ideal's along the method whose proposal is shown."""
    curves, names = method_curves(runs, setting, quantity, axis, source, interval), style.looks(runs)
    if quantity != "trace/in_use":
        yield from curves
    else:
        described = {names[run.method].name for run in runs.runs if _is_described(run)}
        for curve in curves:
            if curve.label in described:
                yield Curve(curve.label, rooted(curve.bands), curve.line)
        ideal = sampled_bands(runs.of(setting, runs.importance), f"{PREFIX[source]}trace/ideal", axis, BINS, False)
        if ideal:
            line = {"color": "#999999", "linestyle": "-"}
            label = f"ideal, where {names[runs.importance].name} is"
            yield Curve(label, rooted(ideal), line, width=1.2, quartiles=False)


def _is_described(run: Run) -> bool:
    return METHODS.parts[run.config.proposal.method].described
