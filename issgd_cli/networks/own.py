"""A network of the user's own: a function of a module of theirs, called with the shape, the outputs and arguments.

Its parameters are drawn by torch's own initialisers, within a fork of torch's generator that the run's seed alone
decides.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.networks.naming import refuse_unnamed
from issgd_cli.randomness import generator

if TYPE_CHECKING:
    from issgd_cli.config.config import Config

_alone = threading.Lock()  # with what is the whole process's: its path, and torch's generator


class Own:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of `model.network` and [model.arguments].

        Raises:
            ConfigError: The process's command line does not name the function, or it is not there.
        """
        self.place, self.arguments, self.sizes = config.model.network, config.model.arguments, sizes
        refuse_unnamed(self.place)
        self.function = _imported(self.place)

    def build(self) -> nn.Module:
        return self._made(0)

    def initialise(self, model: nn.Module, seed: int) -> None:
        drawn, again = self._made(seed).state_dict(), self._made(seed).state_dict()
        if any(not torch.equal(value, again[name]) for name, value in drawn.items()):
            raise ConfigError(
                f"{self.place} gives other parameters each time that it is called with the same seed. Draw them by "
                "torch's own generator, for instance in torch.nn.init, and by nothing else."
            )
        model.load_state_dict(drawn)
        self._try(model.eval())

    def _try(self, model: nn.Module) -> None:
        """On two made-up examples, which its outputs and gradients are to fit.

        Raises:
            ConfigError: They don't.
        """
        inputs = torch.zeros(2, *self.sizes.shape, dtype=torch.int64 if self.sizes.tokens else torch.float32)
        try:
            outputs = model(inputs)
        except Exception as error:
            raise ConfigError(
                f"The network of {self.place} was given inputs of shape {tuple(inputs.shape)}, and has failed: "
                f"{type(error).__name__}: {error}."
            ) from error
        expected = (2, self.sizes.outputs)
        if not isinstance(outputs, torch.Tensor) or outputs.shape != expected:
            found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise ConfigError(
                f"The network of {self.place} makes outputs of {found} of inputs of shape {tuple(inputs.shape)}, where "
                f"a tensor of shape {expected} is needed."
            )
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        gradients = torch.autograd.grad(outputs.sum(), list(trained.values()), allow_unused=True)
        if unused := [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]:
            raise ConfigError(
                f"{unused[0]} of the network of {self.place} has no part in its outputs. Freeze it by "
                "requires_grad_(False), or take it out."
            )

    def _made(self, seed: int) -> nn.Module:
        # Whatever the device at hand: not everything that a function does can be done on "meta", without memory.
        with _alone, torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(int(generator(seed, "initial_weights").integers(2**63)))
            try:
                model = self.function(self.sizes.shape, self.sizes.outputs, **self.arguments)
            except Exception as error:
                raise ConfigError(
                    f"{self.place} was called with {self.sizes.shape}, {self.sizes.outputs} and [model.arguments] "
                    f"{self.arguments}, and has failed: {type(error).__name__}: {error}."
                ) from error
        if trouble := _trouble(model):
            raise ConfigError(f"{self.place} {trouble}")
        module: nn.Module = model
        return module.to(torch.empty(0).device)  # "meta" where shapes alone are asked for


def _imported(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    with _alone, _current_folder_last():
        try:
            found = getattr(import_module(module), name)
        except Exception as error:  # whatever its module raises
            raise ConfigError(
                f"--model {place} cannot be imported: {type(error).__name__}: {error}. Start issgd in the folder where "
                f"{module.partition('.')[0]} lies, put that folder into PYTHONPATH, or install it."
            ) from error
    if not callable(found):
        raise ConfigError(f"--model {place} is no function but a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def _current_folder_last() -> Iterator[None]:
    """Within, modules are looked for in the current folder, too, but nothing there stands in for what is installed."""
    try:
        here = os.getcwd()
    except OSError:  # it has been removed
        here = ""
    if not here or here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _trouble(model: object) -> str | None:
    """Why a run cannot train this; None: it can."""
    if not isinstance(model, nn.Module):
        return f"returned a {type(model).__name__}, where a torch.nn.Module is needed."
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if lazy := [name for name, tensor in tensors if nn.parameter.is_lazy(tensor)]:
        return f"does not know the shape of {lazy[0]} yet. Use layers that are not lazy."
    wrong = [name for name, tensor in tensors if tensor.is_floating_point() and tensor.dtype != torch.float32]
    wrong += [name for name, parameter in model.named_parameters() if not parameter.is_floating_point()]
    if wrong:
        return f"has {wrong[0]} in another type than float32, in which parameters travel and are saved."
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "has no parameter to train."
    for name, layer in model.named_modules():
        if _drops_out(layer):
            return (
                f"drops out activations ({name or type(layer).__name__}): workers could not score what is trained, and "
                "issgd draws nothing but from the run's seed. Set p, or dropout, to 0."
            )
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.momentum is None or not layer.track_running_stats:
            return (
                f"has a BatchNorm ({name or type(layer).__name__}) without running statistics, or with a cumulative "
                "average of them: workers score with those that the master publishes. Set track_running_stats and a "
                "momentum."
            )
    return None


def _drops_out(layer: nn.Module) -> bool:
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):  # of their own, without a layer for it
        return layer.dropout > 0
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
