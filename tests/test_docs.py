"""The Python examples of README.md and docs/ do what the pages say; their links lead somewhere."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)#:]+)(?:#[^)]*)?\)")


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def with_examples_only(text: str) -> str:
    """Blank out all but the fenced examples, so that the line numbers of a failure stay true."""
    kept = [""] * (text.count("\n") + 1)
    for block in FENCED.finditer(text):
        if ">>> " in block[1]:
            first = text.count("\n", 0, block.start(1))
            lines = block[1].splitlines()
            kept[first : first + len(lines)] = lines
    return "\n".join(kept)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")], ids=name_of
)
def test_examples_of_a_page(page: Path) -> None:
    source = with_examples_only(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(source, {}, name_of(page), str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert test.examples, "the examples stand outside of a fence"
    assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [PROJECT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = {
            (page.parent / target).resolve() for target in LINK.findall(page.read_text("utf-8"))
        }
        waiting += [t for t in targets if t.suffix == ".md" and t.exists() and t not in reached]
    assert [name_of(page) for page in PAGES[1:] if page not in reached] == []
