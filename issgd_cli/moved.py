"""Where the modules of 0.1 are now: an import by an old path fails with the new one, not with `No module named ...`.

Nothing is imported here that `python -m` could find in the current folder.
"""

import sys

# Old -> new, both within issgd_cli; several where a module was taken apart. Where a package has an old module's name,
# as config has, whoever asks it for a name that it lacks is told as much.
MOVED = {
    "checkpoints": ("runs.checkpoints", "runs.audits", "runs.parameters", "runs.arrays"),
    "clusters.actors": ("clusters.joining", "actors.execution", "actors.devices"),
    "clusters.apart": ("experiments.isolated",),
    "clusters.clock": ("simulation.clock",),
    "clusters.estimate": ("simulation.estimate",),
    "clusters.launch": ("clusters.cluster", "clusters.resuming", "clusters.processes"),
    "clusters.moment": ("simulation.moment",),
    "clusters.recording": ("actors.recorder",),
    "clusters.replay": ("simulation.schedule",),
    "clusters.simulated": ("simulation.cluster",),
    "clusters.training": ("experiments.run",),
    "clusters.virtual": ("simulation.virtual",),
    "config": (
        "config.config",
        "config.sections",
        "config.values",
        "config.layers",
        "config.toml",
        "config.validation",
        "config.passwords",
    ),
    "database.replies": ("database.redis.replies",),
    "database.scripts": ("database.redis.scripts",),
    "datasets.cifar10": ("datasets.cifar",),
    "drawing": ("methods.proposal",),
    "equations": ("equations.alain2015",),
    "examples": ("datasets.examples",),
    "exchange": ("methods.table", "actors.publishing"),
    "experiment": ("experiments.experiment",),
    "gradient_norms": ("scores",),
    "gradient_norms.linear": ("scores.rules.linear",),
    "gradient_norms.rules": ("scores.rules.rule",),
    "gradient_norms.scoring": ("scores.gradient_norm",),
    "master": ("actors.master", "actors.saving"),
    "models.losses": ("losses.cross_entropy",),
    "models.mlp": ("networks.mlp", "networks.flat"),
    "models.reduced": ("networks.reduced",),
    "monitor": ("actors.monitor", "actors.auditing"),
    "operations": ("actors.actor",),
    "quantiles": ("claims.quantiles",),
    "reproduction": ("experiments.reproduction",),
    "runs": ("runs.folder",),
    "sampling": ("methods.proposal",),
    "smoothing": ("methods.smoothing",),
    "staleness_map": ("experiments.staleness_map",),
    "traces": ("runs.traces", "runs.cutting", "database.records"),
    "worker": ("actors.worker",),
}


class Signpost:
    """Asked for what nobody else has found."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Lets the import go on to fail, unless the path is an old one, or leads into one.

        Raises:
            ImportError: It does. (A ModuleNotFoundError would get lost in `from package import name`.)
        """
        package, _, within = name.partition(".")
        if package != "issgd_cli":
            return
        # A package that is gone is looked for before what was in it, so all of that is told; and a name that a package
        # lacks is looked for as a module there.
        inside = [old for old in MOVED if f"{old}.".startswith(f"{within}.")]
        if found := inside or [old for old in MOVED if old == within.rpartition(".")[0]]:
            told = ", ".join(f"issgd_cli.{old} is {_listed(old)}" for old in found)
            raise ImportError(f"{told} since 0.2; what users may rely on is in issgd_cli.library.", name=name)


def _listed(old: str) -> str:
    *others, last = (f"issgd_cli.{new}" for new in MOVED[old])
    return f"{', '.join(others)} and {last}" if others else last


sys.meta_path.append(Signpost)
