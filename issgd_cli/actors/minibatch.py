"""A minibatch's gradient: what a step of SGD is made of, whoever takes the step with it."""

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.learner import Learner
from issgd_cli.datasets.examples import Examples
from issgd_cli.methods.method import Drawn, Gradient, Method, Needs, Seen


@dataclass(frozen=True)
class Minibatch:
    """What one has given.

    Attributes:
        drawn, seen: Its examples, and what they showed.
        gradient: The direction to descend.
        squared_norms: Of each example's own gradient, where these were needed, shape (B,).
        loss: Weighted, still on the device.
    """

    drawn: Drawn
    seen: Seen
    gradient: Gradient
    squared_norms: Tensor | None
    loss: Tensor


def minibatch(
    learner: Learner, method: Method, examples: Examples, size: int, version: int = 0, needs: Needs | None = None
) -> Generator[Operation, None, Minibatch]:
    """The learner's next one, of about this size, told of before it is computed. It changes nothing of the two.

    Args:
        learner: With the parameters; its step is the number of the draw.
        method: Which draws.
        examples: To draw from.
        size: How many examples.
        version: Of the parameters published before, for events.
        needs: What is wanted of the examples; None: what the method needs.
    """
    looked = None
    if (candidates := method.presample(learner.step, size)) is not None:
        yield Operation("look", version, examples=len(candidates))
        looked = learner.look(*examples[candidates])
    drawn = method.draw(learner.step, size, looked)
    yield Operation("train", version, examples=len(drawn.indices))
    learner.passes += 0 if looked is None else len(looked.losses)
    forward = learner.forward(*examples[drawn.indices], needs or method.needs)
    coefficients = method.weigh(drawn, forward.seen)  # (J, B)
    gradients, squared_norms = learner.backward(forward, coefficients)
    loss = coefficients.mean(0) @ forward.seen.losses
    return Minibatch(drawn, forward.seen, method.combine(gradients), squared_norms, loss)
