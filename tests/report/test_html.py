"""The page: one file, everything in it, and nothing in it that a value could smuggle in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.report.built import build_full_summary

from evenhand.report.figures import Picture, draw_pictures
from evenhand.report.html import render_html
from evenhand.report.records import ErrorExample, Summary
from evenhand.report.sections import examples_table
from evenhand.report.summary import render_summary
from evenhand.report.wording import cell, literal, table, terminal

NASTY = st.text(
    alphabet=st.sampled_from(list("ab*_`[]()<>!|&;#\\\n-+.:/=\"'~$^{}1 ")), min_size=1, max_size=40
)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return build_full_summary(post="<script>alert(1)</script> **b** | ![x](http://a.test/i.png)")


@pytest.fixture(scope="module")
def pictures(summary: Summary) -> tuple[Picture, ...]:
    return draw_pictures(summary)


@pytest.fixture(scope="module")
def page(summary: Summary, pictures: tuple[Picture, ...]) -> str:
    text = render_summary(summary, figures={one.name: one.description for one in pictures})
    return render_html(text, title=summary.name, pictures=pictures)


def test_every_plot_is_drawn_once_and_named(pictures: tuple[Picture, ...], page: str) -> None:
    names = [one.name for one in pictures]
    assert names == [
        "loss",
        "groups-val",
        "groups-production",
        "differences-val",
        "curves",
        "reliability",
        "slices",
    ]
    for one in pictures:
        assert one.description.endswith(".")
        assert page.count(f'id="{one.name}-title"') == 1
        root = ET.fromstring(one.svg)
        assert root.tag.endswith("svg")
        assert not [node for node in root.iter() if node.tag.endswith(("script", "style"))]
    assert page.count('<svg role="img"') == len(pictures)


def test_the_same_summary_gives_the_same_plots(
    summary: Summary, pictures: tuple[Picture, ...]
) -> None:
    assert draw_pictures(summary) == pictures


def test_ids_and_anchors_are_unique_and_links_lead_somewhere(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert target in ids


def test_the_page_asks_for_nothing(page: str) -> None:
    assert not re.search(r"<(script|iframe|object|embed|form|base)\b", page)
    assert not re.search(r'\b(src|srcset|action|poster)="', page)
    assert all(
        link.startswith("#") for link in re.findall(r'\bhref="([^"]*)"', page) if link != "data:,"
    )
    assert "default-src 'none'" in page


def test_markdown_and_page_have_the_same_tables(summary: Summary, page: str) -> None:
    text = render_summary(summary)
    assert page.count("<table>") == len(re.findall(r"^\|:--", text, flags=re.MULTILINE))
    assert page.count("<details>") == text.count("<details>") == page.count("</details>")


def test_a_post_is_shown_as_text(summary: Summary, page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; **b** | ![x](http://a.test/i.png)" in page
    assert "http://a.test" not in re.sub(r"<td[^>]*>.*?</td>", "", page)
    assert "<script>" not in render_summary(summary)


def visible(source: str) -> str:
    """The text that a reader of the rendered Markdown sees."""
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children or ()}
    assert kinds <= {"text", "text_special", "softbreak"}
    return "".join(child.content for token in inline for child in token.children or ())


@settings(max_examples=200)
@given(NASTY)
def test_a_post_is_what_it_was_and_nothing_else(post: str) -> None:
    example = ErrorExample("1", "g", "normal", "hate", "f", 0.5, post)
    source = examples_table((example,))
    assert source is not None
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 14
    shown = "".join(child.content for child in cells[-1].children or ())
    assert shown == (" ".join(post.split()) or "-")
    assert {child.type for child in cells[-1].children or ()} <= {"text", "text_special"}


@settings(max_examples=200)
@given(NASTY)
def test_names_never_become_links_images_or_html(name: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(f"| {cell(name)} |\n|:--|\n")
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert not kinds & {"link_open", "image", "html_inline", "code_inline"}
    assert not [token for token in tokens if token.type == "html_block"]


def test_hidden_characters_do_not_pass() -> None:
    assert literal("a\u202eb\x00c\u2066") == "a\ufffdb\ufffdc\ufffd"
    assert visible(literal("# *a* `b` [c](d) <e> &amp; ~f~ \\g")) == (
        "# *a* `b` [c](d) <e> &amp; ~f~ \\g"
    )


@settings(max_examples=200)
@given(NASTY)
def test_a_terminal_shows_names_as_they_are_but_no_control_characters(name: str) -> None:
    plain = " ".join(literal(name).split())
    assert terminal(cell(name)) == visible(plain) if plain else terminal(cell(name)) == ""
    header, _, row = terminal(table(["Group", "FPR"], [[name or "x", "1"]])).split("\n")
    assert len(row) >= len(header)
    assert not re.search(r"&lt;|\x1b|\u202e", row) or "&lt;" in name
