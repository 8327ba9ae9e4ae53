"""Methods side by side: what is shown of which, and on which scale."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from issgd_cli.figures import figure_5
from tests.claims.test_followers import SEEDS, run_of, runs_of

METHODS = ("online", "sgd", "mis", "omis", "reshuffled", "dlis", "low", "infobatch", "adaptive")


def curves(of_method: float, fall: float) -> dict[str, Any]:
    loss = of_method * np.geomspace(1, 1 / fall, 5)
    return {"audit/loss/train": loss, "audit/trace/in_use": loss + 1, "audit/trace/ideal": loss}


def test_variance_is_shown_of_what_audits_describe_and_the_ideal_says_along_which_runs() -> None:
    runs = runs_of(*([run_of(label, seed, curves(1.0, 3.0)) for seed in range(SEEDS)] for label in METHODS))
    losses, *_, traces = figure_5.load(runs)
    assert len(losses[0].curves) == len(METHODS)
    shown = [curve.label for curve in traces[0].curves]
    assert len(shown) == 5
    assert shown[-1] == "ideal, where IS is"  # the first of which a paper is
    notes = " ".join(figure_5.notes(runs, "audit", False))
    assert "of those methods alone whose minibatches it describes" in notes
    assert "averages over minibatches" in notes
    alone = runs_of([run_of("online", seed, curves(1.0, 3.0)) for seed in range(SEEDS)])
    assert not {"describes", "averages"} & set(" ".join(figure_5.notes(alone, "audit", False)).split())


def test_what_falls_far_is_drawn_logarithmically() -> None:
    """An error from 0.9 to 0.06 would else be a flat line, whatever the method; more so if it falls at once."""
    for fall, scale in ((3.0, "linear"), (15.0, "log")):
        runs = runs_of([run_of("online", seed, curves(0.9, fall)) for seed in range(SEEDS)])
        panels = figure_5.load(runs)
        axes = Figure().subplots(len(panels), len(panels[0]), squeeze=False)
        figure_5.draw(axes.tolist(), panels)
        assert axes[0][0].get_yscale() == scale
        assert axes[0][0].get_ylim()[1] > 0.9
    at_once = {"audit/loss/train": [0.9, 0.1, 0.08, 0.07, 0.06]}
    panels = figure_5.load(runs_of([run_of("online", seed, at_once) for seed in range(SEEDS)]))
    axes = Figure().subplots(len(panels), len(panels[0]), squeeze=False)
    figure_5.draw(axes.tolist(), panels)
    assert 0.1 < axes[0][0].get_ylim()[1] < 0.3
