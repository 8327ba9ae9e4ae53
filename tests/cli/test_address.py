"""Where the database is: what the command line says, or a file, or else ISSGD_DATABASE where a run needs a server."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issgd_cli import cli
from issgd_cli.cli.address import VARIABLE, address, blaming, on_default
from issgd_cli.config.layers import assignments, merged
from issgd_cli.errors import AwayError, ConfigError, DatabaseError, GoneError
from issgd_cli.experiments.experiment import Experiment, single

EXPORTED = "redis://exported:6379"
NOWHERE = "unix:///nonexistent.sock"


def url_of(overrides: dict[str, Any], **values: Any) -> str:
    """The database of a run whose file holds these values, with ISSGD_DATABASE as it is."""
    plan = single() if not values else Experiment("file", values, {"": {}}, {"issgd": {}}, [0])
    return on_default(plan.one(None, None, overrides), overrides).config.database.url


def test_the_variable_serves_a_local_run_that_names_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" {EXPORTED} ")
    assert url_of({}) == EXPORTED
    assert url_of({}, database={"url": "redis://***@masked:6379"}) == EXPORTED  # config.toml keeps no password


@pytest.mark.parametrize("exported", ["", "  ", None])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, exported: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if exported is not None:
        monkeypatch.setenv(VARIABLE, exported)
    assert url_of({}) == ""


@pytest.mark.parametrize(
    "settings",
    [
        ["cluster.kind=simulated", "master.steps=3"],
        ["database.listen=127.0.0.1:6380"],
        ["database.url=redis://given:6379"],
        ["database.url="],
    ],
)
def test_the_variable_yields_to_what_is_said_and_to_runs_that_need_no_server(
    monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    monkeypatch.setenv(VARIABLE, EXPORTED)
    given = assignments(settings)
    assert url_of(given) == given.get("database", {}).get("url", "")
    if settings != ["database.url="]:
        assert url_of({}, **given) == given.get("database", {}).get("url", "")  # said in the experiment's file


def test_a_server_that_is_named_for_the_simulated_cluster_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, EXPORTED)
    with pytest.raises(ConfigError, match=r"leave out database\.url"):
        url_of(merged(assignments(["cluster.kind=simulated", "database.url=redis://given:6379"])))


# What is wrong with it


@pytest.mark.parametrize("kind", [DatabaseError, AwayError])
def test_an_error_of_the_variables_server_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, kind: type[DatabaseError]
) -> None:
    monkeypatch.setenv(VARIABLE, EXPORTED)
    with pytest.raises(kind, match=rf"^No answer\. .*{VARIABLE}"), blaming(EXPORTED):
        raise kind("No answer.")


@pytest.mark.parametrize(("url", "launched", "kind"), [
    ("redis://given:6379", False, DatabaseError),
    (EXPORTED, True, DatabaseError),  # by a launcher, who sets the variable itself
    (EXPORTED, False, GoneError),  # of the run, not of the server
    (EXPORTED, False, ConfigError),
])  # fmt: skip
def test_no_other_error_does(monkeypatch: pytest.MonkeyPatch, url: str, launched: bool, kind: type[Exception]) -> None:
    monkeypatch.setenv(VARIABLE, EXPORTED)
    if launched:
        monkeypatch.setenv("ISSGD_LAUNCHER", "1")
    with pytest.raises(kind, match=r"^No answer\.$"), blaming(url):
        raise kind("No answer.")


def test_a_server_of_our_own_is_not_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(DatabaseError, match=r"^No answer\.$"), blaming(""):
        raise DatabaseError("No answer.")


Issgd = Callable[..., str]


@pytest.fixture
def issgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Issgd:
    """The command line in an empty folder, expected to exit 1 (or `status`); what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["issgd", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == status, said
        return said.out + said.err

    return run


TINY = ("--data", "mine.npz", "--set", "model.hidden=[4]", "--set", "master.steps=2", "--set", "worker.chunk_size=20")


@pytest.fixture
def mine(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=np.eye(60, dtype=np.uint8), labels=np.arange(60) % 3)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("exported", [NOWHERE, "nonsense"])
def test_every_command_names_the_variable_whose_server_does_not_answer(
    issgd: Issgd, monkeypatch: pytest.MonkeyPatch, exported: str
) -> None:
    monkeypatch.setenv(VARIABLE, exported)
    for arguments in (
        ("train", *TINY),
        ("worker", "--run", "x"),
        ("monitor", "--run", "x", "--folder", "x"),
        ("doctor",),
    ):
        said = issgd(*arguments)
        assert VARIABLE in said, arguments
        assert ("does not answer" if exported == NOWHERE else "redis://host:6379") in said
    for arguments in (("train", *TINY), ("worker", "--run", "x"), ("doctor",)):
        assert f"the one in {VARIABLE}" not in issgd(*arguments, "--database", "unix:///other.sock")


@pytest.mark.usefixtures("mine")
def test_reproducing_says_that_it_uses_the_variables_server(
    issgd: Issgd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, NOWHERE)
    (tmp_path / "own.toml").write_text('data.name = "mine.npz"\nmaster.steps = 2\nmodel.hidden = [4]\n')
    said = issgd("reproduce", "own.toml")
    assert VARIABLE in said
    assert "failed: The database does not answer" in said


@pytest.mark.usefixtures("mine")
def test_the_simulated_cluster_does_not_look_at_the_variable(issgd: Issgd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nonsense")
    assert "Finished: 2 steps" in issgd("train", *TINY, "--cluster", "simulated", status=0)
    assert "leave out database.url" in issgd("train", *TINY, "--cluster", "simulated", "--database", EXPORTED)


@pytest.mark.parametrize("command", ["train", "reproduce", "worker", "master", "monitor", "doctor"])
def test_help_names_the_variable(issgd: Issgd, command: str) -> None:
    assert VARIABLE in issgd(command, "--help", status=0)


# The file


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.touch(0o600)
    file.write_bytes(f"{EXPORTED}\r\n".encode("utf-8-sig"))
    assert address("redis://other", file) == EXPORTED
    assert address("redis://other", None) == "redis://other"
    assert address(None, None) is None


@pytest.mark.parametrize("content", [EXPORTED.encode("utf-16"), EXPORTED.encode("utf-16-be"), b"\xff\xfa", b"x" * 5000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "url"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"url, named by --database-file, cannot be read: it "):
        address(None, file)
