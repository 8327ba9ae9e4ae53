"""`issgd reproduce` end to end: runs, figures, verdicts; and again, without doing anything twice."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.end_to_end.conftest import EXPERIMENTS, CommandLine, comparable
from tests.processes import PATIENCE

TINY = f"""
extends = "{EXPERIMENTS / "smoke.toml"}"
seeds = "0"
[master]
mode = "relaxed"
steps = 48
[worker]
count = 1
[[settings]]
name = "a"
proposal.smoothing = 10.0
[[settings]]
name = "b"
optimizer.learning_rate = 0.001
"""
TIMELINES = """
[timelines]
master.steps = 64
"""


@pytest.mark.long
def test_an_experiment_ends_with_figures_table_and_report_and_is_not_done_twice(issgd: CommandLine) -> None:
    (issgd.place / "tiny.toml").write_text(TINY + TIMELINES)
    command = ("reproduce", "tiny.toml", "--data-dir", issgd.data_dir)
    dry = issgd.here(*command, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "6 runs" in dry.stdout  # 2 settings x 2 methods, and 2 for figure 1
    assert not (issgd.place / "results").exists()
    part = issgd(*command, "--only", "setting=a,method=sgd")
    assert part.returncode == 0, part.stderr
    done = issgd(*command, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "3 runs done, 3 were finished before, 0 failed" in done.stdout
    place = issgd.place / "results" / "tiny"
    for number in (1, 2, 3, 4):
        for ending in ("png", "pdf", "json"):
            assert (place / f"figure-{number}.{ending}").stat().st_size > 200
    claims = json.loads((place / "claims.json").read_text())
    assert len(claims["claims"]) == 11
    report = (place / "report.md").read_text()
    assert "4 of 4 runs finished" in report
    traces = {path: path.read_bytes() for path in place.rglob("trace.csv")}
    again = issgd.here(*command)
    assert "0 runs done, 6 were finished before" in again.stdout
    assert {path: path.read_bytes() for path in place.rglob("trace.csv")} == traces
    drawn = issgd.here("plot", "tiny.toml", "--axis", "examples", "--out", "elsewhere")
    assert drawn.returncode == 0, drawn.stderr
    assert json.loads((issgd.place / "elsewhere" / "figure-2.json").read_text())["axis"] == "examples"


@pytest.mark.long
def test_a_failed_run_is_told(issgd: CommandLine) -> None:
    (issgd.place / "tiny.toml").write_text(TINY)
    command = ("reproduce", "tiny.toml", "--data-dir", issgd.data_dir, "--seeds", "0", "--only", "setting=b,method=sgd")
    failed = issgd(*command, "--set", "optimizer.learning_rate=1e30")
    assert failed.returncode == 1
    assert "not finite" in failed.stdout
    assert "failed" in (issgd.place / "results/tiny/report.md").read_text()
    assert "failed" in issgd.here("status").stdout


def traces_of(place: Path) -> dict[Path, pd.DataFrame]:
    return {path.relative_to(place).parent: comparable(path.parent) for path in sorted(place.rglob("trace.csv"))}


@pytest.mark.long
def test_a_killed_reproduce_ends_with_the_same_and_does_no_finished_run_again(
    issgd: CommandLine, eventually: Callable[[Callable[[], object]], None]
) -> None:
    exact = TINY.replace('"relaxed"', '"exact"').replace("steps = 48", "steps = 256")
    for name in ("calm", "broken"):
        (issgd.place / f"{name}.toml").write_text(f'name = "{name}"\n' + exact)
    options = ("--data-dir", issgd.data_dir, "--only", "setting=a")
    done = issgd("reproduce", "calm.toml", *options)
    assert done.returncode == 0, done.stderr
    calm, broken = (issgd.place / "results" / name for name in ("calm", "broken"))
    process = issgd.start("reproduce", "broken.toml", *options)
    eventually(lambda: list(broken.rglob("manifest.json")))
    refused = issgd.here("reproduce", "broken.toml", *options)
    assert (refused.returncode, "already at work" in refused.stderr) == (1, True), refused.stderr
    eventually(lambda: len(list(broken.rglob("trace.csv"))) == 2)  # the first is finished, the second goes on
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    first = {
        path: path.read_bytes() for path in broken.rglob("seed-000/manifest.json") if '"finished"' in path.read_text()
    }
    assert len(first) == 1
    again = issgd("reproduce", "broken.toml", *options)
    assert again.returncode == 0, again.stderr
    assert "1 runs done, 1 were finished before, 0 failed" in again.stdout
    assert {path: path.read_bytes() for path in first} == first
    assert traces_of(calm).keys() == traces_of(broken).keys()
    for run, trace in traces_of(calm).items():
        pd.testing.assert_frame_equal(trace, traces_of(broken)[run], check_exact=True)


def test_a_second_reproduce_on_the_same_folder_is_refused(issgd: CommandLine) -> None:
    (issgd.place / "tiny.toml").write_text(TINY)
    from issgd_cli.runs.folder import locked

    with locked(Path(issgd.place / "results" / "tiny"), "a test"):
        refused = issgd("reproduce", "tiny.toml", "--data-dir", issgd.data_dir)
    assert refused.returncode == 1
    assert "already at work" in refused.stderr


DATASETS = """
seeds = "0"
cluster.kind = "simulated"
model.hidden = [16]
model.initial_weight_std = 0.2
master.steps = 64
monitor.audit_every_steps = 32
[[settings]]
name = "a"
[[datasets]]
name = "small"
data.name = "small.npz"
[[datasets]]
name = "large"
data.name = "large.npz"
worker.chunk_size = 64
"""


@pytest.mark.long
def test_datasets_of_ones_own_have_a_report_each_and_a_page_beside_them(issgd: CommandLine) -> None:
    random = np.random.default_rng(0)
    for name, size in (("small", 300), ("large", 400)):
        labels = random.integers(0, 3, size)
        images = (random.integers(0, 80, (size, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
        np.savez(issgd.place / f"{name}.npz", images=images, labels=labels)
    (issgd.place / "pair.toml").write_text(DATASETS)
    place = issgd.place / "results" / "pair"
    dry = issgd.here("reproduce", "pair.toml", "--dry-run", "--only", "dataset=large")
    assert dry.returncode == 0, dry.stderr
    assert "2 runs" in dry.stdout
    one = issgd.here("train", "pair.toml", "--dataset", "large", "--method", "sgd")
    assert one.returncode == 0, one.stderr
    drawn = issgd.here("plot", "pair.toml")
    assert drawn.returncode == 0, drawn.stderr
    assert "- small: 0 of 2 runs finished" in (place / "report.md").read_text()
    done = issgd("reproduce", "pair.toml")
    assert done.returncode == 0, done.stderr
    assert "3 runs done, 1 were finished before, 0 failed" in done.stdout
    folders = sorted(path.parents[1].name.rpartition("-")[0] for path in place.glob("*/*/manifest.json"))
    assert folders == ["a-large-issgd", "a-large-sgd", "a-small-issgd", "a-small-sgd"]
    manifests = [json.loads(path.read_text()) for path in place.glob("*/*/manifest.json")]
    assert {(one["dataset_label"], one["dataset"]["name"].partition("-")[0]) for one in manifests} == {
        ("small", "small"),
        ("large", "large"),
    }
    index = (place / "report.md").read_text()
    assert "|  | The paper says | small | large |" in index
    for name, size in (("small", 300), ("large", 400)):
        assert f"[{name}]({name}/report.md)" in index
        claims = json.loads((place / name / "claims.json").read_text())
        assert (claims["experiment"], claims["runs"].split(",")[0]) == (f"pair/{name}", "2 of 2 runs finished")
        shown = json.loads((place / name / "figure-2.json").read_text())["runs"]
        assert {run["path"].split("/")[1].rpartition("-")[0] for run in shown} == {f"a-{name}-issgd", f"a-{name}-sgd"}
        told = [line for line in (place / name / "report.md").read_text().splitlines() if line.startswith("- Data:")]
        assert sum(int(count) for count in re.findall(r"(\d+) (?:train|valid|test)", told[0])) == size
    assert not (place / "figure-2.png").exists()
    # The folder alone gives the same pages.
    drawn = issgd.here("plot", place, "--out", "elsewhere")
    assert drawn.returncode == 0, drawn.stderr
    assert sorted(path.name for path in (issgd.place / "elsewhere").iterdir()) == ["large", "report.md", "small"]
    assert set((issgd.place / "elsewhere" / "report.md").read_text().splitlines()[4:7]) == set(index.splitlines()[4:7])
    listed = issgd.here("status").stdout
    assert re.findall(r"a-(?:large|small)-\S+ +(large|small)", listed) == ["large"] * 2 + ["small"] * 2


METHODS_OF_CONTEST = ("reshuffled", "second-moment")
CONTEST = """
seeds = "0-1"
choosing_seeds = "7"
choosing_by = ["validation", "training"]
model.hidden = [8]
model.initial_weight_std = 0.1
master.work = 1_200
master.minibatch_size = 30
monitor.audit_every_steps = 4
cluster.kind = "alone"
[[settings]]
name = "fast"
optimizer.learning_rate = 0.05
[[settings]]
name = "none"
optimizer.learning_rate = 1e-9
[[datasets]]
name = "dots"
data.name = "dots.npz"
[[methods]]
name = "reshuffled"
proposal.method = "reshuffled"
[[methods]]
name = "second-moment"
proposal.method = "second-moment"
"""


@pytest.mark.long
def test_a_contest_chooses_each_methods_setting_then_judges_it_and_has_a_board(issgd: CommandLine) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    images = (random.integers(0, 80, (300, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
    np.savez(issgd.place / "dots.npz", images=images, labels=labels)
    (issgd.place / "contest.toml").write_text(CONTEST)
    dry = issgd.here("reproduce", "contest.toml", "--dry-run")
    assert "12 runs, about" in dry.stdout, dry.stderr  # at most: one rate may be best by both
    done = issgd("reproduce", "contest.toml")
    assert "4 runs done, 4 were finished before, 0 failed" in done.stdout, done.stderr
    place = issgd.place / "results" / "contest"
    folders = {(path.parts[-3].rpartition("-")[0], path.parts[-2]) for path in place.glob("*/*/manifest.json")}
    choosing = {(f"{rate}-dots-{name}", "seed-007") for rate in ("fast", "none") for name in METHODS_OF_CONTEST}
    judged = {(f"fast-dots-{name}", f"seed-00{seed}") for name in METHODS_OF_CONTEST for seed in (0, 1)}
    assert folders == choosing | judged
    board = json.loads((place / "board.json").read_text())
    assert board["training loss"]["dots"]["reshuffled"]["values"] == [1.0, 1.0]
    targets = "training loss", "training loss, rates by validation", "test error"
    rates = {"reshuffled": 0.05, "second-moment": 0.05}
    assert board["learning rates"] == {target: {"dots": rates} for target in targets}
    assert "(board.png)" in (place / "report.md").read_text()
    assert (
        "each method's is the one with the lowest validation error at seeds 7"
        in (place / "dots" / "report.md").read_text()
    )
    elsewhere = issgd.here("plot", place, "--out", "elsewhere")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (issgd.place / "elsewhere/board.md").read_text() == (place / "board.md").read_text()
