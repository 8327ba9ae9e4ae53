"""An experiment: a TOML file x its settings x its datasets x its methods x seeds -> runs."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from issgd_cli.config.config import Config
from issgd_cli.config.layers import merged
from issgd_cli.config.sections import StalenessMap
from issgd_cli.config.toml import read_toml
from issgd_cli.config.validation import resolve, resolve_map
from issgd_cli.errors import ConfigError
from issgd_cli.experiments import listed
from issgd_cli.experiments.listed import NAMELESS, Table
from issgd_cli.registries import METHODS
from issgd_cli.runs.folder import CHOOSING, Measure, RunFolder, run_folder

Mode = Literal["exact", "relaxed"]

TIMELINE = "timeline"  # stands for the setting in the names of figure 1's runs


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        config: Every value resolved. Data from a file of the user's are named by its content, not by its path.
        setting: Name of its setting.
        method: Name of its method.
        data_file: The user's file, where the data come from one.
        dataset: Name of its dataset in the experiment; empty where that lists none.
        chooses: By what it chooses its method's setting (experiments/selection.py), and then is there for nothing else;
            empty: it does not.
    """

    config: Config
    setting: str
    method: str
    data_file: Path | None = None
    dataset: str = ""
    chooses: Sequence[Measure] = ()

    def folder(self, results: Path) -> RunFolder:
        """Where it lies."""
        return run_folder(results, self.config, self.setting, self.method, self.dataset)

    @property
    def labels(self) -> dict[str, str]:
        """For the manifest."""
        labels = {"setting": self.setting, "method": self.method} | ({"role": CHOOSING} if self.chooses else {})
        return {**labels, "dataset_label": self.dataset} if self.dataset else labels  # `dataset` there tells its sizes


@dataclass(frozen=True)
class Experiment:
    """What a TOML file says.

    Attributes:
        where: The file, for messages.
        values: The sections that all runs share.
        settings: Name -> overrides; one nameless setting where the file has none.
        methods: Likewise; issgd and sgd where the file has none.
        seeds: As the file lists them.
        timelines: Overrides for the two short runs that figure 1 is drawn from; None: no such runs.
        map: What a map of the proposal's variance covers; None: no map.
        lists_methods: Whether the methods are the file's own.
        datasets: Name -> overrides; one nameless dataset, that of `values`, where the file has none.
        places: Method -> the datasets that it is run on; all where it isn't listed.
        choosing: Seeds at which each method's setting is chosen, which it alone has at the others; none: it has all.
        choosing_by: For each of these the setting at which it is lowest.
    """

    where: str
    values: Table
    settings: Mapping[str, Table]
    methods: Mapping[str, Table]
    seeds: Sequence[int]
    timelines: Table | None = None
    map: StalenessMap | None = None
    lists_methods: bool = True
    datasets: Mapping[str, Table] = field(default_factory=lambda: NAMELESS)
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    choosing: Sequence[int] = ()
    choosing_by: Sequence[Measure] = ("validation",)

    def run(self, setting: str, method: str, overrides: Table, dataset: str | None = None) -> Run:
        """Precedence: file < setting < dataset (the first unless named) < method < overrides.

        Raises:
            ConfigError: Unknown keys or values out of range.
            DataError: The data come from a file that cannot be read.
        """
        dataset = listed.named(dataset, self.datasets, "dataset")
        return _run(self.config(setting, method, overrides, dataset), setting, method, dataset)

    def config(self, setting: str, method: str, overrides: Table, dataset: str | None = None) -> Config:
        """Of `run`; a file of the user's own data is still named by its path, and need not be there."""
        dataset = listed.named(dataset, self.datasets, "dataset")
        data = overrides.get("data")
        if dataset and isinstance(data, Mapping) and "name" in data:
            raise ConfigError(
                f"{self.where} lists its datasets, and runs bear their names: choose one by `--dataset` or `--only "
                "dataset=NAME`, or list another in [[datasets]], instead of setting data.name."
            )
        layers = self.settings[setting], self.datasets[dataset], self.methods[method]
        return resolve(merged(self.values, *layers, overrides), self.where)

    def one(self, setting: str | None, method: str | None, overrides: Table, dataset: str | None = None) -> Run:
        """The run of `issgd train`: the first setting, dataset and method unless named; seed 0 unless set.

        Where the file lists no methods, it may be any of issgd's own.
        """
        methods = self.methods if self.lists_methods else {**self.methods, **{name: _only(name) for name in METHODS}}
        setting, method = listed.named(setting, self.settings, "setting"), listed.named(method, methods, "method")
        return replace(self, methods=methods).run(setting, method, overrides, dataset)

    def runs(
        self, seeds: Sequence[int] | None = None, only: Mapping[str, str] | None = None, overrides: Table | None = None
    ) -> list[Run]:
        """Every run, seed by seed, so that an interrupted experiment has whole seeds; those that choose come first.

        Args:
            seeds: Instead of the file's.
            only: `setting`, `dataset` and `method` -> the one to keep.
            overrides: On top of everything.

        Raises:
            ConfigError: There is no such one; or a setting is named that the experiment itself is to choose.
        """
        only = only or {}
        if self.choosing and "setting" in only:
            raise ConfigError(
                f"{self.where} chooses each method's setting, at choosing_seeds, from all of them. Leave out `--only "
                "setting=`, or choosing_seeds."
            )

        def kept(tables: Mapping[str, Table], what: str) -> list[str]:
            return [listed.named(only[what], tables, what)] if what in only else list(tables)

        settings, methods = kept(self.settings, "setting"), kept(self.methods, "method")
        datasets = kept(self.datasets, "dataset")
        others = [seed for seed in (self.seeds if seeds is None else seeds) if seed not in self.choosing]
        chosen = itertools.product((*self.choosing, *others), settings, datasets, methods)
        return [
            replace(
                self.run(setting, method, merged(overrides or {}, {"seed": seed}), dataset),
                chooses=self.choosing_by if seed in self.choosing else (),
            )
            for seed, setting, dataset, method in chosen
            if self.meets(method, dataset)
        ]

    def meets(self, method: str, dataset: str) -> bool:
        """Whether the method is run on the dataset."""
        return dataset in self.places.get(method, self.datasets)

    def timeline_runs(self, overrides: Table, dataset: str | None = None) -> dict[Mode, Run]:
        """The runs of figure 1: ISSGD in the first setting, once with barriers and once without; as `run`."""
        dataset = listed.named(dataset, self.datasets, "dataset")
        configs = self.timeline_configs(overrides, dataset)
        return {mode: _run(config, TIMELINE, mode, dataset) for mode, config in configs.items()}

    def timeline_configs(self, overrides: Table, dataset: str | None = None) -> dict[Mode, Config]:
        """Of `timeline_runs`, as `config`."""
        if self.timelines is None:
            return {}
        setting, seed = next(iter(self.settings.values())), {"seed": self.seeds[0]}
        data = self.datasets[listed.named(dataset, self.datasets, "dataset")]
        values = merged(self.values, setting, data, _only("issgd"), self.timelines, overrides, seed)
        modes: dict[Mode, Table] = {
            # A limit in seconds does not apply behind barriers.
            "exact": {"master": {"mode": "exact"}, "proposal": {"staleness_limit_seconds": None}},
            "relaxed": {"master": {"mode": "relaxed"}},
        }
        return {mode: resolve(merged(values, changes), self.where) for mode, changes in modes.items()}


def _run(config: Config, setting: str, method: str, dataset: str) -> Run:
    if not config.data.name.endswith(".npz"):
        return Run(config, setting, method, None, dataset)
    from issgd_cli.datasets import directory_of  # here: few runs need it, and who mistypes need not wait for numpy

    file, data = Path(config.data.name), config.data
    data = data.model_copy(update={"name": directory_of(data.name, Path(data.dir)).name})
    return Run(config.model_copy(update={"data": data}), setting, method, file, dataset)


def single() -> Experiment:
    """`issgd train` without a file: the defaults, paper-a's."""
    return Experiment("the command line", {}, NAMELESS, _METHODS, [0], lists_methods=False)


def _only(method: str) -> Table:
    return {"proposal": {"method": method}}


_METHODS: dict[str, Table] = {"issgd": _only("issgd"), "sgd": _only("sgd")}


def _methods(values: Table) -> Mapping[str, Table]:
    """Of a file without [[methods]]: the one that it sets itself, for instance a run's config.toml, or both."""
    section = values.get("proposal")
    own = section.get("method") if isinstance(section, Mapping) else None
    return {own: {}} if isinstance(own, str) else _METHODS


def read(path: Path) -> Experiment:
    """Reads an experiment's TOML file and what it extends.

    Raises:
        ConfigError: Not readable, unknown keys, or files that extend each other in a circle.
    """
    values = _extended(path, ())
    settings = listed.tables(values.pop("settings", None), path, "settings") or NAMELESS
    datasets = listed.tables(values.pop("datasets", None), path, "datasets") or NAMELESS
    own = listed.tables(values.pop("methods", None), path, "methods")
    places = {
        method: listed.places(table.pop("datasets"), datasets, path)
        for method, table in own.items()
        if "datasets" in table
    }
    methods = own or _methods(values)
    seeds = parse_seeds(str(values.pop("seeds", values.get("seed", 0))))
    choosing = parse_seeds(str(values.pop("choosing_seeds"))) if "choosing_seeds" in values else []
    if "choosing_by" in values and not choosing:
        raise ConfigError(f"{path}: choosing_by is of runs at choosing_seeds, and there are none.")
    choosing_by = listed.measures(values.pop("choosing_by", ["validation"]), path)
    timelines = values.pop("timelines", None)
    mapped = values.pop("map", None)
    values.setdefault("name", path.stem)
    map_ = resolve_map(mapped, str(path)) if mapped is not None else None
    if map_ is not None and len(datasets) > 1:
        raise ConfigError(f"{path}: [map] is of one dataset. Make an experiment of its own for each.")
    experiment = Experiment(
        str(path),
        values,
        settings,
        methods,
        seeds,
        timelines,
        map_,
        bool(own),
        datasets,
        places,
        choosing,
        choosing_by,
    )
    for setting, dataset, method in itertools.product(settings, datasets, methods):
        experiment.config(setting, method, {}, dataset)  # wrong keys are found now, not at the fortieth run
    for dataset in datasets:
        experiment.timeline_configs({}, dataset)
    return experiment


def parse_seeds(text: str) -> list[int]:
    """`0-49`, `3` or `0-4,7`, as a list without repetitions.

    Raises:
        ConfigError: Not such a list.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError(f"seeds {text!r}: write 0-49, 3, or 0-4,7.")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def _extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    real = Path(os.path.realpath(path))  # resolve() raises at links that run in a circle
    if real in seen:
        raise ConfigError(f"{path}: `extends` runs in a circle: {' -> '.join(p.name for p in (*seen, path))}.")
    values = read_toml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends = {parent!r} must be the name of a TOML file beside it.")
    inherited = _extended(path.parent / parent, (*seen, real))
    inherited.pop("name", None)  # a file's own name, or else its stem: two experiments never share a folder
    return merged(inherited, values)
