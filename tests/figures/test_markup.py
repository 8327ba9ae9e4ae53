"""Markdown of the report as HTML, escaped."""

from issgd_cli.figures import markup


def test_a_table_and_a_list_of_markdown_become_those_of_html() -> None:
    text = "| a | b |\n|---|---|\n| 1 | <b> |\n\nSettings:\n\n- one: x & y\n- two\n"
    assert markup.from_markdown(text).splitlines() == [
        '<div class="wide"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td>&lt;b&gt;</td></tr></tbody></table></div>",
        "<p>Settings:</p>",
        "<ul><li><b>one</b> x &amp; y</li><li>two</li></ul>",
    ]


def test_a_sentence_with_a_colon_has_no_label() -> None:
    text = "Some words that are no label at all: <b>"
    assert markup.labelled(text) == text.replace("<b>", "&lt;b&gt;")


def test_an_empty_list_is_nothing() -> None:
    assert markup.listed([]) == ""


def test_the_lines_of_a_cell_stay_lines() -> None:
    assert "<td>one<br>two &lt;</td>" in markup.table(("x",), [("one\ntwo <",)])
