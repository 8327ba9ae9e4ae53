"""What a configuration may name: each in a file of its own, imported when it is asked for and not before."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names and what they stand for.

    A room lists its own in its `__init__`: a new one is one file and one line. Nothing else is ever imported because a
    configuration names it.
    """

    def __init__(self, what: str, places: Mapping[str, str]) -> None:
        """A registry.

        Args:
            what: One of these, in a word, for messages.
            places: Name -> `module:name there`.
        """
        self.what, self.places = what, places

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self.places[name].partition(":")
        return cast(T, getattr(import_module(module), attribute))

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def known(self, name: Any) -> str:
        """The name, if it stands for something.

        Raises:
            ValueError: It does not; the message lists those that do.
        """
        if name not in self.places:
            raise ValueError(f"there is no {self.what} {name!r}; there is {', '.join(map(repr, self.places))}")
        return str(name)


LOSSES: Registry[Any] = Registry("loss", {"cross-entropy": "issgd_cli.losses.cross_entropy:cross_entropy"})
NETWORKS: Registry[Any] = Registry("network", {"mlp": "issgd_cli.networks.mlp:MLP"})
METHODS: Registry[Any] = Registry(
    "method",
    {
        "issgd": "issgd_cli.methods.issgd:ISSGD",
        "sgd": "issgd_cli.methods.sgd:SGD",
    },
)
