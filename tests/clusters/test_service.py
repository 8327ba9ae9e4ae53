"""What a run's actors meet in, as its owner sees it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from issgd_cli.clusters import service as services
from issgd_cli.clusters.service import Service
from issgd_cli.config.config import Config
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server
from issgd_cli.errors import DatabaseError
from issgd_cli.runs.folder import RunFolder
from tests.servers import administered


def served(service: Service, limits_workers: bool = True, invitation: Path | None = None) -> Service:
    """The same with a server of the run's own."""
    server = SimpleNamespace(
        worker_url="unix://worker", version="redis 6.2.0", limits_workers=limits_workers, invitation=invitation
    )
    return dataclasses.replace(service, server=cast(Server, server))


def test_a_worker_gets_a_workers_url_where_there_is_one(service: Service) -> None:
    assert {service.url_for(actor) for actor in ("master", "worker-0")} == {"redis://somewhere"}
    own = served(service)
    assert [own.url_for(actor) for actor in ("master", "worker-0")] == ["redis://somewhere", "unix://worker"]


def test_a_server_of_somebody_elses_is_not_looked_after(service: Service) -> None:
    assert service.poll() is None
    assert service.last_words() == ""


def test_who_may_join_is_told(service: Service, tmp_path: Path) -> None:
    assert "where FILE holds the database's URL" in service.welcome()[0]
    assert served(service).welcome() == []
    assert "their copy of" in served(service, invitation=tmp_path).welcome()[0]
    assert dataclasses.replace(service, hand="peer").welcome()[0].startswith("peers join by: issgd peer --run ")
    for nobody in (service, served(service, invitation=tmp_path)):
        assert dataclasses.replace(nobody, hand="").welcome() == []
    (line,) = served(service, limits_workers=False).welcome()
    assert line.startswith("redis 6.2.0: users alone")


def test_a_run_keeps_its_name_and_leaves_word_on_a_server_that_outlives_it(
    configured: Callable[..., Config], new_folder: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    folder = new_folder("run")
    folder.update_manifest(state="running")
    with administered(tmp_path / "server.log") as (server, _):
        config = configured(f"database.url={server.url}")
        with services.opened(config, folder) as service:
            name = service.run_name
            assert "/run/seed-000-" in name
            service.database.put("finished", {})
        noted = folder.read_manifest()
        assert noted["run_name"] == name
        assert noted["database_guard"] == service.guard()
        database = RedisDatabase(server.url, name)
        assert database.get("stop") is not None
        assert database.get("finished") is None
        database.close()
        with services.opened(config, folder) as service:
            assert service.run_name == name


def test_a_server_of_the_runs_own_comes_and_goes_with_it_and_is_started_again_empty(
    configured: Callable[..., Config], new_folder: Callable[[str], RunFolder]
) -> None:
    folder = new_folder("run")
    folder.update_manifest(state="running")
    with services.opened(configured(), folder) as service:
        assert service.server is not None
        assert service.poll() is None
        service.database.put("finished", {})
        service.server.process.kill()
        service.server.process.wait()
        assert service.poll() == -9
        service.restart()
        assert service.poll() is None
        assert service.database.get("finished") is None
    assert service.poll() is not None
    assert service.last_words() == folder.log_of("database").read_text()


def test_a_server_that_does_not_answer_is_known_at_once(
    configured: Callable[..., Config], new_folder: Callable[[str], RunFolder], short_folder: Path
) -> None:
    folder = new_folder("run")
    folder.update_manifest(state="running")
    config = configured(f"database.url=unix://{short_folder}/nobody")
    with pytest.raises(DatabaseError), services.opened(config, folder):
        pytest.fail("nobody is there")
    assert "run_name" not in folder.read_manifest()
