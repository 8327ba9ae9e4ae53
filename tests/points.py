"""Audit points as a master saves them."""

from typing import Any

import numpy as np
import torch
from torch import nn

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.runs.audits import Audit


def point_of(model: nn.Module, weights: Float64s, previous: Any, smoothing: float = 0.25) -> Audit:
    parameters = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()
    return Audit(12, 3.5, parameters, weights, np.asarray(previous, np.float32), smoothing)
