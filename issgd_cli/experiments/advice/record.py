"""advice.json: all that a trial has told, as plain values. The page, its figure and the screen are made of it alone."""

import math
from typing import Any

import numpy as np

from issgd_cli.config.config import Config
from issgd_cli.experiments.advice.costs import QUIETER, Cost
from issgd_cli.experiments.advice.forecast import CERTAINTY, PAYS, RESAMPLES, Advice, Forecast
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.trial import Trial
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator


def record(told: Advice, config: Config, problem: Problem, device: str) -> dict[str, Any]:
    """The whole of advice.json; all but what rests on measured seconds is the same to the bit, run again."""
    trial = told.trial
    return {
        "trial": {
            "data": config.data.name,
            "fingerprint": problem.data.fingerprint,
            "network": config.model.network,
            "parameters": problem.size,
            "loss": config.model.loss,
            "optimizer": config.optimizer.kind,
            "learning_rate": config.optimizer.learning_rate,
            "minibatch_size": trial.minibatch_size,
            "seed": config.seed,
            "examples": trial.examples,
            "measured": len(told.moments[0].uniform),
            "steps": trial.steps,
            "planned_steps": trial.planned,
            "steps_an_epoch": trial.epoch,
            "device": device,
        },
        "costs": {
            name: cost._asdict() if isinstance(cost, Cost) else cost for name, cost in trial.costs._asdict().items()
        },
        "quieter": {"times": QUIETER, "shares_of_noise": list(told.noise), "loss": _losses(trial)},
        "moments": [
            _moment(moment, float(share), trial.epoch, config.seed)
            for moment, share in zip(told.moments, told.parts, strict=True)
        ],
        "methods": [_method(one) for one in (told.uniform, told.ideal, *told.others)],
        "certainty": CERTAINTY,
        "resamples": RESAMPLES,
        "pays_from": PAYS,
        "choice": told.choice.way.name,
        "because": told.because,
        "quickest": None if told.quickest is None else told.quickest.way.name,
    }


def _losses(trial: Trial) -> dict[str, list[float]]:
    """Step -> that of the trial, and of its second run."""
    return {str(step): [one.loss, trial.quieter[step]] for step, one in sorted(trial.measures.items())}


def _moment(moment: Moment, share: float, epoch: float, seed: int) -> dict[str, Any]:
    random = generator(seed, "advised", 0)  # of no consequence: at a measured age there is no chance
    return {
        "step": moment.now.step,
        "epoch": moment.now.step / epoch,
        "share_of_run": share,
        "loss": moment.now.loss,
        "gradient_norm2": moment.now.gradient_norm2,
        "uniform_trace": moment.trace(moment.uniform),
        "ideal": moment.relative(moment.ideal),
        "variance_share": moment.variance_share,
        "by_age": {
            str(age): {
                "best": moment.relative(moment.expected(np.full(len(moment.uniform), float(age)), random)),
                "unsmoothed": moment.relative(moment.unsmoothed(age)),
            }
            for age in moment.ages.tolist()
        },
    }


def _method(one: Forecast) -> dict[str, Any]:
    way = one.way
    return {
        "name": way.name,
        "label": way.label,
        "settings": way.settings,
        "workers": way.workers,
        "sweep_steps": way.sweep_steps,
        "trace": one.trace,
        "trace_by_moment": list(one.trace_by_moment),
        "survives": None if math.isnan(one.survives) else one.survives,
        "steps": one.steps,
        "work": one.work,
        "work_low": one.work_error.low,
        "work_high": one.work_error.high,
        "seconds": one.seconds,
        "seconds_low": one.seconds_error.low,
        "seconds_high": one.seconds_error.high,
        "work_by_moment": list(one.by_moment),
    }
