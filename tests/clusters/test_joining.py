"""An actor that joins a run by the database, and what it does not do because the database says so."""

import contextlib
import sys
from pathlib import Path
from typing import get_args

import pytest

from issgd_cli.clusters.joining import Kind, join
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import serving
from issgd_cli.errors import ConfigError, DataError
from issgd_cli.networks import naming


def test_no_code_is_imported_because_the_database_names_it(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_network.py").write_text("import pathlib\npathlib.Path('imported').touch()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(naming, "_named", set())
    config = resolve(assignments(["master.steps=1", "model.network=users_network:f", "data.name=nowhere"]), "a test")
    values = config.model_dump(mode="json", exclude_none=True, exclude={"database"})
    layout = Layout(10, 2, 2, 5)
    with serving(short_folder / "log") as server, contextlib.closing(RedisDatabase(server.url, "run")) as database:
        database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
        database.put("description", {"config": values, "dataset": "d", "model": "m", "resumed": False})
        for named in (None, "users_network:g"):
            if named is not None:
                naming.name(named)
            for kind in get_args(Kind):
                with pytest.raises(ConfigError, match="add `--model users_network:f`"):
                    join(kind, server.url, "run", tmp_path, tmp_path, None, "cpu")
        naming.name("users_network:f")
        with pytest.raises(DataError, match="nowhere"):  # what comes next
            join("worker", server.url, "run", tmp_path, None, None, "cpu")
    assert "users_network" not in sys.modules
    assert not (tmp_path / "imported").exists()
