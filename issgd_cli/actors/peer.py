"""A peer: draws minibatches by the shared table of norms, and hands over their gradients (section 6).

It spends its life pulling, training, pushing. Whatever its minibatch tells of its examples, their norms from the same
backward pass, it writes into the table that all peers draw by. It owns nothing: a peer that dies loses a gradient.

Bias: given the parameters that it has pulled and the table that it has read, the expectation of its gradient is the
mean gradient of all N examples *at these parameters*, however old the table is. By the time the server applies it the
server's parameters are others, and at those it is biased: by how far the mean gradient has changed in between, no less
with importance sampling, and no more. Nothing averages that away: the iterates move as if the mean gradient came late.
tests/actors/test_peer.py shows both on a quadratic problem, where both are known.

Source: Alain et al. 2015, section 6, the last paragraph.
"""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.minibatch import Minibatch, minibatch
from issgd_cli.config.config import Config
from issgd_cli.database import Database
from issgd_cli.database.contributions import TYPES, Contribution, ExampleScores
from issgd_cli.database.records import NO_ERROR, Float32s
from issgd_cli.errors import DatabaseError, RecordError
from issgd_cli.methods.method import Gradient, Method
from issgd_cli.methods.table import Table, fields_read
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS

POLL_SECONDS = 0.002
MOST_COUNTS = 2**40  # of one peer's minibatches: what keeps the draws of two apart


def number_of_draw(peer: int, count: int) -> int:
    """Which of the run's draws a peer's minibatch is; none is a master's."""
    return (peer + 1) * MOST_COUNTS + count


def sent(gradient: Gradient, kind: str) -> NDArray[Any]:
    """A gradient as it travels, of contributions.TYPES, shape (T,); to bfloat16 it is rounded to the nearest."""
    flat = torch.cat([part.reshape(-1) for part in gradient]).cpu()
    held = flat.to(torch.bfloat16).view(torch.int16).numpy().view("u2") if kind == "bfloat16" else flat.numpy()
    return held.astype(TYPES[kind], copy=False)


def scores_of(found: Minibatch) -> ExampleScores | None:
    """What a minibatch tells of its examples, each once; None where nobody draws by that."""
    if found.squared_norms is None:
        return None
    drawn, first = np.unique(found.drawn.indices.cpu().numpy(), return_index=True)
    wrong = found.seen.loss.errors(found.seen.outputs, found.seen.targets)
    errors = np.full(len(drawn), NO_ERROR, np.uint8)
    if wrong is not None:
        errors = wrong.cpu().numpy()[first].astype(np.uint8)
    norms, losses = (
        each.cpu().numpy()[first].astype(np.float32) for each in (found.squared_norms.sqrt(), found.seen.losses)
    )
    return ExampleScores(drawn, norms, losses, errors)


class Trainee:
    """What a peer computes with: a network that takes any version's parameters. Peers of one process can share one."""

    def __init__(self, config: Config, problem: Problem, device: torch.device) -> None:
        """A trainee without a version's parameters."""
        self.config, self.problem = config, problem
        self.learner = Learner(config, problem, device, None)
        self.examples = problem.examples("train", device)
        self.version = 0

    def load(self, version: int, parameters: Float32s) -> None:
        """Takes a version's parameters, flat, shape (P,), unless it has them."""
        if version != self.version:
            self.learner.parameters.copy_(torch.from_numpy(parameters))
            self.version = version

    def method(self) -> Method:
        """One of a peer's own: each draws by what it has read of the table, and when."""
        made: Method = METHODS[self.config.proposal.method](
            self.config, len(self.examples), self.learner.parameters.device
        )
        return made


class Peer:
    """See the module.

    Attributes:
        stage: What it does next, or is at: pull, pulling, train, push.
        version, parameters: What it trains with, flat, shape (P,); version 0: nothing yet.
        count: The number of its next gradient; 0: not known yet.
        pulls: How often it has pulled.
        found: The minibatch that it is about to push.
        passes: What its minibatches took, in this life (scores/cost.py).
    """

    def __init__(self, config: Config, database: Database, trainee: Trainee, index: int) -> None:
        """The peer of this number, without parameters."""
        self.config, self.database, self.trainee, self.index = config, database, trainee, index
        self.method = trainee.method()
        self.draws_by_scores = METHODS.parts[config.proposal.method].by_scores
        self.read_fields = fields_read(config.proposal, self.method.reads_pairs) if self.draws_by_scores else ()
        self.stage = "pull"
        self.version = self.count = self.pulls = 0
        self.parameters: Float32s | None = None
        self.found: Minibatch | None = None
        self.passes = 0.0
        self.loss: float | None = None
        self.notices: list[str] = []

    @classmethod
    def of(cls, config: Config, problem: Problem, database: Database, device: torch.device, index: int) -> "Peer":
        """A peer of a run, with a trainee of its own on this device."""
        return cls(config, database, Trainee(config, problem, device), index)

    def run(self) -> Generator[Operation]:
        """Pull, train, push, for ever; from any stage that `restore` has brought."""
        while True:
            if self.stage == "pulling":  # only where `restore` has brought it: all is here, the time is not over
                yield Operation("pull", self.version)
                self.stage = "train"
            if self.stage == "pull":
                if not (yield from self._pull()):
                    return
                self.stage = "train"
            if self.stage == "train":
                self.found = yield from self._minibatch()
                self.stage = "push"
            found = self.found = self.found or self._minibatch_again()
            gradient, scores = self._contribution(found), scores_of(found)
            norms = 0 if scores is None else sum(array.nbytes for array in scores)
            yield Operation("push", self.version, bytes=gradient.gradient.nbytes + norms)
            self._push(gradient, scores)
            self.found, self.stage = None, "pull"

    def _is_over(self) -> bool:
        return self.database.get("finished") is not None or self.database.get("stop") is not None

    def _pull(self) -> Generator[Operation, None, bool]:
        """The newest parameters, and the table where it is its turn; False: training is over.

        What was newest when it asks is what it gets, however long that travels: so a real database answers, too. On a
        virtual clock, where effects come at an operation's end, it therefore looks before.
        """
        while not self._is_over():
            newest = self.database.newest()
            if newest is not None and self._is_awaited(newest.version):
                break
            yield Operation("wait", self.version, seconds=POLL_SECONDS)
        else:
            return False
        table = self.read_fields if self.pulls % self.config.peers.refresh_every_steps == 0 else ()
        of_table = self.database.layout().bytes_of("train", table)
        looks_ahead = self.config.cluster.kind == "simulated" and self._read(table)
        self.stage = "pulling" if looks_ahead else "pull"
        yield Operation("pull", newest.version, bytes=4 * self.trainee.learner.parameters.numel() + of_table)
        # False: the run has just been set back to its checkpoint.
        return looks_ahead or self._read(table) or (yield from self._pull())

    def _read(self, table: tuple[str, ...]) -> bool:
        """Takes the newest parameters, and these fields of the table, if any; False: there are no parameters."""
        found = self.database.parameters()
        if found is None:
            return False
        (published, self.parameters), expected = found, self.trainee.learner.parameters.numel()
        if len(self.parameters) != expected:
            raise DatabaseError(
                f"Version {published.version} in the database has {len(self.parameters):,} parameters, the run's model "
                f"has {expected:,}. Who else writes there?"
            )
        self.version, self.pulls = published.version, self.pulls + 1
        if self.count == 0:
            # Above what a life of this peer before this one has handed over; and, where the run was set back meanwhile
            # and that is forgotten, above its steps. Only where many gradients are dropped may a draw come twice then.
            ahead = published.version * self.config.master.publish_every_steps
            self.count = max(ahead, self.database.contributed(self.index) + 1)
        if table:
            records, layout = self.database.weights(table), self.database.layout()
            self.method.adopt(self.method.refreshed(Table.of(records, layout, published, self.database.seconds())))
        return True

    def _is_awaited(self, newest: int) -> bool:
        """Whether the server has taken what was pushed, and in a synchronous run made a step of it."""
        goes_on = self.config.peers.mode == "asynchronous" or newest > self.version
        return goes_on and self.database.is_taken(self.index)

    def _minibatch(self) -> Generator[Operation, None, Minibatch]:
        """Of the parameters at hand; of the same ones and the same count always the same."""
        learner = self.trainee.learner
        learner.step = number_of_draw(self.index, self.count)
        operations = minibatch(
            learner,
            self.method,
            self.trainee.examples,
            self.config.master.minibatch_size,
            self.version,
            "norms" if self.draws_by_scores else None,
        )
        yield next(operations)  # the draw; the parameters are needed, and loaded, after it
        if self.parameters is not None:
            self.trainee.load(self.version, self.parameters)  # another peer may have loaded its own meanwhile
            learner.step = number_of_draw(self.index, self.count)
        before = learner.passes
        found = yield from operations
        self.passes += learner.passes - before
        return found

    def _minibatch_again(self) -> Minibatch:
        """The one that was computed before a checkpoint."""
        operations, counted = self._minibatch(), self.passes
        while True:
            try:
                next(operations)
            except StopIteration as end:
                self.passes = counted
                found: Minibatch = end.value
                return found

    def _contribution(self, found: Minibatch) -> Contribution:
        self.loss = float(found.loss)  # waits for the device
        gradient = sent(found.gradient, self.config.peers.gradients)
        return Contribution(self.index, self.count, self.version, self.loss, gradient)

    def _push(self, contribution: Contribution, scores: ExampleScores | None) -> None:
        self.trainee.problem.data.refuse_changed()  # else it may be of other examples than the other peers'
        self.count += 1
        try:
            if not self.database.contribute(contribution):
                self.notices = [f"another peer {self.index} hands over gradients: one of this one's is lost. End one"]
            if scores is not None:
                self.database.push_examples(contribution.version, scores)
        except RecordError as error:  # the server tells of the gradient, which is no better
            self.notices = [str(error)]

    def state(self) -> dict[str, Any]:
        """Where it is between two operations, but for the parameters, which their version names."""
        place = {"stage": self.stage, "version": self.version, "count": self.count, "pulls": self.pulls}
        return place | {"method": self.method.state()}

    def restore(self, state: Mapping[str, Any], parameters: Float32s | None) -> None:
        """Goes on from `state()`, with the parameters of its version; a minibatch that was computed is so again."""
        self.stage, self.parameters = str(state["stage"]), parameters
        self.version, self.count, self.pulls = (int(state[name]) for name in ("version", "count", "pulls"))
        self.method.restore(state.get("method", {}))

    def stop(self) -> None:
        """Nothing to save."""

    def status(self) -> dict[str, Any]:
        """The version it works at, its passes, its last loss, and what of its own was refused."""
        loss = self.loss if self.loss is not None and np.isfinite(self.loss) else None
        return {"version": self.version, "passes": self.passes, "loss": loss, "notices": self.notices}
