"""The soak in short: a few faults upon an exact run, a relaxed one and one of peers. `make chaos` does it at length."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import issgd_cli
from tests.chaos import __main__ as chaos
from tests.chaos import sitting, soak
from tests.chaos.faults import FAULTS, Fault, is_clear
from tests.chaos.page import page, table, write_page
from tests.chaos.remains import difference, look_at
from tests.chaos.run import Run, put_back
from tests.chaos.sitting import Seed, planned, run_of
from tests.chaos.soak import UNDER_WAY, Outcome, Struck, plan
from tests.chaos.strikes import nothing

needs_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")

SHORT = {
    "exact": [
        *("master killed", "monitor killed", "server killed", "launcher killed"),
        *("newest checkpoint damaged, master killed", "no disk for the trace", "training images changed"),
    ],
    "relaxed": ["server killed", "no disk for checkpoints"],
    "peers": [
        *("worker killed", "worker frozen for 2 to 5 s", "worker writes what cannot be true", "master killed"),
        *("server killed", "newest checkpoint damaged, master killed", "launcher killed"),
    ],
}


@pytest.mark.soak
@needs_linux
@pytest.mark.parametrize(("mode", "steps"), [("exact", 960), ("relaxed", 960), ("peers", 1920)])
def test_a_run_survives_its_faults_and_loses_nothing(tmp_path: Path, mode: str, steps: int) -> None:
    run = run_of(tmp_path, mode, mode, steps, sitting.data(tmp_path))
    kinds = plan(dict.fromkeys(SHORT[mode], 1), len(SHORT[mode]), np.random.default_rng(1))
    outcome = Outcome(mode, mode)
    soak.soak(run, outcome, kinds, lambda: np.random.default_rng([1, len(outcome.struck)]))
    look_at(run, outcome)
    assert outcome.struck
    assert outcome.is_whole, "\n".join([*table([Seed(1, len(kinds), runs=[outcome])]), *map(str, outcome.struck)])


def test_the_kinds_that_are_named_here_exist() -> None:
    assert {kind for kinds in SHORT.values() for kind in kinds} < FAULTS.keys()


# A run that is none: it is over when a fault says so, and a start brings it back, or does not.


class FakeRun(Run):
    """A step further at each look, with a launcher that ends as it is told, start after start."""

    def __init__(self, place: Path, endings: list[int | None], last: int = 60) -> None:
        """Args: with what each start ends at once, None: not at all; `last`: the step at which it finishes."""
        super().__init__(place, place, "fake", ())
        self.endings, self.last, self.now = endings, last, 0
        self.ended: int | None = None
        self.stuck, self.repaired = False, 0
        self.launcher = self  # type: ignore[assignment]

    def start(self) -> None:
        self.starts += 1
        self.stuck, self.ended = False, self.endings.pop(0) if self.endings else None
        self.said().write_text("" if self.ended is None else f"issgd: ended with {self.ended}\n")

    def step(self) -> int:
        return self.now

    def is_over(self) -> bool:
        if self.ended is None and not self.stuck:
            self.now += 1
            self.ended = 0 if self.now >= self.last else None
        return self.ended is not None

    def is_finished(self) -> bool:
        return self.ended == 0

    def awaits(self, holds: Callable[[], object], what: str) -> None:
        for _ in range(500):
            if holds() or self.is_over():
                return
        raise AssertionError(f"in vain: {what}")

    def size(self) -> int:
        return self.now

    @property
    def returncode(self) -> int | None:
        return self.ended

    def moment(self) -> str:
        return "running"

    def state(self) -> str:
        return "finished" if self.is_finished() else "failed"

    def abandon(self) -> None:
        pass

    def repair(self) -> None:
        self.repaired += 1


def ends(status: int, said: str = "") -> Callable[[Run, np.random.Generator], Callable[[], object]]:
    """A strike that the launcher ends of."""

    def strike(run: Run, random: np.random.Generator) -> Callable[[], object]:
        assert isinstance(run, FakeRun)
        run.said().write_text(said)
        run.ended = status
        return nothing

    return strike


def hangs(run: Run, random: np.random.Generator) -> Callable[[], object]:
    assert isinstance(run, FakeRun)
    run.stuck = True
    return nothing


def raises(error: BaseException) -> Callable[[Run, np.random.Generator], Callable[[], object]]:
    def strike(run: Run, random: np.random.Generator) -> Callable[[], object]:
        raise error

    return strike


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fault]:
    """Kinds of a fake run's faults, in place of the real ones."""
    fakes = {
        "harmless": Fault(lambda run, random: nothing),
        "clear": Fault(ends(1, "issgd: images are gone"), ends=("are gone",), names="images"),
        "unclear": Fault(ends(1, "Traceback"), ends=("are gone",)),
        "fatal": Fault(ends(3, "issgd: no\nthe last line")),
        "hangs": Fault(hangs),
        "breaks": Fault(raises(ValueError("not enough values"))),
        "stopped by the user": Fault(raises(KeyboardInterrupt())),
    }
    monkeypatch.setattr(soak, "FAULTS", fakes)
    monkeypatch.setattr(soak, "HASTE", 0)
    monkeypatch.setattr(soak, "GAP", 2)
    monkeypatch.setattr(soak, "PAUSE", 0)
    return fakes


def soaked(run: FakeRun, *names: str) -> Outcome:
    outcome = Outcome("exact", "fake")
    soak.soak(run, outcome, names, lambda: np.random.default_rng(0))
    return outcome


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize(
    ("kind", "noted"),
    [
        ("unclear", "not clear: status 1: Traceback"),
        ("fatal", "status 3: the last line"),
        ("hangs", r"in vain: a step after \d+"),
        ("breaks", "ValueError: not enough values"),
    ],
)
def test_a_fault_that_is_not_survived_is_noted_and_the_next_ones_strike(tmp_path: Path, kind: str, noted: str) -> None:
    run = FakeRun(tmp_path, [])
    outcome = soaked(run, "harmless", kind, "clear", "harmless")
    assert [one.kind for one in outcome.struck] == ["harmless", kind, "clear", "harmless"]
    assert [one.survived for one in outcome.struck if one.is_survived] == ["alone", "resumed", "alone"]
    assert re.fullmatch(noted, outcome.struck[1].survived)
    assert not outcome.is_whole
    assert outcome.state == "finished"


@pytest.mark.usefixtures("kinds")
def test_a_run_that_resuming_alone_does_not_bring_back_is_repaired(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, [None, 4, None])
    outcome = soaked(run, "fatal", "harmless")
    assert outcome.struck[0].survived == ("status 3: the last line; with --resume: status 4: issgd: ended with 4")
    assert (run.starts, run.repaired) == (3, 2)  # once at the beginning, as each sitting does
    assert outcome.struck[1].survived == "alone"


@pytest.mark.usefixtures("kinds")
def test_the_soak_of_a_run_that_nothing_brings_back_ends_and_says_why(tmp_path: Path) -> None:
    outcome = soaked(FakeRun(tmp_path, [None, 4, 5]), "harmless", "fatal", "harmless")
    assert [one.kind for one in outcome.struck] == ["harmless"]
    assert outcome.is_lost
    assert "status 3" in outcome.state
    assert "status 5" in outcome.state
    assert not outcome.is_whole


@pytest.mark.usefixtures("kinds")
def test_a_run_that_fails_once_its_fault_seemed_over_is_brought_back_too(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, [None, None, None])
    failing = iter([False, False, True])

    def awaits(holds: Callable[[], object], what: str) -> None:
        if what == "the end" and next(failing, False):
            run.ended = 6
        FakeRun.awaits(run, holds, what)

    run.awaits = awaits  # type: ignore[method-assign]
    outcome = soaked(run, "clear", "clear")
    assert [one.survived for one in outcome.struck] == [
        "resumed",
        f"resumed, but later: status 6: {run.last_line()}",
    ]
    assert outcome.state == "finished"


@pytest.mark.usefixtures("kinds")
def test_a_run_that_finishes_before_its_faults_leaves_them_to_the_next(tmp_path: Path) -> None:
    outcome = soaked(FakeRun(tmp_path, [], last=9), *["harmless"] * 9)
    assert 0 < len(outcome.struck) < 9
    assert outcome.is_whole


# Sittings.


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch, kinds: dict[str, Fault]) -> list[FakeRun]:
    """Those that a sitting does, in order; each finishes at step 60, and nothing is lost."""
    made: list[FakeRun] = []

    def run_of(place: Path, mode: str, name: str, steps: int, copy: Path | None) -> FakeRun:
        made.append(FakeRun(place, [], last=60))
        made[-1].name = name
        return made[-1]

    def look_at(run: Run, outcome: Outcome, calm: str) -> None:
        outcome.rows = 10

    monkeypatch.setattr(sitting, "run_of", run_of)
    monkeypatch.setattr(sitting, "look_at", look_at)
    monkeypatch.setattr(sitting, "data", lambda place: place)
    monkeypatch.setattr(sitting, "planned", lambda seed, faults, mode, modes: ["harmless", "clear"] * (faults // 4))
    return made


def test_one_run_follows_the_other_until_all_faults_have_struck(tmp_path: Path, fake_runs: list[FakeRun]) -> None:
    found = sitting.sit(tmp_path, 3, 80)
    assert found.is_whole
    assert [one.kind for one in found.struck("relaxed")] == ["harmless", "clear"] * 20
    assert len({run.name for run in fake_runs}) == len(found.runs) > 2


def test_an_interrupted_sitting_goes_on_where_it_stopped(
    tmp_path: Path, fake_runs: list[FakeRun], kinds: dict[str, Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [one.kind for one in sitting.sit(make(tmp_path / "whole"), 3, 40).struck()]
    make(tmp_path / "parts")
    planned = ["harmless", "clear"] * 10
    interrupted = [*planned[:7], "stopped by the user", *planned[8:]]
    monkeypatch.setattr(sitting, "planned", lambda seed, faults, mode, modes: interrupted)
    with pytest.raises(KeyboardInterrupt):
        sitting.sit(tmp_path / "parts", 3, 40)
    before = Seed.read(tmp_path / "parts" / "soak.json")
    assert [one.kind for one in before.struck()] == planned[:7]
    assert before.runs[-1].state == UNDER_WAY
    monkeypatch.setattr(sitting, "planned", lambda seed, faults, mode, modes: planned)
    fake_runs.clear()
    after = sitting.sit(tmp_path / "parts", 3, 40)
    assert fake_runs[0].name == before.runs[-1].name
    assert fake_runs[0].starts > before.runs[-1].starts > 0  # it was resumed
    assert after.struck()[:7] == before.struck()
    assert [one.kind for one in after.struck()] == whole
    assert after.is_whole
    assert after.seconds >= before.seconds


def make(place: Path) -> Path:
    """The folder, made."""
    place.mkdir()
    return place


def test_a_folder_of_another_soak_is_refused(tmp_path: Path, fake_runs: list[FakeRun]) -> None:
    sitting.sit(tmp_path, 3, 4)
    for seed, modes in ((4, sitting.MODES), (3, ("peers",))):
        with pytest.raises(SystemExit, match="holds seed 3 with 4 faults upon exact and relaxed runs"):
            sitting.sit(tmp_path, seed, 4, modes)


def test_ctrl_c_leaves_the_folder_and_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sit(place: Path, seed: int, faults: int, modes: Sequence[str]) -> Seed:
        raise KeyboardInterrupt

    monkeypatch.setattr(chaos, "sit", sit)
    assert chaos.main(["--results", str(tmp_path / "out"), "--keep", str(tmp_path / "kept")]) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert (tmp_path / "kept").is_dir()
    assert [*(tmp_path / "out").iterdir()] == []


# The page.


def a_seed(number: int, commit: str, *survived: str) -> Seed:
    struck = [Struck("worker killed", "running", 5, 1.5, how) for how in survived]
    runs = [
        Outcome("exact", "exact-0", struck[:2], 2, 100, state="finished"),
        Outcome("relaxed", "relaxed-0", struck[2:], 1, 50, lost=3, state="finished"),
    ]
    machine = {"cpu": "a processor", "cores": 2}
    return Seed(number, len(survived) + 1, 60.0, [commit], machine, "2026-01-01", runs)


def test_the_page_is_made_of_all_seeds_that_are_there(tmp_path: Path) -> None:
    a_seed(2, "a" * 40, "alone", "resumed", "alone").save(tmp_path / "seed-2.json")
    a_seed(10, "b" * 40 + "+", "alone", "status 1: why", "resumed").save(tmp_path / "peers-seed-10.json")
    assert chaos.main(["--page", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "8 faults planned under 2 seeds, 6 injected into 4 runs" in text
    assert "survived 3 of them alone and 2 after `--resume`; 1 it did not, and 2 could not be injected" in text
    assert "6 rows of 300 lost" in text
    assert "2 of 2 exact traces equal" in text
    assert f"Not all of it ran on the same code: commits {'a' * 12}, {'b' * 12} with changes." in text
    assert "- seed 10, exact-0, step 5, running: worker killed: status 1: why" in text
    assert text.index("| 2 | 1 exact |") < text.index("| 10 | 1 exact |")
    assert write_page(tmp_path) == text


def test_a_page_of_one_commit_names_it_and_lists_no_failures() -> None:
    text = page([a_seed(1, "c" * 40, "alone"), a_seed(2, "c" * 40, "resumed")])
    assert f"Commit {'c' * 12}." in text
    assert "Not survived" not in text


def test_every_kind_of_fault_has_its_line() -> None:
    lines = table([a_seed(1, "c" * 40, "alone")])
    for kind in FAULTS:
        assert any(line.startswith(f"| {kind} |") for line in lines)


# Faults.


def test_all_that_a_fault_may_say_is_said_somewhere_in_the_product() -> None:
    source = "".join(path.read_text() for path in Path(issgd_cli.__file__).parent.rglob("*.py"))
    reasons = [os.strerror(number) for number in (errno.EFBIG, errno.ENOENT)]  # these the system says
    for kind, fault in FAULTS.items():
        for words in fault.ends or ():
            for reason in reasons:
                words = words.removesuffix(reason)
            assert words in source, kind


@pytest.mark.parametrize(
    ("kind", "status", "said", "clear"),
    [
        ("training images changed", 1, "issgd: /d/house-numbers does not hold what was prepared there: its", True),
        ("training images changed", 1, "issgd: /d/house-numbers/x.npy has been changed since it was loaded.", True),
        ("training images changed", 0, "issgd: /d/house-numbers/x.npy has been changed since it was loaded.", False),
        ("training images changed", 1, "issgd: something else", False),
        ("training images changed", 1, "Traceback\nissgd: /house-numbers/x.npy changed since it was loaded.", False),
        ("launcher interrupted (Ctrl-C)", 130, "issgd: interrupted", True),
        ("launcher interrupted (Ctrl-C)", 130, "issgd: Interrupted. Go on with `--resume`; the trace", True),
        ("launcher interrupted (Ctrl-C)", -2, "Traceback (most recent call last)", False),
        ("launcher interrupted (Ctrl-C)", -2, "", False),
        ("launcher told to end (SIGTERM)", 143, "issgd: Interrupted. Go on with `--resume`", True),
        ("launcher told to end (SIGTERM)", -15, "", True),
        ("launcher told to end (SIGTERM)", 143, "", False),
        ("launcher killed", -9, "1,000 steps", True),
        ("launcher killed", -9, "issgd: something", False),
        ("launcher killed", 1, "", False),
    ],
)
def test_an_end_is_clear_if_status_and_words_are_the_faults(kind: str, status: int, said: str, clear: bool) -> None:
    assert is_clear(said, status, FAULTS[kind]) == clear


def test_what_was_moved_away_is_put_back_over_what_was_made_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.away").mkdir()
    (tmp_path / "checkpoint.away" / "saved").touch()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "lock").touch()
    put_back(tmp_path / "checkpoint.away")
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoint", "saved"]


def test_a_run_is_repaired_whatever_was_done_to_its_files(tmp_path: Path) -> None:
    for place in ("copy", "data"):
        make(tmp_path / place)
        for name in ("a.npy", "b.npy", "c.npy"):
            (tmp_path / place / name).write_text(name)
    (tmp_path / "data" / "a.npy").write_text("changed")
    (tmp_path / "data" / "b.npy").rename(tmp_path / "data" / "b.npy.away")
    folder = tmp_path / "results" / "name" / "run" / "seed-000"
    (folder / "checkpoint.away").mkdir(parents=True)
    Run(tmp_path, tmp_path / "data", "name", (), copy=tmp_path / "copy").repair()
    assert [(tmp_path / "data" / name).read_text() for name in ("a.npy", "b.npy", "c.npy")] == [
        "a.npy",
        "b.npy",
        "c.npy",
    ]
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("status", "state", "finished"), [(0, "failed", True), (9, "finished", True), (9, "failed", False)]
)
def test_a_run_that_was_struck_after_its_end_is_finished(
    tmp_path: Path, status: int, state: str, finished: bool
) -> None:
    run = Run(tmp_path, tmp_path, "name", ())
    run.launcher = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])
    run.launcher.wait()
    assert run.is_finished() == (status == 0)  # there is no folder yet
    folder = tmp_path / "results" / "name" / "run" / "seed-000"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"state": state}))
    assert run.is_finished() == finished


# Plans and counts.


def test_every_kind_is_planned_as_often_as_the_others_but_for_rare_ones() -> None:
    counts = plan({"a": 1, "b": 1, "rare": 3}, 14, np.random.default_rng(0))
    assert len(counts) == 14
    assert {counts.count(kind) for kind in "ab"} == {6}
    assert counts.count("rare") == 2


def test_a_plan_is_a_function_of_its_seed() -> None:
    assert planned(1, 111, "exact") == planned(1, 111, "exact")
    assert planned(1, 111, "exact") != planned(2, 111, "exact")
    assert planned(1, 111, "exact") != planned(1, 111, "relaxed")
    assert len(planned(1, 111, "exact")) + len(planned(1, 111, "relaxed")) == 111
    assert len(planned(1, 111, "peers", ["peers"])) == 111


def test_rows_that_are_lost_or_twice_are_counted() -> None:
    whole = pd.DataFrame({"step": [0, 0, 1], "value": [1.0, 2.0, 2.0]})
    assert difference(whole, whole) == 0
    assert difference(whole, whole[1:]) == 1
    assert difference(pd.concat([whole, whole[:1]]), whole) == 1


@pytest.mark.parametrize(
    "flaw", [{"lost": 1}, {"extra": 1}, {"doubled_events": 1}, {"state": "failed"}, {"state": UNDER_WAY}]
)
def test_an_outcome_with_any_flaw_is_not_whole(flaw: dict[str, object]) -> None:
    whole: dict[str, object] = {"mode": "exact", "name": "exact-0", "rows": 9, "state": "finished"}
    assert Outcome(**whole).is_whole  # type: ignore[arg-type]
    assert not Outcome(**{**whole, **flaw}).is_whole  # type: ignore[arg-type]
    assert not Seed(1, 1, runs=[Outcome(**whole)]).is_whole  # type: ignore[arg-type] # one could not be injected
    for survived, is_whole in (("status 1", False), ("resumed", True)):
        outcome = Outcome(**whole, struck=[Struck("worker killed", "running", 1, 1.0, survived)])  # type: ignore[arg-type]
        assert outcome.is_whole == is_whole
        assert Seed(1, 1, runs=[outcome]).is_whole == is_whole
