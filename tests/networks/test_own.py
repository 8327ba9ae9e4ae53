"""Networks of the user's own: nothing is imported that the command line does not name; what it names is built alike."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from issgd_cli.config.toml import as_toml, read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, naming
from issgd_cli.networks.flat import fingerprint
from issgd_cli.networks.own import Own
from issgd_cli.problem import Problem
from tests.networks.made import configured

SIZES = Sizes((4,), 3)
CODE = """
import pathlib
import random
import torch
from torch import nn

pathlib.Path("imported").write_text("once")

def plain(shape, outputs, width=5, deep=False):
    return nn.Sequential(nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, outputs))

class Odd(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

def none(shape, outputs): return 7
def lazy(shape, outputs): return nn.LazyLinear(outputs)
def double(shape, outputs): return nn.Linear(shape[0], outputs).double()
def frozen(shape, outputs): return nn.Linear(shape[0], outputs).requires_grad_(False)
def fails(shape, outputs): return 1 / 0
def drops(shape, outputs): return nn.Sequential(nn.Linear(shape[0], outputs), nn.Dropout(0.5))
def drops_attention(shape, outputs): return nn.MultiheadAttention(4, 2, dropout=0.1)
def drops_between(shape, outputs): return nn.ModuleDict({"rnn": nn.GRU(4, 4, num_layers=2, dropout=0.1)})
def drops_nothing(shape, outputs): return nn.Sequential(nn.Linear(shape[0], outputs), nn.Dropout(0.0))
def cumulative(shape, outputs):
    return nn.Sequential(nn.BatchNorm1d(shape[0], momentum=None), nn.Linear(shape[0], outputs))
def of_the_minibatch(shape, outputs):
    return nn.Sequential(nn.BatchNorm1d(shape[0], track_running_stats=False), nn.Linear(shape[0], outputs))
def thin(shape, outputs): return nn.Linear(shape[0], outputs + 1)
def pair(shape, outputs): return nn.MultiheadAttention(shape[0], 1)
def wrong(shape, outputs): return nn.Linear(shape[0] + 1, outputs)
def idle(shape, outputs):
    layer = nn.Linear(shape[0], outputs)
    layer.more = nn.Linear(2, 2)
    return layer
def idle_and_frozen(shape, outputs):
    layer = idle(shape, outputs)
    layer.more.requires_grad_(False)
    return layer
def lottery(shape, outputs):
    layer = nn.Linear(shape[0], outputs)
    nn.init.constant_(layer.bias, random.SystemRandom().random())
    return layer

number = 7
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that issgd is started in, with the user's module; nothing is named yet, or imported."""
    (tmp_path / "users_own.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(naming, "_named", set())
    monkeypatch.delitem(sys.modules, "users_own", raising=False)
    return tmp_path


def own(function: str = "plain", *settings: str, seed: int | None = None) -> nn.Module:
    """The module of a configuration that names this function, as the command line does, too."""
    naming.name(f"users_own:{function}")
    network = Own(configured(f"model.network=users_own:{function}", *settings), SIZES)
    model = network.build()
    if seed is not None:
        network.initialise(model, seed)
    return model


def test_nothing_is_imported_that_the_command_line_does_not_name(place: Path, data: Prepared) -> None:
    """Not even another function of a module that it does name."""
    config = configured("model.network=users_own:plain")
    for named in (None, "users_own:other", "users_own.plain:plain", "other:plain"):
        if named is not None:
            naming.name(named)
        with pytest.raises(ConfigError, match=r"names the very same\. If you trust it, add `--model users_own:plain`"):
            Problem(config, data)
        with pytest.raises(ConfigError, match="--model users_own:plain"):
            naming.refuse_unnamed(config.model.network)
    assert "users_own" not in sys.modules
    assert not (place / "imported").exists()
    naming.name("users_own:plain")
    assert isinstance(Problem(config, data).network(torch.device("cpu")), nn.Sequential)
    assert (place / "imported").exists()


def test_what_is_named_must_be_a_function_of_a_module() -> None:
    for text in ("resnet18", "", ":", "a:", ":b", "a:b:c", "a/b:c", "../a:b", "a b:c", "a.:b", "os:system('x')"):
        with pytest.raises(ConfigError, match=r"as package\.module:function"):
            naming.name(text)
    naming.refuse_unnamed("resnet18")
    assert naming.named("resnet18") is None
    naming.name("package.module:function")
    assert naming.named("package.module:function") == "package.module:function"
    assert naming.named("package.module:other") is None


def test_the_function_is_called_with_shape_outputs_and_arguments() -> None:
    model = own("plain", "model.arguments.width=9", "model.arguments.deep=true")
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(9, 4), (9,), (3, 9), (3,)]
    with pytest.raises(ConfigError, match=r"users_own:plain was called .* and has failed: TypeError: .*'depth'"):
        own("plain", "model.arguments.depth=9")


def test_a_seed_gives_the_same_parameters_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, again, other = own(seed=3), own(seed=3), own(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    for mine, same, another in zip(one.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, another)
    assert float(own(seed=3).get_parameter("0.weight").detach().abs().max()) <= 1 / 2  # torch's own law


def test_its_shapes_take_no_memory() -> None:
    with torch.device("meta"):
        model = own()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert fingerprint(model) == fingerprint(own())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("nothing", "cannot be imported: AttributeError"),
        ("number", "is no function but a int"),
        ("none", "returned a int"),
        ("lazy", "does not know the shape of weight yet"),
        ("double", "has weight in another type than float32"),
        ("frozen", "has no parameter to train"),
        ("fails", "has failed: ZeroDivisionError"),
        ("drops", r"drops out activations \(1\)"),
        ("drops_attention", r"drops out activations \(MultiheadAttention\)"),
        ("drops_between", r"drops out activations \(rnn\)"),
        ("cumulative", r"has a BatchNorm \(0\) .* with a cumulative average"),
        ("of_the_minibatch", r"has a BatchNorm \(0\) without running statistics"),
    ],
)
def test_what_cannot_be_trained_is_refused(function: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own(function)
    own("drops_nothing")


def test_parameters_that_the_seed_does_not_decide_are_refused() -> None:
    with pytest.raises(ConfigError, match="gives other parameters each time"):
        own("lottery", seed=0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("thin", r"outputs of shape \(2, 4\) of inputs of shape \(2, 4\), where a tensor of shape \(2, 3\) is needed"),
        ("pair", r"has failed: TypeError"),
        ("wrong", r"was given inputs of shape \(2, 4\), and has failed: RuntimeError"),
        ("idle", r"more\.weight of the network of users_own:idle has no part in its outputs"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_when_a_run_begins(function: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own(function, seed=0)
    own("idle_and_frozen", seed=0)


def test_a_module_that_is_not_there_or_fails_is_told_with_what_to_do(place: Path) -> None:
    (place / "users_broken.py").write_text("import nothing_of_the_kind")
    for module in ("users_missing", "users_broken", "users_own.inner"):
        naming.name(f"{module}:f")
        with pytest.raises(ConfigError, match=r"cannot be imported: ModuleNotFoundError: .* put that folder into"):
            Own(configured(f"model.network={module}:f"), SIZES)


def test_the_current_folder_is_looked_into_last_and_only_while_the_function_is_imported(place: Path) -> None:
    (place / "random.py").write_text("raise SystemExit('stands in for Python')")
    before = list(sys.path)
    own()
    assert sys.path == before
    (place / "users_own.py").unlink()
    sys.modules.pop("users_own")
    with pytest.raises(ConfigError, match="cannot be imported"):
        own()
    assert sys.path == before


def test_arguments_are_part_of_a_run_and_come_back_from_its_file(tmp_path: Path) -> None:
    values = ["width=9", "deep=true", "rate=0.5", "kind='a b'", "widths=[1, 2]"]
    config = configured("model.network=users_own:plain", *(f"model.arguments.{value}" for value in values))
    assert config.model.arguments == {"width": 9, "deep": True, "rate": 0.5, "kind": "a b", "widths": (1, 2)}
    path = tmp_path / "config.toml"
    path.write_text(as_toml(config))
    again = resolve(read_toml(path), "a test")
    assert (again.model, again.hash()) == (config.model, config.hash())
    assert resolve(config.model_dump(mode="json"), "a test").model == config.model
    assert configured("model.network=users_own:plain").hash() != config.hash()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("model.network=resnet",), "must be 'mlp', 'cnn', .* or a function of your own as package.module:function"),
        (("model.network=a:b:c",), "must be 'mlp'"),
        (("model.network=cnn", "model.arguments.width=3"), r"whose settings are in the section \[cnn\]"),
        (("model.network=a:b", "model.arguments=3"), "must be a table"),
        (("model.network=a:b", "model.arguments.'x y'=3"), "names must be Python's"),
        (("model.network=a:b", "model.arguments.x=nan"), "finite numbers"),
        (("model.network=a:b", "model.arguments.x.y=1"), "lists of these"),
        (("model.network=a:b", "model.arguments.x=[[1]]"), "lists of these"),
        (("model.network=cnn", "worker.precision=bfloat16"), "'bfloat16' is for model.network = 'mlp' alone"),
    ],
)
def test_what_a_configuration_cannot_say_of_a_network(settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(*settings)
