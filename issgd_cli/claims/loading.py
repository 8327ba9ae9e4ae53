"""Reads an experiment's runs from disk."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from issgd_cli.claims.choice import chosen
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.errors import RunError
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def load(folders: Sequence[RunFolder], expected: int | None = None, name: str = "") -> Runs:
    """Reads the runs of an experiment, or where it lists datasets those of one of them: `by_dataset` parts them.

    Runs that were there to choose settings by stand apart, but where there are no others yet.

    Args:
        folders: As runs.find gives them.
        expected: How many runs the experiment asks for, but for those that choose; None: those found.
        name: The experiment's; empty: that of the first run's configuration, /<dataset> with it.

    Raises:
        RunError: A manifest or trace that is not one, runs of several datasets, or one setting's runs of one method
            have two configurations.
        ConfigError: A configuration that is not one.
    """
    loaded = _separated(_of_one_dataset([load_run(folder) for folder in folders]))
    choosing = tuple(run for run in loaded if run.chooses)
    name = name or "/".join(part for run in loaded[:1] for part in (run.config.name, run.dataset) if part)
    if expected is None:  # of a method and a seed one is shown, whatever settings it has been run at
        expected = len({(run.method, run.seed) for run in loaded if not run.chooses} if choosing else loaded)
    if 0 < len(choosing) < len(loaded):
        judged = tuple(run for run in loaded if not run.chooses)
        return chosen(Runs(name, judged, expected, choosing, judged), "validation")
    return Runs(name, loaded, expected)


def by_dataset(folders: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Runs of an experiment by the name of their dataset, as far as it lists datasets."""
    found: dict[str, list[RunFolder]] = {}
    for folder in folders:
        found.setdefault(folder.read_manifest().get("dataset_label") or "", []).append(folder)
    return found


def load_run(folder: RunFolder) -> Run:
    """Reads one run; a run that failed before its first record has an empty trace."""
    config = folder.read_config()
    manifest = folder.read_manifest()
    method = str(manifest.get("method") or config.proposal.method)
    # Old ones name no setting. A folder is then <setting>-<method>-<hash>, the setting left out where there is none.
    setting = folder.path.parent.name.rpartition("-")[0].removesuffix(method).rstrip("-")
    return Run(
        path=folder.path,
        setting=str(manifest.get("setting", setting) or ""),
        method=method,
        seed=config.seed,
        state=manifest["state"],
        config=config,
        manifest=manifest,
        trace=_of_today(traces.read(folder.trace), manifest) if folder.trace.exists() else empty_trace(),
        dataset=manifest.get("dataset_label") or "",
    )


def stale_is_in_use(manifest: Mapping[str, Any]) -> bool:
    """Whether a run's audits call `trace/stale` what is the table in use: those of issgd before 0.2."""
    version = re.match(r"(\d+)\.(\d+)", str((manifest.get("packages") or {}).get("issgd")))
    return version is not None and (int(version[1]), int(version[2])) < (0, 2)


def _of_today(trace: "pd.DataFrame", manifest: Mapping[str, Any]) -> "pd.DataFrame":
    """Without quantities that had another meaning when the run was made, so that nobody mixes the two.

    From 0.2 on audit/trace/stale, and stale+c, are eq. 9: draws by the norms before those in use.
    """
    if not stale_is_in_use(manifest):
        return trace
    return trace[~trace["quantity"].str.startswith("audit/trace/stale")]


def _of_one_dataset(runs: Sequence[Run]) -> Sequence[Run]:
    """The same runs, which may be compared; without datasets of an experiment each setting may have its own data."""
    found = dict.fromkeys((run.dataset, run.config.data.name if run.dataset else "") for run in runs)
    if len(found) > 1:
        told = ", ".join(f"{dataset} ({data})" if dataset else "runs of no named one" for dataset, data in found)
        raise RunError(f"Runs of several datasets are never compared with each other: {told}. Show each by itself.")
    return runs


def _separated(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs of different configurations are never mixed in one median; without a setting's name the hash becomes it."""
    hashes: dict[tuple[str, str], dict[str, Run]] = {}
    for run in runs:
        hashes.setdefault((run.setting, run.method), {})[run.config.hash()] = run
    for (setting, method), found in hashes.items():
        if setting and len(found) > 1:
            folders = " and ".join(str(run.path.parent) for run in found.values())
            raise RunError(
                f"Setting {setting}, method {method} has runs of {len(found)} configurations, in {folders}. They can't "
                "share a curve: move away the folder that is out of date."
            )
    mixed = any(len(found) > 1 for found in hashes.values())
    return tuple(replace(run, setting=run.config.hash()) if mixed and not run.setting else run for run in runs)


def empty_trace() -> "pd.DataFrame":
    """A trace without rows."""
    import pandas as pd

    types = traces.Row.__annotations__
    return pd.DataFrame({name: pd.Series(dtype=types[name]) for name in traces.Row._fields})
