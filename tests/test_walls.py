"""The house: a module imports only what stands on its own floor or below it, and nothing heavy comes with --help."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

PACKAGE = "issgd_cli"
ROOT = Path(__file__).parents[1]

# A room is a module or a package at the top of issgd_cli.
FLOORS = {
    "errors": 1,
    "files": 1,
    "locks": 1,
    "moved": 1,
    "randomness": 1,
    "config": 1,
    "equations": 1,
    "registries": 1,
    "datasets": 2,
    "losses": 2,
    "networks": 2,
    "optimizers": 2,
    "scores": 3,
    "database": 4,
    "methods": 5,
    "problem": 5,
    "runs": 6,
    "sampler": 6,
    "loader": 7,
    "library": 8,
    "actors": 7,
    "claims": 8,
    "figures": 9,
    "clusters": 10,
    "simulation": 11,
    "experiments": 12,
    "trackers": 12,
    "cli": 13,
    "__main__": 14,
}

MOST_LINES = 300
MOST_METHODS = 15

# Who alone may import what.
OWNERS = {
    "typer": {"cli"},
    "rich": {"cli"},
    "matplotlib": {"figures"},
    "redis": {"database"},
    "pydantic": {"config"},
    "pooch": {"datasets"},
    "filelock": {"locks"},
    "PIL": {"datasets", "figures"},
    "ray": {"clusters"},
    "trackio": {"trackers"},
    "wandb": {"trackers"},
}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    """issgd_cli.database.redis -> database."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, of_types: bool = True) -> Iterator[str]:
    """What a module imports anywhere in it, functions included, by full dotted names; ours as far as they are modules.

    Args:
        of_types: Whether also what is imported for type checkers only.
    """
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    skipped: set[int] = set()
    if not of_types:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: ours are imported by full names"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    rooms = {room_of(module) for module in MODULES} - {""}
    assert rooms <= set(FLOORS), f"give {rooms - set(FLOORS)} a floor"
    assert set(FLOORS) <= rooms, f"{set(FLOORS) - rooms} are gone: take them out"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_no_higher_floor(module: str) -> None:
    if not room_of(module):
        return  # the package itself, of which below
    mine = FLOORS[room_of(module)]
    for name in imports(module):
        if name.split(".")[0] == PACKAGE and (room := room_of(name)):
            assert FLOORS[room] <= mine, f"{module} (floor {mine}) imports {name} (floor {FLOORS[room]})"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_and_its_classes_can_be_held_in_the_head(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            assert len(methods) <= MOST_METHODS, f"{node.name}: {', '.join(methods)}"


def test_the_package_itself_holds_one_line_for_old_paths_which_loads_nothing() -> None:
    assert len(MODULES[PACKAGE].read_text().splitlines()) == 1
    assert list(imports(PACKAGE)) == [f"{PACKAGE}.moved"]
    assert set(imports(f"{PACKAGE}.moved")) == {"sys"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for name in imports(module, of_types=False) if name in MODULES and name != module}
        for module in MODULES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_rooms_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        theirs = {room_of(name) for name in imports(module, of_types=False) if name in MODULES}
        graph.setdefault(room_of(module), set()).update(theirs - {room_of(module), ""})
    done: set[str] = set()

    def visit(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, f"a circle: {' -> '.join([*path[path.index(room) :], room])}"
        if room not in done:
            for name in sorted(graph[room]):
                visit(name, (*path, room))
            done.add(room)

    for room in graph:
        visit(room, ())


def test_master_worker_and_monitor_know_nothing_of_each_other() -> None:
    actors = {f"{PACKAGE}.actors.{name}" for name in ("master", "worker", "monitor")}
    for actor in actors:
        assert not actors & set(imports(actor))


def test_supervision_knows_no_cluster_and_no_cluster_knows_supervision() -> None:
    rooms = f"{PACKAGE}.clusters"
    assert not {"subprocess", f"{rooms}.processes", f"{rooms}.local"} & set(imports(f"{rooms}.supervisor"))
    assert f"{rooms}.supervisor" not in set(imports(f"{rooms}.processes"))


def test_the_library_is_a_door_for_others() -> None:
    assert not [module for module in MODULES if f"{PACKAGE}.library" in set(imports(module))]


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_imported_by_its_room_only(library: str) -> None:
    importers = {
        room_of(module) for module in MODULES if any(name.split(".")[0] == library for name in imports(module))
    }
    assert importers <= OWNERS[library]
    assert importers, f"nobody imports {library} any more"


def loaded_by(code: str) -> set[str]:
    """Top names of all modules that a fresh Python has loaded after running this code."""
    ending = "import sys; print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ending}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


TRACKERS = {"tensorboard", "trackio", "wandb"}
HEAVY = {"torch", "numpy", "pandas", "scipy", "matplotlib", "redis", "pydantic", "PIL", "pooch", *TRACKERS}


def loaded_by_command(*arguments: str, status: int = 0) -> set[str]:
    code = f"""
import sys
sys.argv = ["issgd", *{arguments!r}]
from issgd_cli.cli import main
try:
    main()
except SystemExit as end:
    assert (end.code or 0) == {status}, end.code
"""
    return loaded_by(code)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_nothing_heavy(option: str) -> None:
    loaded = loaded_by_command(option)
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("command", ["train", "reproduce", "prepare", "plot", "advise", "status", "doctor", "worker"])
def test_a_commands_help_imports_nothing_heavy_of_ours(command: str) -> None:
    assert not loaded_by_command(command, "--help") & (HEAVY - {"pydantic"})  # which typer looks for by itself


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "missing.toml"),
        ("train", "--set", "optimizer.learnin_rate=1"),
        ("train", "--set", "optimizer.learning_rate=-1"),
        ("reproduce", "missing.toml"),
        ("advise", "missing.toml"),
        ("plot", "missing"),
    ],
)
def test_who_mistypes_does_not_wait_for_torch(arguments: tuple[str, ...]) -> None:
    assert not loaded_by_command(*arguments, status=1) & {"torch", "pandas", "matplotlib", "scipy"}


def test_the_equations_need_numpy_alone() -> None:
    assert not loaded_by("import issgd_cli.equations.alain2015") & (HEAVY - {"numpy"})


def test_the_actors_do_not_load_what_draws_or_serves() -> None:
    names = ("master", "worker", "monitor", "execution", "devices")
    loaded = loaded_by(f"import {', '.join(f'{PACKAGE}.actors.{name}' for name in names)}")
    assert not loaded & {"matplotlib", "redis", "typer", "rich"}


def test_the_library_loads_nothing_that_a_loop_of_ones_own_has_no_use_for() -> None:
    loaded = loaded_by("import issgd_cli.library")
    assert not loaded & {"typer", "rich", "redis", "matplotlib", "pandas", "scipy", "PIL", "pooch"}


@pytest.mark.parametrize(
    "settings",
    [["proposal.method=issgd", "monitor.audit_examples=20"], ["proposal.method=sgd"], ["proposal.method=online"]],
)
def test_a_run_waits_for_nothing_that_is_slow_to_load(tmp_path: Path, settings: list[str]) -> None:
    """Neither pandas nor torch's compiler nor what that needs: seconds before the first step, for nothing."""
    images = tmp_path / "own.npz"
    random = np.random.default_rng(0)
    np.savez(images, images=random.integers(0, 255, (60, 8), np.uint8), labels=random.integers(0, 3, 60, np.uint8))
    code = f"""
        import sys
        from pathlib import Path
        from issgd_cli.experiments import run as training
        from issgd_cli.config.layers import assignments
        from issgd_cli.config.validation import resolve
        from issgd_cli.runs.folder import RunFolder
        settings = ["data.name={images}", "data.dir={tmp_path}", "cluster.kind=simulated", "master.steps=4",
                    "model.hidden=[4]", "worker.chunk_size=20", "master.minibatch_size=4", *{settings}]
        folder = RunFolder(Path({str(tmp_path / "run" / "seed-000")!r}))
        training.train(resolve(assignments(settings), "a test"), folder, command=[])
        print(folder.trace.read_text().count(",audit/trace/in_use,"))
        print(sorted({{"pandas", "scipy", "matplotlib", "sympy", "torch._dynamo", "torch"}} & {{*sys.modules}}))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["1", "['torch']"]
