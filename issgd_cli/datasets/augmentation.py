"""Random changes of the images that the master trains on: crops and flips, another each step.

Workers score the plain examples, and the master draws by these scores: whatever positive weights it draws by, and
however little these say of the changed images, the importance weights make each minibatch's gradient an unbiased
estimate. It is one of the mean gradient of the changed images, over all examples and changes, which is what training
with augmentation means; since the changes are drawn apart from the examples, nothing else is needed for that. Only the
variance is reduced by less, the more the norms of plain and changed images differ.

Losses, errors and traces, recorded or audited, are of the plain examples. Norms that the master takes of its own
minibatches (`master.reuse_own_norms`) are of the changed ones.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from issgd_cli.errors import ConfigError
from issgd_cli.randomness import generator

PADDING = 4  # of a crop, on each side; as is usual for images of 32x32 since He et al. 2016

Change = Callable[[Tensor, np.random.Generator], Tensor]


def crop(images: Tensor, random: np.random.Generator) -> Tensor:
    """Each image moved by up to PADDING pixels in each direction: a random part of it with a border of 0.

    Standardised images are 0 where they are the mean image, so the border is of its colour.

    Args:
        images: Shape (B, channels, height, width).
        random: Of which two numbers an image are drawn.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (PADDING, PADDING, PADDING, PADDING))
    tops, lefts = torch.from_numpy(random.integers(0, 2 * PADDING + 1, (2, count))).to(images.device)
    rows = tops[:, None] + torch.arange(height, device=images.device)  # (B, height)
    columns = lefts[:, None] + torch.arange(width, device=images.device)  # (B, width)
    each = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]  # (B, height, width, channels)
    return moved.permute(0, 3, 1, 2).contiguous()


def flip(images: Tensor, random: np.random.Generator) -> Tensor:
    """Each image mirrored, left to right, or not, with equal chances; images (B, channels, height, width)."""
    mirrored = torch.from_numpy(random.random(len(images)) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


CHANGES: dict[str, Change] = {"crop": crop, "flip": flip}


class Augmentation:
    """The changes of one run, in the order in which they are made."""

    def __init__(self, names: Sequence[str], seed: int, shape: tuple[int, ...], is_text: bool = False) -> None:
        """Those of these names, for examples of this shape.

        Raises:
            ConfigError: The examples are no images.
        """
        if names and (len(shape) != 3 or is_text):
            raise ConfigError(
                f"data.augment = {list(names)} is for images of shape (channels, height, width); the examples are "
                f"{'texts' if is_text else 'numbers'} of shape {shape}. Leave it out, or prepare the data as images."
            )
        self.changes, self.seed = [CHANGES[name] for name in names], seed

    def __call__(self, inputs: Tensor, step: int) -> Tensor:
        """The minibatch of this step, changed; the same for the same seed and step, whatever went before."""
        if self.changes:
            random = generator(self.seed, "augmentation", step)
            for change in self.changes:
                inputs = change(inputs, random)
        return inputs
