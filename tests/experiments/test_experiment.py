"""An experiment's file: what it extends, its settings x datasets x methods x seeds, and who wins."""

import hashlib
import json
from pathlib import Path

import pytest

from issgd_cli.config.toml import as_toml
from issgd_cli.errors import ConfigError, DataError
from issgd_cli.experiments.experiment import parse_seeds, read, single

BASE = """
name = "paper"
seeds = "0-2"
[data]
name = "house-numbers"
[master]
steps = 10
[optimizer]
learning_rate = 0.5
[[settings]]
name = "a"
optimizer.learning_rate = 0.01
proposal.smoothing = 10.0
[[settings]]
name = "b"
optimizer.learning_rate = 0.001
proposal.smoothing = 1.0
[[methods]]
name = "issgd"
[[methods]]
name = "sgd"
proposal.method = "sgd"
[[methods]]
name = "uniformly-smoothed"
proposal.smoothing = 1000.0
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path, "base.toml", BASE)


def test_the_runs_are_settings_x_methods_x_seeds_whole_seeds_first(base: Path) -> None:
    runs = read(base).runs()
    assert [(run.config.seed, run.setting, run.method) for run in runs] == [
        (seed, setting, method)
        for seed in (0, 1, 2)
        for setting in ("a", "b")
        for method in ("issgd", "sgd", "uniformly-smoothed")
    ]
    assert {run.config.name for run in runs} == {"paper"}


def test_precedence_is_file_then_setting_then_method_then_overrides(base: Path) -> None:
    experiment = read(base)
    run = experiment.run("b", "issgd", {})
    assert (run.config.optimizer.learning_rate, run.config.proposal.smoothing) == (0.001, 1.0)  # setting over file
    run = experiment.run("b", "uniformly-smoothed", {})
    assert run.config.proposal.smoothing == 1000.0  # method over setting
    run = experiment.run("b", "uniformly-smoothed", {"proposal": {"smoothing": 3.0}, "optimizer": {"momentum": 0.5}})
    assert (run.config.proposal.smoothing, run.config.optimizer.momentum) == (3.0, 0.5)  # overrides over all
    assert run.config.optimizer.learning_rate == 0.001
    assert run.config.master.steps == 10


def test_a_method_brings_its_own_defaults(base: Path) -> None:
    experiment = read(base)
    assert experiment.run("a", "issgd", {}).config.worker.count == 3
    assert experiment.run("a", "sgd", {}).config.worker.count == 1


def test_every_run_has_a_folder_of_its_own(base: Path, tmp_path: Path) -> None:
    folders = [run.folder(tmp_path).path for run in read(base).runs()]
    assert len(set(folders)) == len(folders) == 18


def test_seeds_and_only_choose_among_the_runs(base: Path) -> None:
    runs = read(base).runs([7, 3], {"setting": "b", "method": "sgd"}, {"master": {"steps": 4}})
    assert [(run.config.seed, run.setting, run.method) for run in runs] == [(7, "b", "sgd"), (3, "b", "sgd")]
    assert {run.config.master.steps for run in runs} == {4}
    assert {run.method for run in read(base).runs(only={"method": "sgd"})} == {"sgd"}


def test_only_what_is_there_can_be_chosen(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"No setting 'c'.*'a', 'b'"):
        read(base).runs(only={"setting": "c"})
    with pytest.raises(ConfigError, match=r"No method 'adam'.*'issgd'"):
        read(base).one("a", "adam", {})


def test_train_takes_the_first_setting_and_method_unless_named(base: Path) -> None:
    experiment = read(base)
    run = experiment.one(None, None, {"seed": 4})
    assert (run.setting, run.method, run.config.seed) == ("a", "issgd", 4)
    run = experiment.one("b", "sgd", {})
    assert (run.setting, run.method) == ("b", "sgd")
    assert run.labels == {"setting": "b", "method": "sgd"}


def test_without_a_file_the_run_is_the_papers() -> None:
    assert single().one(None, None, {}).config.proposal.method == "issgd"
    assert single().one(None, "sgd", {}).config.proposal.method == "sgd"
    assert single().one(None, None, {}).config.name == "train"


def test_a_runs_own_configuration_is_run_again_as_it_was(tmp_path: Path) -> None:
    before = single().one(None, "sgd", {"seed": 3, "master": {"steps": 5}}).config
    (tmp_path / "config.toml").write_text(as_toml(before))
    assert read(tmp_path / "config.toml").one(None, None, {}).config == before
    assert read(tmp_path / "config.toml").one(None, None, {"seed": 4}).config.seed == 4


def test_a_file_without_settings_and_methods_compares_issgd_with_sgd(tmp_path: Path) -> None:
    runs = read(write(tmp_path, "plain.toml", "master.steps = 5\n")).runs()
    assert [(run.setting, run.method, run.config.proposal.method) for run in runs] == [
        ("", "issgd", "issgd"),
        ("", "sgd", "sgd"),
    ]
    assert runs[0].config.name == "plain"


# Datasets

DATASETS = """
[[datasets]]
name = "digits"
data.name = "mnist"
data.train_size = 60
[[datasets]]
name = "house-numbers"
optimizer.learning_rate = 0.7
"""


@pytest.fixture
def several(tmp_path: Path) -> Path:
    return write(tmp_path, "several.toml", BASE + DATASETS)


def test_datasets_multiply_the_runs_between_settings_and_methods(several: Path) -> None:
    runs = read(several).runs([4])
    assert [(run.setting, run.dataset, run.method) for run in runs] == [
        (setting, dataset, method)
        for setting in ("a", "b")
        for dataset in ("digits", "house-numbers")
        for method in ("issgd", "sgd", "uniformly-smoothed")
    ]
    assert {(run.dataset, run.config.data.name) for run in runs} == {
        ("digits", "mnist"),
        ("house-numbers", "house-numbers"),
    }


def test_a_dataset_wins_over_the_setting_and_a_method_over_the_dataset(tmp_path: Path) -> None:
    method = '[[methods]]\nname = "fast"\noptimizer.learning_rate = 0.9\n'
    experiment = read(write(tmp_path, "rates.toml", BASE + method + DATASETS))
    rates = {
        (run.dataset, run.method): run.config.optimizer.learning_rate
        for run in experiment.runs([0], {"setting": "a"})
        if run.method in ("sgd", "fast")
    }
    assert rates == {
        ("digits", "sgd"): 0.01,
        ("digits", "fast"): 0.9,
        ("house-numbers", "sgd"): 0.7,
        ("house-numbers", "fast"): 0.9,
    }
    assert experiment.run("a", "fast", {"data": {"train_size": 9}}, "digits").config.data.train_size == 9


def test_a_run_of_a_dataset_says_so_in_its_folder_and_its_labels(several: Path, tmp_path: Path) -> None:
    run = read(several).run("b", "sgd", {}, "digits")
    assert run.folder(tmp_path).path.parent.name == f"b-digits-sgd-{run.config.hash()}"
    assert run.labels == {"setting": "b", "method": "sgd", "dataset_label": "digits"}


def test_a_method_may_be_run_on_some_of_the_datasets_only(several: Path, tmp_path: Path) -> None:
    names = list(read(several).datasets)
    methods = f'[[methods]]\nname = "issgd"\n[[methods]]\nname = "sgd"\ndatasets = ["{names[1]}"]\n'
    experiment = read(write(tmp_path, "some.toml", f'extends = "several.toml"\n{methods}'))
    found = {(run.dataset, run.method) for run in experiment.runs()}
    assert found == {(names[0], "issgd"), (names[1], "issgd"), (names[1], "sgd")}
    assert experiment.runs(only={"dataset": names[0], "method": "sgd"}) == []
    for wrong, told in (('["nowhere"]', "No dataset 'nowhere'"), ('"mnist"', "lists those"), ("[]", "lists those")):
        listed = f'extends = "several.toml"\n[[methods]]\nname = "sgd"\ndatasets = {wrong}\n'
        with pytest.raises(ConfigError, match=told):
            read(write(tmp_path, "wrong.toml", listed))


def test_a_datasets_name_is_no_part_of_the_hash(several: Path, base: Path, tmp_path: Path) -> None:
    labelled = read(several).run("a", "sgd", {}, "digits")
    plain = read(base).run("a", "sgd", {"data": {"name": "mnist", "train_size": 60}})
    assert labelled.config == plain.config
    assert plain.folder(tmp_path).path.parent.name == f"a-sgd-{labelled.config.hash()}"


def test_train_takes_the_first_dataset_unless_named(several: Path) -> None:
    experiment = read(several)
    assert experiment.one(None, None, {}).dataset == "digits"
    assert experiment.one("b", "sgd", {}, "house-numbers").config.data.name == "house-numbers"
    assert experiment.run("a", "sgd", {}).dataset == "digits"


def test_only_chooses_a_dataset(several: Path, base: Path) -> None:
    runs = read(several).runs([0], {"dataset": "digits", "method": "sgd"})
    assert [(run.setting, run.dataset, run.method) for run in runs] == [("a", "digits", "sgd"), ("b", "digits", "sgd")]
    with pytest.raises(ConfigError, match=r"No dataset 'mnist'.*'digits', 'house-numbers'"):
        read(several).runs(only={"dataset": "mnist"})
    for plan in (read(base), single()):
        with pytest.raises(ConfigError, match=r"No dataset 'mnist': the experiment has no \[\[datasets\]\]"):
            plan.one(None, None, {}, "mnist")


def test_no_run_bears_the_name_of_a_dataset_that_it_was_not_trained_on(several: Path, base: Path) -> None:
    other = {"data": {"name": "cifar10"}}
    with pytest.raises(ConfigError, match=r"several\.toml lists its datasets.*--dataset"):
        read(several).one(None, None, other)
    with pytest.raises(ConfigError, match="lists its datasets"):
        read(several).runs(overrides=other)
    assert read(base).one(None, None, other).config.data.name == "cifar10"
    assert read(several).one(None, None, {"data": {"dir": "elsewhere"}}).config.data.dir == "elsewhere"


def test_figure_1s_runs_are_made_on_each_dataset(tmp_path: Path) -> None:
    experiment = read(write(tmp_path, "t.toml", BASE + DATASETS + "[timelines]\nmaster.steps = 6\n"))
    runs = [run for dataset in experiment.datasets for run in experiment.timeline_runs({}, dataset).values()]
    assert [(run.setting, run.dataset, run.method, run.config.data.name) for run in runs] == [
        ("timeline", "digits", "exact", "mnist"),
        ("timeline", "digits", "relaxed", "mnist"),
        ("timeline", "house-numbers", "exact", "house-numbers"),
        ("timeline", "house-numbers", "relaxed", "house-numbers"),
    ]
    assert len({run.folder(tmp_path).path for run in runs}) == 4


def test_a_file_may_leave_out_the_datasets_of_what_it_extends(several: Path, tmp_path: Path) -> None:
    child = read(write(tmp_path, "child.toml", 'extends = "several.toml"\ndatasets = []\n'))
    assert [(run.dataset, run.config.data.name) for run in child.runs([0], {"setting": "a", "method": "sgd"})] == [
        ("", "house-numbers")
    ]


def test_a_map_is_of_one_dataset(several: Path, tmp_path: Path) -> None:
    map_ = "[map]\nworkers = [1]\npublish_every_steps = [4]\nsmoothings = [1.0]\nsteps = 40\naudit_every_steps = 8\n"
    with pytest.raises(ConfigError, match=r"\[map\] is of one dataset"):
        read(write(tmp_path, "map.toml", f'extends = "{several}"\n' + map_))


# Data of one's own

OWN = """
cluster.kind = "simulated"
data.name = "mine.npz"
timelines.master.steps = 6
[[settings]]
name = "a"
[[settings]]
name = "b"
data.name = "sub/mine.npz"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of data, and a copy of it in sub/; both in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.npz", "sub/mine.npz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"data")
    return tmp_path / "mine.npz"


def test_a_relative_path_and_an_absolute_one_are_the_same_run(mine: Path, tmp_path: Path) -> None:
    for plan in (single(), read(write(tmp_path, "own.toml", OWN))):
        runs = [
            plan.one(None, None, {"data": {"name": name}})
            for name in ("mine.npz", "./mine.npz", "sub/mine.npz", str(mine), "sub/../mine.npz")
        ]
        assert {run.config.data.name for run in runs} == {"mine-3a6eb079"}
        assert len({run.folder(tmp_path).path for run in runs}) == 1
        assert runs[2].data_file == Path("sub/mine.npz")
        by_name = plan.one(None, None, {"data": {"name": "mine-3a6eb079"}})  # which needs no file
        assert (by_name.config, by_name.data_file) == (runs[0].config, None)


def test_own_data_are_known_by_their_content_in_every_setting_and_in_figure_1s_runs(mine: Path, tmp_path: Path) -> None:
    plan = read(write(tmp_path, "own.toml", OWN))
    runs = [*plan.runs(), *plan.timeline_runs({}).values()]
    assert {run.config.data.name for run in runs} == {"mine-3a6eb079"}
    assert [run.data_file for run in runs] == [
        Path(f) for f in ("mine.npz",) * 2 + ("sub/mine.npz",) * 2 + ("mine.npz",) * 2
    ]


def test_a_file_of_own_data_is_looked_for_only_when_a_run_uses_it(mine: Path, tmp_path: Path) -> None:
    mine.unlink()
    plan = read(write(tmp_path, "own.toml", OWN))
    assert plan.one("b", None, {}).config.data.name == "mine-3a6eb079"
    assert plan.one("a", None, {"data": {"name": "mnist"}}).config.data.name == "mnist"
    with pytest.raises(DataError, match=r"mine\.npz cannot be read: No such file"):
        plan.runs()


# extends


def test_a_file_wins_over_what_it_extends_key_by_key_and_has_its_own_name(base: Path, tmp_path: Path) -> None:
    child = read(write(tmp_path, "child.toml", 'extends = "base.toml"\nseeds = 9\n[master]\nminibatch_size = 4\n'))
    run = child.runs()[0]
    assert run.config.name == "child"
    assert (run.config.master.minibatch_size, run.config.master.steps, run.config.seed) == (4, 10, 9)
    assert list(child.settings) == ["a", "b"]


def test_a_chain_of_files_is_followed_and_its_methods_replaced_as_a_whole(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "middle.toml", 'extends = "base.toml"\n[[methods]]\nname = "only"\n')
    (tmp_path / "deeper").mkdir()
    last = read(write(tmp_path / "deeper", "last.toml", 'extends = "../middle.toml"\nname = "mine"\n'))
    assert list(last.methods) == ["only"]
    assert list(last.settings) == ["a", "b"]
    assert last.runs()[0].config.name == "mine"


def test_files_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", 'extends = "b.toml"\n')
    write(tmp_path, "b.toml", 'extends = "a.toml"\n')
    with pytest.raises(ConfigError, match=r"circle: a\.toml -> b\.toml -> a\.toml"):
        read(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="circle"):
        read(write(tmp_path, "self.toml", 'extends = "self.toml"\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "nowhere.toml"\n', r"No file .*nowhere\.toml"),
        ("extends = 3\n", "must be the name of a TOML file"),
        ("[optimizer]\nlearning_rat = 1\n", r"bad\.toml: unknown key optimizer\.learning_rat; did you mean"),
        ('[[settings]]\nname = "a"\noptimizer.rate = 1\n', r"unknown key optimizer\.rate"),
        ('[[methods]]\nname = "m"\nproposal.method = "adam"\n', r"proposal\.method"),
        ("[[settings]]\noptimizer.momentum = 0.5\n", r"each of \[\[settings\]\] needs a `name`"),
        ('[[settings]]\nname = "a"\n[[settings]]\nname = "a"\n', "a `name` of its own"),
        ('[[methods]]\nname = "../up"\n', "a `name` of its own"),
        ('[[datasets]]\nname = "mnist"\ndata.nam = "mnist"\n', r"unknown key data\.nam"),
        ('[[datasets]]\ndata.name = "mnist"\n', r"each of \[\[datasets\]\] needs a `name`"),
        ('datasets = ["mnist"]\n', r"each of \[\[datasets\]\] needs a `name`"),
        ('[settings]\nname = "a"\n', r"\[\[settings\]\]"),
        ("settings = 3\n", r"\[\[settings\]\]"),
        ('seeds = "3-1"\n', "seeds '3-1'"),
        ("seeds = [1, 2]\n", "seeds"),
    ],
)
def test_a_wrong_file_is_refused_at_once_by_what_is_wrong_in_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path, "bad.toml", text))


# Figure 1's runs


def test_the_timelines_are_issgds_first_setting_with_barriers_and_without(tmp_path: Path) -> None:
    timelines = "[timelines]\nmaster.steps = 6\nproposal.smoothing = 2.0\n"
    limit = "[proposal]\nstaleness_limit_seconds = 4.0\n"
    runs = read(write(tmp_path, "t.toml", BASE + timelines + limit)).timeline_runs({"worker": {"count": 2}})
    assert {mode: run.config.master.mode for mode, run in runs.items()} == {"exact": "exact", "relaxed": "relaxed"}
    for mode, run in runs.items():
        assert (run.setting, run.method) == ("timeline", mode)
        assert run.config.proposal.method == "issgd"
        assert (run.config.master.steps, run.config.proposal.smoothing, run.config.worker.count) == (6, 2.0, 2)
        assert run.config.optimizer.learning_rate == 0.01
    # A limit in seconds does not apply behind barriers.
    assert runs["exact"].config.proposal.staleness_limit_seconds is None
    assert runs["relaxed"].config.proposal.staleness_limit_seconds == 4.0


def test_a_file_without_timelines_has_no_such_runs(base: Path) -> None:
    assert read(base).timeline_runs({}) == {}


# Seeds and --only


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [3]),
        ("0-3", [0, 1, 2, 3]),
        ("0-1,7", [0, 1, 7]),
        ("2, 0-2", [2, 0, 1]),
        ("5-5", [5]),
        ("0-49", [*range(50)]),
    ],
)
def test_seeds_are_ranges_and_numbers_without_repetitions(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "0-2-4", "²"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write 0-49, 3, or 0-4,7"):
        parse_seeds(text)


# The files that come with the project

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda p: p.name)
def test_every_experiment_that_comes_with_the_project_is_valid(path: Path) -> None:
    experiment = read(path)
    seeds = experiment.seeds[:1]
    met = [experiment.meets(method, dataset) for method in experiment.methods for dataset in experiment.datasets]
    combinations = len(experiment.settings) * sum(met)
    assert len(experiment.runs(seeds)) == len({*seeds, *experiment.choosing}) * combinations


# The names of their runs' folders, the hash included: what has been run is found again by these.
RUNS = {
    "salaun-2023.toml": (
        "mnist-online-60e5b171 mnist-sgd-b0f082aa mnist-reshuffled-146416d9 mnist-dlis-81fbf342 "
        "mnist-low-f582d233 mnist-infobatch-e8c8e968 mnist-adaptive-74071a85 mnist-pruning-ecd6d4c8 "
        "mnist-pruning-random-ce225618 cifar10-online-795d0032 cifar10-sgd-c230d511 "
        "cifar10-reshuffled-72652691 cifar10-dlis-91e1d7b2 cifar10-low-db67c774 cifar10-infobatch-bd1bdbe6 "
        "cifar100-online-2251c66c cifar100-sgd-3ad41141 cifar100-reshuffled-0c4c6ee9 cifar100-dlis-3f086e1a "
        "cifar100-low-7011804d cifar100-infobatch-835409ba cifar10-vit-online-f4e1619e "
        "cifar10-vit-sgd-a2ed246c cifar10-vit-reshuffled-edc7442d cifar10-vit-dlis-56d2dce3 "
        "cifar10-vit-low-28901ac5 cifar10-vit-infobatch-12922ac0 flowers-102-online-b5b6aa57 "
        "flowers-102-sgd-4796f72b flowers-102-reshuffled-5936c97e flowers-102-dlis-04b06562 "
        "flowers-102-low-a1185ac1 flowers-102-infobatch-c6e7d3f8 modelnet40-online-ab8e5d8d "
        "modelnet40-sgd-b8bb66f0 modelnet40-reshuffled-4dfb390a modelnet40-dlis-1dde5460 "
        "modelnet40-low-085a695e modelnet40-infobatch-8cb237ef"
    ),
    "salaun-2024.toml": (
        "polynomial-omis-b00284c2 polynomial-mis-07809885 polynomial-online-7900e9a4 polynomial-sgd-890ca5b6 "
        "polynomial-reshuffled-cc83b8d9 polynomial-dlis-06abbc85 polynomial-exact-78a3c0c5 "
        "polynomial-omis-unbiased-ccfbb2fa mnist-omis-ddec74e8 mnist-mis-46ba8464 mnist-online-ea28db17 "
        "mnist-sgd-81276609 mnist-reshuffled-218ce32f mnist-dlis-79774071 mnist-omis-unbiased-e22f2954 "
        "modelnet40-omis-31040f7a modelnet40-mis-54930996 modelnet40-online-e1bfe8d9 modelnet40-sgd-68afe0d2 "
        "modelnet40-reshuffled-be2c797e modelnet40-dlis-401b8710 modelnet40-omis-unbiased-67a6d9eb "
        "picture-omis-9db4bfa8 picture-mis-e755fece picture-online-c7b6d701 picture-sgd-a83b2ec2 "
        "picture-reshuffled-52b03229 picture-dlis-917ba995 picture-omis-unbiased-82939481"
    ),
    "salaun-2024-quick.toml": (
        "polynomial-omis-05380f53 polynomial-mis-255f5747 polynomial-online-a1eaab44 "
        "polynomial-sgd-16b34b21 polynomial-reshuffled-903ea956 polynomial-dlis-0bc03f42 "
        "polynomial-exact-89141670 polynomial-omis-unbiased-dfb0a419 polynomial-omis-forgetful-789296cc "
        "mnist-omis-4f8f800e mnist-mis-facf9a83 mnist-online-4a08150b mnist-sgd-5747794f "
        "mnist-reshuffled-8894d66b mnist-dlis-71a455cd mnist-omis-unbiased-3b076e92 picture-omis-9988f345 "
        "picture-mis-3a131fb1 picture-online-a7aeedc0 picture-sgd-33580670 picture-reshuffled-aa24aefa "
        "picture-dlis-bb7e0296 picture-omis-unbiased-4e1ac8d6"
    ),
    "salaun-2023-quick.toml": (
        "online-7761ccc5 sgd-ed6a1c2d reshuffled-08dd9b7c adaptive-63c4b492 dlis-ca1e61c9 low-9690760b "
        "infobatch-de884437 pruning-95d29199 pruning-random-5eee364c online-alpha-0-ac554874 "
        "online-alpha-02-4acb90bd online-alpha-03-c74038ec"
    ),
    "cifar10.toml": (
        "a-issgd-16b104fb a-sgd-36df6969 b-issgd-9b8b8f66 b-sgd-698a5e19 timeline-exact-605c99bc "
        "timeline-relaxed-2a2e3a20"
    ),
    "crossed.toml": "a-issgd-434ec071 a-plus-1-issgd-a74fd826 b-plus-10-issgd-f85928e2 b-issgd-08fc854f",
    "networks.toml": (
        "plus-1-resnet18-cifar10-issgd-b6708089 plus-1-resnet18-cifar10-sgd-26d6b0ac "
        "plus-1-vit-cifar10-issgd-45850c79 plus-1-vit-cifar10-sgd-b2c05e7e plus-1-text-trec-issgd-67b39813 "
        "plus-1-text-trec-sgd-9fd85dc6 plus-1-polynomial-issgd-434bb0c0 plus-1-polynomial-sgd-0b26725a"
    ),
    "own-norms.toml": "a-issgd-50a5cd3e a-issgd-own-norms-bb4cbd44 b-issgd-a0e77254 b-issgd-own-norms-602c8c4f",
    "paper-a.toml": "a-issgd-37a65115 a-sgd-f2320238 timeline-exact-e48be485 timeline-relaxed-83c8c464",
    "paper-b.toml": "b-issgd-21d674f4 b-sgd-54ad0ab8 timeline-exact-5715b79b timeline-relaxed-a3cc61db",
    "paper-simulated.toml": (
        "a-cifar10-issgd-bd04d3a9 a-cifar10-sgd-3ad8190b a-house-numbers-issgd-78d5fbee a-house-numbers-sgd-944de54d "
        "b-cifar10-issgd-093868d2 b-cifar10-sgd-9a98ca76 b-house-numbers-issgd-c6ccbfc8 b-house-numbers-sgd-5975d5ee"
    ),
    # Other runs since its claims come from the simulated cluster; QUICK_BEFORE are those with real processes.
    "quick.toml": (
        "a-issgd-434ec071 a-sgd-af1b0951 b-issgd-08fc854f b-sgd-550a2021 timeline-exact-06ee7518 "
        "timeline-relaxed-63dc6718"
    ),
    "salaun-networks.toml": (
        "resnet18-cifar10-online-b56773b0 resnet18-cifar10-sgd-7d6cb879 "
        "resnet18-cifar10-reshuffled-0cd71dc0 vit-cifar10-online-400f1573 vit-cifar10-sgd-3eaed5c3 "
        "vit-cifar10-dlis-d25da6f3 vit-cifar10-low-13f984fe pointnet-modelnet10-online-38a5f511 "
        "pointnet-modelnet10-sgd-f13ffd2a pointnet-modelnet10-reshuffled-1b033b3c "
        "pointnet-modelnet10-omis-bfb187ac"
    ),
    "salaun-sensitivity.toml": (
        "sgd-ed6a1c2d online-7761ccc5 epsilon-small-d8ea87b0 epsilon-large-1de902f8 pruning-95d29199 "
        "pruning-less-b093dc77 pruning-keep-9160acdf pruning-more-b619e1f2 omis-52e9fa52 ridge-small-360c9c28 "
        "ridge-large-f2c48811 omis-forgetful-185eae27 mis-f7fadb56 plain-omis-3bf8f4b0 plain-mis-3d42f87b "
        "momentum-mis-64aa5963"
    ),
    "size.toml": (
        "a-10k-issgd-44925267 a-20k-issgd-1b772247 a-40k-issgd-347732a0 a-160k-issgd-70e8ae3d a-570k-issgd-1ac4855f"
    ),
    "smoke.toml": "issgd-9657d222 sgd-42b0ac4f",
    "staleness.toml": (
        "a-0-workers-5e854291 a-1-workers-plus-1-30dfaff9 a-1-workers-variance-optimal-00c3f670 "
        "a-3-workers-plus-1-a21119a6 a-3-workers-variance-optimal-fcf52702 a-32-workers-plus-1-8493ba0f "
        "a-32-workers-variance-optimal-fe1edff7 a-1024-workers-plus-1-efb4fcaf "
        "a-1024-workers-variance-optimal-a8a1429e b-0-workers-1a5837d2 b-1-workers-plus-1-b3540342 "
        "b-1-workers-variance-optimal-4075a577 b-3-workers-plus-1-876ee258 b-3-workers-variance-optimal-82aa09c8 "
        "b-32-workers-plus-1-2b0af4e6 b-32-workers-variance-optimal-38a9da22 b-1024-workers-plus-1-9c6ef484 "
        "b-1024-workers-variance-optimal-316eca7f"
    ),
    "svhn-small.toml": (
        "a-issgd-4fdea786 a-sgd-da5fca8c a-issgd-variance-optimal-261399e4 b-issgd-3ee92b31 b-sgd-c97c271b "
        "b-issgd-variance-optimal-651d7cc3 timeline-exact-94844cf7 timeline-relaxed-7ecc038d"
    ),
    "peers.toml": (
        "k20-svhn-small-issgd-78a57ab9 k20-svhn-small-sgd-4c4d08f2 k20-svhn-small-issgd-peers-f9ed8aef "
        "k20-svhn-small-asgd-58e24180 k20-svhn-small-synchronous-sgd-206c77c8 "
        "k20-svhn-small-issgd-peers-bfloat16-255e8254 k20-cifar10-issgd-190e1085 "
        "k20-cifar10-sgd-6681e75c k20-cifar10-issgd-peers-49943ede k20-cifar10-asgd-907740f5 "
        "k20-cifar10-synchronous-sgd-7a82c48f k20-cifar10-issgd-peers-bfloat16-0ca881aa "
        "h200-svhn-small-issgd-6830335c h200-svhn-small-sgd-59f772eb "
        "h200-svhn-small-issgd-peers-fb10a2ae h200-svhn-small-asgd-ab685ab1 "
        "h200-svhn-small-synchronous-sgd-7f5085bd h200-svhn-small-issgd-peers-bfloat16-6be84053 "
        "h200-cifar10-issgd-70a9300b h200-cifar10-sgd-217a1dbf h200-cifar10-issgd-peers-6f0d1181 "
        "h200-cifar10-asgd-fac9b377 h200-cifar10-synchronous-sgd-38f95c93 "
        "h200-cifar10-issgd-peers-bfloat16-b31cd142"
    ),
    "smoothings.toml": ("a-issgd-15066437 a-issgd-variance-optimal-1a8fab72 a-issgd-second-moment-c176f802"),
    "systematic.toml": "issgd-systematic-6099c345 online-systematic-36c10118",
    "toy.toml": "online-d60c6698",
    "threshold.toml": (
        "b-limit-1s-a6831ad8 b-limit-4s-87774856 b-limit-20s-ada86f90 b-no-limit-e12d214f b-shuffled-45992530"
    ),
}


# Of those that have hundreds: a digest of the same.
DIGESTS = {
    "equal-work.toml": "a9bc93eaeba3e85e",
    "equal-work-networks.toml": "26324805e2734ce2",
    "levers.toml": "dc22f2755e04bdd7",
}


@pytest.mark.parametrize("name", sorted(path.name for path in EXPERIMENTS.glob("*.toml")))
def test_no_run_of_an_experiment_that_comes_with_the_project_gets_another_name(name: str) -> None:
    experiment = read(EXPERIMENTS / name)
    runs = [*experiment.runs(experiment.seeds[:1]), *experiment.timeline_runs({}).values()]
    names = [run.folder(Path()).path.parent.name for run in runs]
    if name in DIGESTS:
        assert hashlib.sha256(" ".join(names).encode()).hexdigest()[:16] == DIGESTS[name]
    else:
        assert names == RUNS[name].split()


QUICK_BEFORE = "a-issgd-9b033e5f a-sgd-43e637da b-issgd-79fa0362 b-sgd-d199665f"


def test_a_run_of_quick_before_it_was_simulated_keeps_its_name() -> None:
    """It was cifar10.toml, which extended it then, on other data and a smaller network."""
    before = {
        "data": {"name": "house-numbers", "train_size": 20_000},
        "model": {"hidden": [128] * 4},
        "worker": {"chunk_size": 1024},
        "monitor": {"audit_every_steps": 151},
    }
    runs = read(EXPERIMENTS / "cifar10.toml").runs([0], overrides=before)
    assert [run.folder(Path()).path.parent.name for run in runs] == QUICK_BEFORE.split()


@pytest.mark.parametrize(
    "name",
    [
        "crossed",
        "networks",
        "own-norms",
        "paper-simulated",
        "quick",
        "salaun-2023-quick",
        "salaun-2024-quick",
        "salaun-networks",
        "salaun-sensitivity",
        "size",
        "staleness",
        "svhn-small",
        "threshold",
    ],
)
def test_the_runs_behind_a_reference_are_the_experiments(name: str) -> None:
    """Of the references that were made since a run's name leaves out what is default."""
    found = list((EXPERIMENTS.parent / f"results/reference/{name}").rglob("manifests.json"))  # one a dataset
    names = {run.split("/")[1] for path in found for run in json.loads(path.read_text())}
    assert {run for run in names if not run.startswith("timeline-")} == {
        run for run in RUNS[f"{name}.toml"].split() if not run.startswith("timeline-")
    }
