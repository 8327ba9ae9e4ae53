"""The page, the figure and the screen tell what advice.json holds, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issgd_cli.config.toml import read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.errors import RunError
from issgd_cli.figures import advice, advice_words, style


def told(choice: str = "second-moment", quickest: str | None = "ISSGD, 3 workers") -> dict[str, Any]:
    """Made up, each number of its own."""

    def one(name: str, label: str, number: float, workers: int = 0) -> dict[str, Any]:
        proposal = {"method": label.partition("-3")[0]}
        settings = {"proposal": proposal, "worker": {"count": workers}} if workers else {"proposal": proposal}
        return {
            "name": name,
            "label": label,
            "settings": {} if label == "ideal" else settings,
            "workers": workers,
            "sweep_steps": 1234.5 if workers else None,
            "trace": number - 0.06,
            "trace_by_moment": [number, number - 0.1],
            "survives": None if label in ("reshuffled", "looking") else number - 0.11,
            "steps": number - 0.03,
            "work": number * (1 + workers),
            "work_low": number * (1 + workers) - 0.02,
            "work_high": number * (1 + workers) + 0.04,
            "seconds": number * (1 + workers) + 0.02,
            "seconds_low": number * (1 + workers) - 0.01,
            "seconds_high": number * (1 + workers) + 0.05,
            "work_by_moment": [number + 0.21, number - 0.17],
        }

    def moment(step: int, ages: tuple[int, ...]) -> dict[str, Any]:
        by_age = {str(age): {"best": 0.4 + step * age / 9973, "unsmoothed": 0.7 + step * age / 997} for age in ages}
        return {
            "step": step,
            "epoch": step / 12.5,
            "share_of_run": 0.5,
            "loss": 3.14159 / step,
            "gradient_norm2": 0.001,
            "uniform_trace": 2.0,
            "ideal": 0.5 - step / 1000,
            "variance_share": 0.9 - step / 500,
            "by_age": by_age,
        }

    return {
        "trial": {
            "data": "mine-12345678",
            "fingerprint": "ab" * 32,
            "network": "package.module:function",
            "parameters": 4321,
            "loss": "cross-entropy",
            "optimizer": "sgd",
            "learning_rate": 0.015,
            "minibatch_size": 40,
            "seed": 7,
            "examples": 500,
            "measured": 321,
            "steps": 88,
            "planned_steps": 99,
            "steps_an_epoch": 12.5,
            "device": "cpu",
        },
        "costs": {
            "step_seconds": 0.00123,
            "scoring": {"work": 0.6683, "seconds": 0.617},
            "norms": {"work": 0.00163, "seconds": 0.231},
            "look": {"work": 1 / 3, "seconds": 0.271},
            "larger": {"work": 1.0, "seconds": 0.871},
        },
        "quieter": {"times": 2, "shares_of_noise": [0.37, 0.41], "loss": {"11": [0.3, 0.2]}},
        "moments": [moment(11, (1, 4)), moment(44, (1, 4, 16))],
        "methods": [
            one("reshuffled SGD", "reshuffled", 1.0),
            one("ideal, were it free", "ideal", 0.44),
            one("looking", "looking", 0.83),
            one("second-moment", "second-moment", 0.71),
            one("IS", "online", 0.93),
            one("ISSGD, 3 workers", "issgd-3", 0.65, workers=3),
        ],
        "certainty": 0.9,
        "resamples": 400,
        "pays_from": 0.03,
        "choice": choice,
        "because": "norms are <uneven>",
        "quickest": quickest,
    }


def test_the_pages_numbers_are_those_of_the_json(tmp_path: Path) -> None:
    paths = advice.write(told(), tmp_path / "deep" / "place")
    assert [path.name for path in paths] == ["advice.html", "advice.json", "advice.png", "advice.pdf"]
    assert json.loads(paths[1].read_text()) == told()
    page = paths[0].read_text()
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    rows = [row for row in rows if row]  # without heads
    by_first = {row[0]: row[1:] for row in rows[:6]}
    for one in told()["methods"]:
        sweep, *numbers = by_first[one["name"]]
        assert sweep == ("1,234" if one["workers"] else "")
        shown = [float(number) for cell in numbers for number in re.findall(r"[\d.]+(?!%)\b(?!%)", cell)]
        keys = ("trace", "steps", "work", "seconds", "work_low", "work_high")
        expected = [one[key] for key in keys] + one["work_by_moment"]
        assert shown == pytest.approx(expected, abs=0.0051)
        assert ("" if one["survives"] is None else f"{one['survives']:.0%}") in numbers
    for shown_rows, what in ((rows[6:8], "best"), (rows[8:], "unsmoothed")):
        for row, moment in zip(shown_rows, told()["moments"], strict=True):
            assert row[:2] == [str(moment["step"]), f"{moment['epoch']:.1f}"]
            ages = [at[what] for at in moment["by_age"].values()]
            assert [float(cell) for cell in row[5:] if cell] == pytest.approx(ages, abs=0.0051)
    assert "norms are &lt;uneven&gt;" in page
    assert 'src="data:image/png;base64,' in page
    assert "<script" not in page


def test_the_screen_tells_the_choice_and_lines_that_can_be_pasted(tmp_path: Path) -> None:
    text = advice_words.screen(told())
    words = " ".join(text.split())
    assert "Use second-moment: it would take 0.73 of the seconds of reshuffled SGD on this device" in words
    assert "(sampling error of the trial alone: 0.70 to 0.76), and 0.71 of the work, because norms" in words
    assert "With devices to spare, ISSGD, 3 workers: 0.62 of the steps, and so of the time, at 2.6 times the" in words
    assert "keeping the norms of the trained one 0.0016 | 0.23, a forward pass 0.33 | 0.27" in words
    assert "Held up by noise: s = 0.39 (0.37 to 0.41)" in words
    assert max(map(len, text.splitlines())) <= advice_words.WIDTH
    for name, count in (("second-moment", 3), ("ISSGD, 3 workers", 3)):
        (tmp_path / "pasted.toml").write_text(advice_words.settings(told(), name))
        assert resolve(read_toml(tmp_path / "pasted.toml"), "pasted").worker.count in (1, count)
    assert '    [proposal]\n    method = "looking"' in text  # which no trial can foretell
    (tmp_path / "pasted.toml").write_text(advice_words.lines(advice_words.LOOKING))
    assert resolve(read_toml(tmp_path / "pasted.toml"), "pasted").proposal.method == "looking"


def test_uniform_draws_are_advised_with_the_reason() -> None:
    text = advice_words.screen(told("reshuffled SGD", None))
    assert "Uniform draws (reshuffled SGD): nothing else promises to save 3% of the seconds on this" in text
    assert "devices to spare" not in text
    assert "Or let the run find out" in text


def test_looking_is_not_offered_beside_itself() -> None:
    text = advice_words.screen(told("looking", None))
    assert "Use looking" in text
    assert "Or let the run find out" not in text
    assert text.count('method = "looking"') == 1


def test_a_network_without_norms_of_its_own_minibatches_is_said_to_be_so() -> None:
    found = told()
    found["costs"]["norms"] = None
    assert "none (BatchNorm)" in advice_words.screen(found)


def test_the_figure_shows_each_moment_age_and_method() -> None:
    with style.style():
        left, middle, right = advice.figure(told()).axes
    curves = {str(line.get_label()): np.asarray(line.get_ydata()) for line in left.get_lines()}
    np.testing.assert_allclose(curves["second-moment"], [0.71, 0.61])
    np.testing.assert_allclose(curves["variance's share of a square"], [0.9 - 11 / 500, 0.9 - 44 / 500])
    late = next(line for line in middle.get_lines() if str(line.get_label()).startswith("late"))
    np.testing.assert_allclose(np.asarray(late.get_ydata()), [0.4 + 44 * age / 9973 for age in (1, 4, 16)])
    assert [text.get_text() for text in right.get_yticklabels()] == [one["name"] for one in reversed(told()["methods"])]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        advice.write(told(), tmp_path / "file" / "advice")
