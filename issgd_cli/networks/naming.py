"""Which functions of the user's own this process may import: those that its own command line names, and no others.

A configuration, a database or a run's folder can say `package.module:function` too, and anybody may have written those.
Whatever they say, nothing is imported for it unless whoever started this very process has typed the same.
"""

from issgd_cli.config.values import is_place
from issgd_cli.errors import ConfigError

_named: set[str] = set()


def name(place: str) -> None:
    """This process's command line names a network of the user's own.

    Raises:
        ConfigError: It is no `package.module:function`.
    """
    if not is_place(place):
        raise ConfigError(
            f"--model {place}: here it allows a function of your own, as package.module:function. Which of issgd's own "
            "networks is trained is the run's configuration to say."
        )
    _named.add(place)


def named(network: str) -> str | None:
    """This one, a `model.network`, if the command line names it; None: it does not, or need not."""
    return network if network in _named else None


def refuse_unnamed(network: str) -> None:
    """Sees to it that `model.network` is one of issgd's own, or named by this process's command line.

    Raises:
        ConfigError: It is neither.
    """
    if is_place(network) and network not in _named:
        raise ConfigError(
            f"The configuration's model.network is {network}: code, which is imported only where the command line "
            f"names the very same. If you trust it, add `--model {network}`."
        )
