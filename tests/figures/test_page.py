"""report.html: one file that holds everything, says every verdict, and lets nothing out of a file become a script."""

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from issgd_cli.claims import Runs, Verdict, judge, load
from issgd_cli.claims.verdicts import Claim
from issgd_cli.figures import page
from issgd_cli.figures.charts import as_script, charts
from tests.figures.conftest import write_run

HOSTILE = "<script>alert(1)</script>"


class Parsed(HTMLParser):
    """Tags with their attributes, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all_of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def found(experiment: Runs) -> list[Verdict]:
    return judge(experiment)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[page.Picture]:
    """Figures as far as the page looks at them: a caption and some bytes."""
    place = tmp_path_factory.mktemp("pictures")
    for name in ("figure-1", "figure-2", "figure-2-audit"):
        (place / f"{name}.png").write_bytes(name.encode())
    return [(f"Caption of {path.stem}", path) for path in sorted(place.iterdir())]


@pytest.fixture(scope="module")
def text(experiment: Runs, found: list[Verdict], pictures: list[page.Picture]) -> str:
    return page.page(experiment, found, pictures)


def test_the_page_fetches_nothing(text: str) -> None:
    parsed = Parsed(text)
    sources = [value for _, found in parsed.tags for name, value in found.items() if name in ("src", "srcset", "data")]
    assert sources
    assert all(value and value.startswith("data:image/png;base64,") for value in sources)
    assert not parsed.all_of("link")
    assert not re.search(r"url\(|@import", text)
    (policy,) = [found["content"] for found in parsed.all_of("meta") if "http-equiv" in found]
    assert str(policy).startswith("default-src 'none'")


def test_every_picture_is_in_the_page_once(text: str, pictures: list[page.Picture]) -> None:
    held = [str(image["src"]).partition("base64,")[2] for image in Parsed(text).all_of("img")]
    assert sorted(base64.b64decode(each).decode() for each in held) == ["figure-1", "figure-2", "figure-2-audit"]
    assert all(text.count(f"<figcaption>{caption}</figcaption>") == 1 for caption, _ in pictures)


def test_the_headline_is_the_audited_losses(text: str) -> None:
    headline = text.partition('<section id="headline">')[2].partition("</section>")[0]
    assert re.findall("<figcaption>(.*?)<", headline) == ["Caption of figure-2-audit"]


def test_every_claim_has_a_line_with_its_verdict_and_a_number(text: str, found: list[Verdict]) -> None:
    line = r'"id">(C\d+)</span>.*?"number">(.*?)</span>\s*<span class="verdict [a-z-]+">(.*?)</span>'
    told = [(one, html.unescape(two), three) for one, two, three in re.findall(line, text, re.S)]
    assert told == [(each.claim.id, each.brief, page.SAID.get(each.verdict, each.verdict)) for each in found]


def test_what_was_run_comes_before_the_claims_and_they_before_all_else(text: str) -> None:
    parts = ["<b>Runs</b> 12 of 12 runs finished", 'class="claim"', 'id="headline"', 'id="table"', 'id="figures"']
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_a_claim_unfolds_to_its_evidence_and_its_sensitivity(
    experiment: Runs, found: list[Verdict], pictures: list[page.Picture]
) -> None:
    changed = dataclasses.replace(found[0], sensitivity={"without seed 2": "undecided"}, p=0.0391)
    text = page.page(experiment, [changed, found[1]], pictures)
    assert "<td>without seed 2</td><td>undecided</td>" in text
    assert "p = 0.039," in text
    first = found[0].evidence.splitlines()[0].partition(": ")[2]
    assert first in Parsed(text.partition("</details>")[0]).texts[-1] or first in "".join(Parsed(text).texts)


def test_other_methods_than_the_papers_are_told_where_there_are_any(
    experiment: Runs, found: list[Verdict], pictures: list[page.Picture], text: str, tmp_path: Path
) -> None:
    assert "Other methods" not in text
    ours = load([write_run(tmp_path, "a", "issgd-variance-optimal", seed) for seed in range(3)])
    runs = dataclasses.replace(experiment, runs=(*experiment.runs, *ours.runs))
    assert "<td>issgd-variance-optimal</td><td>SGD</td>" in page.page(runs, found, pictures)


def test_nothing_that_a_file_says_becomes_a_part_of_the_page(
    experiment: Runs, found: list[Verdict], pictures: list[page.Picture]
) -> None:
    hostile = dataclasses.replace(
        experiment.runs[0],
        path=Path(f"results/{HOSTILE}/run/seed-000".replace("</", "<")),
        setting=HOSTILE,
        method=f"issgd-{HOSTILE}",
        state="failed",
        manifest={
            **experiment.runs[0].manifest,
            "failure": {"actor": HOSTILE, "reason": HOSTILE},
            "machine": {"cpu": HOSTILE},
            "dataset": {"name": HOSTILE},
        },
    )
    runs = dataclasses.replace(experiment, name=HOSTILE, runs=(*experiment.runs, hostile))
    claim = Claim("C1", HOSTILE, HOSTILE)
    verdict = Verdict(claim, "holds", 0.5, HOSTILE, HOSTILE, sensitivity={HOSTILE: "fails"})
    text = page.page(runs, [verdict, *found[1:]], [(HOSTILE, pictures[0][1])])
    assert len(Parsed(text).all_of("script")) == 3  # data, library, ours
    assert "alert(1)" in text
    assert "<script>alert" not in text
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    assert any(HOSTILE in panel["title"] for view in json.loads(scripts[0]) for panel in view["axes"]["steps"])


def test_the_page_is_the_same_for_the_same_runs(
    experiment: Runs, found: list[Verdict], pictures: list[page.Picture], text: str
) -> None:
    assert page.page(experiment, found, pictures) == text


def test_without_its_pictures_a_page_stays_small(text: str) -> None:
    assert len(text.encode()) < 1_000_000


def test_curves_that_would_make_a_page_too_large_are_left_to_its_pictures(
    experiment: Runs,
    found: list[Verdict],
    pictures: list[page.Picture],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = charts(experiment)
    size = len(as_script(everything))
    monkeypatch.setattr(page, "MOST_BYTES", len(text.encode()) - size // 2)
    smaller = page.page(experiment, found, pictures)
    assert len(text.encode()) - size < len(smaller.encode()) <= page.MOST_BYTES
    some = charts(experiment, size // 2)
    assert as_script(some) in smaller
    assert some == everything[: len(some)]
    assert [view["source"] for view in some[:4]] == ["exact audits"] * 4
    assert 4 < len(some) < len(everything)


def test_curves_are_those_of_the_figures(experiment: Runs) -> None:
    views = charts(experiment)
    names = {"training loss", "training prediction error", "test prediction error", "sqrt Tr(Σ(q))"}
    assert {(view["name"], view["source"].split()[0]) for view in views} == {
        (name, source) for name in names for source in ("exact", "records")
    }
    first = views[0]
    assert next(iter(first["axes"])) == "steps"  # as in the figures
    assert set(first["axes"]) == {"steps", "seconds", "examples"}
    panels = first["axes"]["steps"]
    assert [panel["title"][:3] for panel in panels] == ["(a)", "(b)"]
    assert [curve["label"] for curve in panels[0]["curves"]] == ["ISSGD", "SGD"]
    curve = panels[0]["curves"][0]
    assert curve["x"] == {"ends": [0.0, 3000.0]}
    assert len(curve["median"]) == 13
    expected = sorted(run.series("audit/loss/train").values[-1] for run in experiment.of("a", "issgd"))[1]
    assert curve["median"][-1] == pytest.approx(expected, rel=1e-3)
    assert all(
        low <= middle <= high for low, middle, high in zip(curve["lower"], curve["median"], curve["upper"], strict=True)
    )
