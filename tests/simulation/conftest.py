"""What the tests of the clusters share: simulated runs of a tiny dataset, and a dataset of the paper's proportions."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.config.config import Config
from issgd_cli.database import Split
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation import cluster as simulated

NewFolder = Callable[[str], RunFolder]
Simulate = Callable[..., RunFolder]


@pytest.fixture
def simulate(data: Prepared, new_folder: NewFolder, tmp_path: Path) -> Simulate:
    """Runs a configuration to its end in a folder of its own, or goes on in the one given."""

    def of(
        config: Config,
        folder: RunFolder | None = None,
        stop: threading.Event | None = None,
        watch: Callable[[Snapshot], None] = lambda snapshot: None,
        on: Prepared = data,
    ) -> RunFolder:
        if folder is None:
            folder = new_folder(f"run-{len(list(tmp_path.iterdir()))}")
            folder.update_manifest(state="running")
        simulated.run(config, folder, Problem(config, on), watch, stop or threading.Event())
        return folder

    return of


@pytest.fixture(scope="session")
def in_proportion() -> Prepared:
    """As SVHN, 1 example for 200 of its: 2,850 train, 150 valid and 130 test images of 4 pixels."""
    random = np.random.default_rng(0)
    sizes: dict[Split, int] = {"train": 2850, "valid": 150, "test": 130}
    splits = {
        split: PreparedSplit(random.integers(0, 256, (size, 4), np.uint8), random.integers(0, 3, size))
        for split, size in sizes.items()
    }
    return Prepared(
        "proportion", splits, np.full(4, 127.0, np.float32), np.full(4, 70.0, np.float32), 3, "proportion", (4,)
    )
