"""What the tests of the clusters share."""

from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Layout
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import Checkpoint


@pytest.fixture
def checkpoint_of(data: Prepared) -> Callable[[Config, int], Checkpoint]:
    """A checkpoint of this configuration's run at this step, a tenth of as many seconds after its start."""

    def of(config: Config, step: int) -> Checkpoint:
        layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
        flat = np.zeros(Problem(config, data).size, np.float32)
        records = {split: layout.empty(split) for split in SPLITS}
        return Checkpoint(
            step, step + 1, step / 10, flat, {"momentum": flat}, {}, {"work/examples_trained": 8.0 * step}, records
        )

    return of
