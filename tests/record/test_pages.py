"""Pages say what the record says, in Markdown and in HTML."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest

from flatmin.experiments import ABOUT, TITLE, discover
from flatmin.record import page
from flatmin.record.blocks import (
    Grid,
    Heading,
    Link,
    Mark,
    Paragraph,
    Row,
    written,
)
from flatmin.record.html_page import html_page
from flatmin.record.item import Verdict
from flatmin.record.markdown_page import markdown
from flatmin.record.page import count, publish, publish_index
from flatmin.record.store import read_record, run_item

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def out(two_items: None, tmp_path: Path) -> Path:
    item = discover()["fig90"]
    run_item(item, item.load().QUICK, "QUICK", tmp_path)
    return tmp_path


class Outline(html.parser.HTMLParser):
    """Tags that are open, links and images of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "meta"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_an_item(out: Path) -> None:
    item = discover()["fig90"]
    record = read_record(item, out)
    assert record is not None
    verdicts = publish(item, record, out)
    assert count(verdicts) == "of 3 claims 1 hold, 1 do not, and 1 cannot be judged"
    page = (out / "fig90.md").read_text()
    assert page.startswith("# fig90: A made-up item\n\n**Claim.** Two and two is four.\n")
    assert "**QUICK**" in page
    assert "| 2 + 2 = 4 | 4 \\| four | 4 | ✓ holds |" in page
    assert "| it is nice |  | no taste here | – not judged |" in page
    assert "![A made-up item. 4; no](fig90.png)" in page  # with its numbers
    assert "| 1.235 | x\\|y |\n| 1e-12 | – |" in page
    assert (out / "fig90.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg " in (out / "fig90.svg").read_bytes()


def test_the_same_record_gives_the_same_files(out: Path) -> None:
    item = discover()["fig90"]
    record = read_record(item, out)
    assert record is not None
    publish(item, record, out)
    first = [(out / f"fig90.{kind}").read_bytes() for kind in ("png", "svg", "md")]
    publish(item, record, out)
    assert [(out / f"fig90.{kind}").read_bytes() for kind in ("png", "svg", "md")] == first


def test_the_index_stands_alone(out: Path) -> None:
    assert publish_index(discover(), out, title=TITLE, about=ABOUT) == []
    outline = Outline((out / "index.html").read_text())
    assert outline.open == []
    assert {"#fig90", "fig90.svg", "#main", "#top"} == set(outline.links)  # nothing from elsewhere
    assert outline.ids == ["top", "main", "fig90"]
    assert "Not computed yet: flatmin run table91." in outline.text
    assert "it is <prime>" in outline.text
    assert "Note that 2 < 4 & so on." in outline.text
    page = (out / "index.md").read_text()
    assert "- [fig90](fig90.md) A made-up item: ✓ 1, ✗ 1, – 1\n  - ✓ holds: " in page
    assert "(QUICK):** fig90." in page


def test_the_index_begins_with_what_was_found(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = discover()["fig90"].load()
    monkeypatch.setattr(experiment, "finding", lambda record: "It is 4.", raising=False)
    publish_index(discover(), out, title=TITLE, about=ABOUT)
    page = (out / "index.md").read_text()
    assert "1. It is 4. [fig90](fig90.md)" in page
    assert page.index("## What was found") < page.index("## Claim by claim")
    text = (out / "index.html").read_text()
    assert '<li>It is 4. <a href="#fig90">fig90</a></li>' in text
    assert text.index("It is 4.") < text.index("<details")


def test_the_published_page_begins_with_five_sentences_and_their_numbers() -> None:
    found = re.findall(r"(?m)^(\d)\. (.+) \[(\w+)\]\(\3\.md\)$", (RESULTS / "index.md").read_text())
    assert [number for number, _, _ in found] == list("12345")
    for _, sentence, _ in found:
        assert re.search(r"\d", sentence)
        assert re.findall(r"[.!?](?= |$)", sentence) == ["."]  # one sentence


def test_a_row_is_a_card_on_a_phone() -> None:
    """The names of the columns go with each cell, the verdict first."""
    page = html_page("t", [Grid(("claim", "verdict"), [["c", Mark(None)]])])
    assert '<td data-label="claim">c</td>' in page
    assert '<td class="verdict" data-label="verdict">' in page
    assert '<th scope="col">claim</th>' in page


def test_an_item_opens_to_its_claims() -> None:
    claims = Grid(("claim", "verdict"), [["c", Mark(True)], ["d", Mark(False)], ["e", Mark(True)]])
    row = Row("fig1", "A title", claims)
    assert row.marks == ["✓ 2", "✗ 1"]
    outline = Outline(html_page("t", [row]))
    assert outline.open == []
    assert "fig1 A title ✓ 2 ✗ 1" in " ".join(outline.text.split())
    assert markdown([row, row]) == "- [fig1](fig1.md) A title: ✓ 2, ✗ 1\n" * 2


def test_a_closed_row_has_the_values_of_its_first_claim() -> None:
    values = [("In the report", "96 *"), ("here", "53 <i>")]
    row = Row(
        "fig1",
        "A title",
        Grid(("claim", "verdict"), [["c", Mark(False)]]),
        ("c", values, Mark(False)),
    )
    text = html_page("t", [row])
    summary = text[text.index("<summary>") : text.index("</summary>")]
    assert "<em>In the report:</em> 96 *; <em>here:</em> 53 &lt;i&gt;</span>" in summary
    assert summary.index("✗ does not hold") < summary.index("96")
    line = "  - ✗ does not hold: c. In the report: 96 *; here: 53 <i>\n"
    assert markdown([row, row]) == f"- [fig1](fig1.md) A title: ✗ 1\n{line}" * 2


def test_changed_options_are_named(out: Path) -> None:
    item = discover()["fig90"]
    record = read_record(item, out)
    assert record is not None
    publish(item, record | {"mode": "FULL", "changed": ["seeds"]}, out)
    page = (out / "fig90.md").read_text()
    assert "Computed with 1 seed. What was set by hand is marked under Options." in page
    assert "| seeds | 1 | set by hand |" in page
    publish(item, record | {"mode": "FULL", "changed": []}, out)
    page = (out / "fig90.md").read_text()
    assert "Computed with 1 seed.\n" in page and "by hand" not in page


def test_no_page_tells_where_a_folder_of_ones_own_lies(out: Path) -> None:
    item = discover()["fig90"]
    record = read_record(item, out)
    assert record is not None
    command = "flatmin run fig90 --data /data/mine/cifar10 --out results"
    config = record["config"] | {"data": "../elsewhere/cifar10/", "sizes": "1/2"}
    changed = record["provenance"] | {"command": command}
    publish(item, record | {"config": config, "provenance": changed}, out)
    page = (out / "fig90.md").read_text()
    assert "`flatmin run fig90 --data …/cifar10 --out results`" in page
    assert "| data | …/cifar10 |" in page and "| sizes | 1/2 |" in page
    assert "elsewhere" not in page and "/data" not in page


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "fig90.json is no complete record"),
        (None, "fig90.json does not fit this version of flatmin (KeyError: 'sum')"),
    ],
)
def test_records_that_cannot_be_used_are_named(out: Path, text: str | None, sentence: str) -> None:
    path = out / "fig90.json"
    if text is None:
        record = json.loads(path.read_text())
        del record["numbers"]["sum"]
        text = json.dumps(record)
    path.write_text(text)
    (problem,) = publish_index(discover(), out, title=TITLE, about=ABOUT)
    assert problem.startswith(sentence)
    assert sentence in Outline((out / "index.html").read_text()).text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1234567, "0.1235"), (1.5e-7, "1.5e-7"), (2.0, "2"), (True, "True"), (None, "–"),
        ([1, 2.5], "1, 2.5"), (1e20, "1e20"), (3e5, "300,000"), (1.5e-12, "1.5e-12"),
        ("as it is", "as it is"), (12345.6, "12,350"), (-3e-5, "-3e-5"),
        (999.96, "1,000"), (1000, "1000"), (0.0, "0"),
    ],
)  # fmt: skip
def test_values_are_written_for_readers(value: object, text: str) -> None:
    assert written(value) == text


def test_blocks_are_escaped() -> None:
    blocks = [
        Heading("a < b", 2, "x"),
        Paragraph("`a<b` **c & d** *e*, 2 * 3 * 4"),
        Grid(("h",), [[Mark(True)], [Link("i")]]),
    ]
    page = html_page("t & u", blocks)
    assert '<h2 id="x">a &lt; b</h2>' in page
    assert "<code>a&lt;b</code> <strong>c &amp; d</strong> <em>e</em>, 2 * 3 * 4" in page
    assert "<title>t &amp; u</title>" in page
    assert markdown(blocks[:1]) == "## a < b\n"


def test_a_claim_in_two_forms_has_two_verdicts_and_questions_are_counted_apart() -> None:
    verdicts = [
        Verdict("A", "yes", "1", True, ("2", False)),
        Verdict("B", "yes", "3", None),
        Verdict("C", "", "4", False, own=True),
    ]
    grid = page._claims(verdicts)
    assert [len(row) for row in grid.rows] == [6, 6, 6]
    assert [row[2] for row in grid.rows] == ["1", "3", ""]  # our question: under control
    assert [row[4] for row in grid.rows] == ["2", "", "4"]
    assert [mark.holds for row in grid.rows for mark in row if isinstance(mark, Mark)] == [
        *(True, False),
        None,
        False,
    ]
    assert len(page._claims(verdicts[1:]).header) == 4
    assert page._summary(verdicts, []) == (
        "Of 2 claims of the report 1 hold, 0 do not, and 1 cannot be judged. 1 of them were judged "
        "under control too: there 0 hold, 1 do not, and 0 cannot be judged. Of 1 questions of our "
        "own 0 hold, 1 do not, and 0 cannot be judged."
    )
