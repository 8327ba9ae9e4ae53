"""The load test runs, at a tiny size, and counts what the server has been sent."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import load

pytestmark = pytest.mark.slow


def test_a_worker_and_a_master_load_a_real_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--workers", "3", "--paces", "0.01", "--seconds", "1", "--publish-seconds", "0.2"]
    load.main([*words, "--results", str(tmp_path)])
    (path,) = tmp_path.glob("load-*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert 0 < row["chunks"] <= 3 / 0.01
    bytes_of_a_chunk = 256 * (4 + 4 + 1)
    assert row["megabytes_in"] * 1e6 > row["chunks"] * bytes_of_a_chunk * 0.5  # the last of a split are shorter
    assert row["megabytes_out"] > 0
    assert 0 < row["push_p50"] <= row["push_p99"]
    assert row["refresh"] > 0
    assert path.with_suffix(".md").read_text().count("|") == 3 * (len(load.COLUMNS) + 1)
    assert "| 3 | 0.01 |" in capsys.readouterr().out
