"""The page in a browser: it renders, fits a phone, prints, and runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from tests.report.built import build_full_summary

from evenhand.experiment.reporting import write_report

POST = (
    "<script>document.title='run'</script>"
    "<img src=http://a.test/i.png onerror=document.title='run'>"
    " [link](http://a.test) **bold** | cell"
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(build_full_summary(post=POST, post_id="<b>0001</b>"), out)
    return out / "summary.html"


def opened(browser: Browser, file: Path, *, width: int) -> tuple[Page, list[str]]:
    """Open the page; the list collects console messages, errors and requests for other files."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    seen: list[str] = []
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url in (file.as_uri(), "data:,")
            else seen.append(f"request: {request.url}")
        ),
    )
    page.goto(file.as_uri())
    return page, seen


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_and_asks_for_nothing(browser: Browser, page_file: Path, width: int) -> None:
    page, seen = opened(browser, page_file, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "toy: Experiment Summary"
    assert page.get_by_role("heading", name="Production Readiness Assessment").is_visible()
    assert seen == []
    page.close()


def test_plots_have_names_and_contents_lead_to_headings(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file, width=1280)
    plots = page.get_by_role("img")
    assert plots.count() == 7
    for index in range(plots.count()):
        assert plots.nth(index).bounding_box()
    assert page.get_by_role("img", name="Loss curves").count() == 1
    assert page.get_by_role("img", name="FPR and FNR per group on production").count() == 1
    page.get_by_role("link", name="Recommendations").click()
    heading = page.get_by_role("heading", name="Recommendations").bounding_box()
    assert heading is not None
    assert heading["y"] < 200
    page.close()


def test_a_post_with_script_is_text(browser: Browser, page_file: Path) -> None:
    page, seen = opened(browser, page_file, width=1280)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.get_by_role("cell", name=POST, exact=True).is_visible()
    assert page.get_by_role("cell", name="<b>0001</b>", exact=True).is_visible()
    assert page.evaluate("document.querySelectorAll('script, img, td b, td a').length") == 0
    assert page.title() == "toy: Experiment Summary"
    assert seen == []
    page.close()


def test_it_prints(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    page, seen = opened(browser, page_file, width=1280)
    page.pdf(path=tmp_path / "summary.pdf", format="A4")
    assert (tmp_path / "summary.pdf").read_bytes().startswith(b"%PDF")
    assert seen == []
    page.close()
