"""The final parameters of a run: one array for each of the model's, which numpy reads alone."""

from pathlib import Path

from torch import nn

from issgd_cli.errors import RunError
from issgd_cli.runs.arrays import load_arrays, save_arrays


def save_parameters(path: Path, model: nn.Module) -> None:
    """Writes the model's parameters, one array each, by their names in `state_dict()`."""
    save_arrays(path, {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})


def load_parameters(path: Path, model: nn.Module) -> None:
    """Reads what `save_parameters` wrote into a model of the same shapes.

    Raises:
        DamagedError: The file is not as it was saved.
        RunError: There is none, or it is of another model.
    """
    import torch

    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in load_arrays(path).items()})
    except (RuntimeError, TypeError) as error:  # the latter: an array of no numbers
        raise RunError(f"{path} holds the parameters of another model: {error}.") from None
