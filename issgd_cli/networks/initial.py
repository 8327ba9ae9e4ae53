"""Initial parameters as torch's layers draw theirs, but from a run's seed alone, in float64, each by itself.

Weights and biases of linear and convolutional layers are uniform within +-1 / sqrt(fan in), as torch's
`reset_parameters` has them (He et al. 2015's bound with a = sqrt 5); normalisations begin as the identity. Other than
torch's are embeddings, positions and class tokens: N(0, 0.02^2), as BERT's and ViT's (Devlin et al. 2019; Dosovitskiy
et al. 2021), since torch's N(0, 1) tokens would drown their positions.
"""

import math

import torch
from torch import nn

from issgd_cli.networks.transformer import ClassToken, Positions
from issgd_cli.randomness import generator

EMBEDDING_STD = 0.02


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Draws every parameter; its number among the model's chooses its stream.

    Raises:
        TypeError: A layer's law is not known here.
    """
    number = 0
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            random, shape = generator(seed, "initial_weights", number), tuple(parameter.shape)
            number += 1
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                parameter.copy_(torch.from_numpy(random.uniform(-bound, bound, shape)))
            elif isinstance(layer, (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d)):
                parameter.fill_(1.0 if name == "weight" else 0.0)
            elif isinstance(layer, (nn.Embedding, Positions, ClassToken)):
                parameter.copy_(torch.from_numpy(random.normal(0.0, EMBEDDING_STD, shape)))
                if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                    parameter[layer.padding_idx] = 0.0
            else:
                raise TypeError(f"No initial law for the {name} of a {type(layer).__name__}.")
