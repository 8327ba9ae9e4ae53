"""Every error a user can meet: what happened, where, and the remedy, in one message.

Only the command line catches these; it prints the message and exits 1.
"""


class IssgdError(Exception):
    """Base of all errors that are the user's to read. The message says what, where and the remedy."""


class ConfigError(IssgdError, ValueError):
    """A configuration file, flag or `--set` value that cannot be used. (A ValueError, as pydantic wants it.)"""


class DataError(IssgdError):
    """A dataset that is missing, truncated, corrupted or of the wrong shape."""


class DatabaseError(IssgdError):
    """A database that cannot be reached, started or trusted.

    Attributes:
        what: What is wrong.
        remedy: What to do; empty where `what` says so, too.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".rstrip())
        self.what, self.remedy = what, remedy


class GoneError(DatabaseError):
    """A run that is no longer in the database, or no longer the same: set back to a checkpoint since."""


class AwayError(DatabaseError):
    """A server that does not answer; it may come back."""


class RecordError(DatabaseError):
    """Scores of a chunk that cannot be true: not finite, negative, or of another number than the chunk's examples."""


class WeightError(IssgdError):
    """Probability weights that define no proposal: negative, NaN, infinite or all zero."""


class LossError(IssgdError, ValueError):
    """Outputs, targets or losses that are not what a loss of one number an example is made of."""


class LayerError(IssgdError):
    """A model whose per-example gradient norms cannot be computed exactly."""


class RunError(IssgdError):
    """A run folder or a run that cannot be started, resumed or read, or that failed."""


class TrackerError(IssgdError):
    """A tracker of experiments that is not installed, or does not take a run's curves."""


class DamagedError(RunError):
    """A file that a run saved and that does not hold any more what was saved in it.

    Attributes:
        reason: What is wrong with it.
    """

    def __init__(self, path: object, reason: object, remedy: str) -> None:
        super().__init__(f"{path} is damaged ({reason}). {remedy}")
        self.reason = str(reason)
