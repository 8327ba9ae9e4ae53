"""The README keeps its word: its example runs, the tests and functions that it names exist, its lengths are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_loop_over_a_data_loader_changes_in_five_lines() -> None:
    loop, _ = EXAMPLES
    marked = [line for line in loop.splitlines() if re.search(r"# [1-9]\b", line)]
    assert [re.findall(r"# ([1-9])\b", line) for line in marked] == [["1"], ["2"], ["3"], ["4"], ["5"]]
    unmarked = "\n".join(line for line in loop.splitlines() if line not in marked)
    of_ours = ("issgd", "ImportanceLoader", "weighted_backward", "drawn", "norms", "update")
    assert not [name for name in of_ours if name in unmarked]


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES, ids=["loader", "pieces"])
def test_the_example_trains_a_model_of_ones_own_in_one_process(code: str) -> None:
    assert len(code.strip().splitlines()) <= 26
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that share their cores with other tests wait for each other
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    assert done.returncode == 0, done.stderr
    error = float(done.stdout.removeprefix("training error "))
    assert error < 0.05  # chance is 0.5


def test_every_test_that_is_named_exists() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", README))
    assert named
    assert not {name for name in named if f"def {name}(" not in tests}


def test_the_lengths_of_the_modules_are_true() -> None:
    told = re.findall(r"\[(\w+\.py)\]\((issgd_cli/[\w/]+\.py)\)\s+\((\d+)", README)
    assert len(told) == 5
    for _, path, lines in told:
        assert len((ROOT / path).read_text().splitlines()) == int(lines), path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_linked_or_named_file_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    links += [name for name in re.findall(r"`((?:issgd_cli|tests)/[\w/]+\.py)`", text) if "NAME" not in name]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
