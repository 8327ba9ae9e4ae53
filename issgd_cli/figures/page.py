"""report.html: the report as one page that needs nothing else, to be read on a screen, on a phone or on paper."""

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from issgd_cli.claims.evidence import Runs, audits_told
from issgd_cli.claims.thresholds import Thresholds, reasons, variations
from issgd_cli.claims.verdicts import Outcome, Verdict
from issgd_cli.figures import conditions, markup, report, table_1
from issgd_cli.figures.charts import as_script, charts
from issgd_cli.figures.differences import differences

SAID: dict[Outcome, str] = {"untestable": "not testable"}  # others as they are
SCRIPTS = ("uPlot.iife.min.js", "page.js")
STYLES = ("uPlot.min.css", "page.css")
HEADLINES = ("staleness-map", "figure-2-audit", "figure-2", "figure-5-audit")  # the first of these that there is
MOST_BYTES = 1_000_000  # of a page, unless its pictures alone are more
# Nothing is fetched, and no script runs but ours, whatever a file that the report quotes may hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

Picture = tuple[str, Path]  # caption, PNG


def page(runs: Runs, verdicts: Sequence[Verdict], pictures: Sequence[Picture]) -> str:
    """The whole page. The same runs and pictures give the same bytes.

    Args:
        runs: The experiment's.
        verdicts: On each claim.
        pictures: Every figure's.
    """
    headline = next((one for stem in HEADLINES for one in pictures if one[1].stem == stem), None)
    scripts = [static(name) for name in SCRIPTS]
    parts = {
        "title": html.escape(f"{runs.name}: what these runs show"),
        "policy": f"{POLICY}; script-src {' '.join(map(_hash, scripts))}",
        "styles": "\n".join(static(name) for name in STYLES),
        "ran": " ".join(f"<span>{markup.labelled(line)}</span>" for line in conditions.what_was_run(runs)),
        "claims": "\n".join(_claim(verdict) for verdict in verdicts),
        "audits": html.escape(audits_told(runs.runs)),
        "headline": embedded(headline) if headline else "",
        "others": _others(runs),
        "judged": markup.paragraph(report.how_it_is_judged(runs)) + _thresholds(),
        "table": markup.from_markdown(table_1.as_markdown(table_1.load(runs))),
        "figures": "\n".join(embedded(picture) for picture in pictures if picture is not headline),
        "differences": markup.listed(differences(runs)),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = Template(static("page.html"))
    size = len(template.substitute(parts, data="").encode())
    return template.substitute(parts, data=as_script(charts(runs, MOST_BYTES - size)))


def _claim(verdict: Verdict) -> str:
    """The claim, its verdict and the number that it hangs on, in a line each; unfolded, all that it rests on."""
    claim = verdict.claim
    said = SAID.get(verdict.verdict, verdict.verdict)
    return f"""<details class="claim"><summary>
<span class="id">{html.escape(claim.id)}</span>
<span class="says">{html.escape(claim.statement)}</span>
<span class="number">{html.escape(verdict.brief)}</span>
<span class="verdict {verdict.verdict.replace(" ", "-")}">{html.escape(said)}</span>
</summary>
{markup.paragraph(f"The paper: {claim.source}.{_chance(verdict)}", "source")}
{markup.listed(verdict.evidence.splitlines())}
{_sensitivity(verdict)}
</details>"""


def _chance(verdict: Verdict) -> str:
    if verdict.p is None:
        return ""
    return f" p = {verdict.p:.2g}, adjusted for the other claims of this report."


def _sensitivity(verdict: Verdict) -> str:
    if verdict.p is None and not verdict.sensitivity:
        return ""  # chance has no say in it
    if not verdict.sensitivity:
        text = "The same with every other threshold and test, and with any one seed left out."
        return markup.paragraph(text, "source")
    rows = [(what, SAID.get(other, other)) for what, other in verdict.sensitivity.items()]
    return markup.table(("Otherwise", "it would be"), rows)


def _others(runs: Runs) -> str:
    """Methods of ours against the paper's, folded; empty where there are none."""
    told = markup.from_markdown(report.other_methods(runs))
    return f"<details><summary>Other methods than the paper's</summary>\n{told}\n</details>" if told else ""


def _thresholds() -> str:
    rows = [(name, str(found["value"]), found["reason"]) for name, found in reasons(Thresholds()).items()]
    tried = f"Also tried, one at a time: {', '.join(variations())}; and each seed left out."
    return markup.table(("Threshold", "Value", "Why"), rows) + markup.paragraph(tried, "source")


def embedded(picture: Picture) -> str:
    """The picture itself within the page; the script knows by `data-curves` which ones it can draw."""
    caption, path = picture
    content = base64.b64encode(path.read_bytes()).decode()
    curves = " data-curves" if path.stem.startswith(("figure-2", "figure-3", "figure-4")) else ""
    return (
        f'<figure{curves}><img alt="{html.escape(caption)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def static(name: str) -> str:
    return (resources.files("issgd_cli.figures") / "static" / name).read_text(encoding="utf-8").strip()


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
