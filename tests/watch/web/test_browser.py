"""The pages in a browser: keyboard, screen reader, phone; nothing leaves this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.watch.web.made_up_site import PASSWORD, MadeUpSite

from evenhand.watch.store.tables import AlarmRow, ReviewRow

CHECKS = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")
TEXT = "I met my neighbours at the market."
PHONE = {"width": 390, "height": 800}
DESK = {"width": 1200, "height": 800}


@pytest.fixture
def url(site: MadeUpSite) -> Iterator[str]:
    """The site, served on a free port of the loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(site.app(), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/review"
        server.should_exit = True
        thread.join()


@contextmanager
def opened(browser: Browser, **options: object) -> Iterator[tuple[Page, list[str]]]:
    """Open a page of its own; the list collects what it should not do."""
    context: BrowserContext = browser.new_context(**options)  # pyright: ignore[reportArgumentType]
    context.set_default_timeout(15_000)
    page = context.new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            None
            if urlsplit(request.url).hostname == "127.0.0.1" or request.url == "data:,"
            else seen.append(f"request: {request.url}")
        ),
    )
    yield page, seen
    context.close()


def log_in(page: Page, url: str, name: str) -> None:
    page.goto(f"{url}/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")


def acts_of(site: MadeUpSite) -> list[tuple[str, str | None, list[str] | None, str | None]]:
    with site.database.reading() as session:
        rows = session.query(ReviewRow).order_by(ReviewRow.id).all()
        return [(one.action, one.label, one.groups, one.rationale or one.reason) for one in rows]


def test_three_posts_by_keyboard_alone(browser: Browser, site: MadeUpSite, url: str) -> None:
    site.add_posts([f"{TEXT} {word}" for word in ("one", "two", "three", "four")])
    site.add_person("ann")
    with opened(browser, viewport=DESK) as (page, seen):
        log_in(page, url, "ann")
        post, live = page.locator(".post-text"), page.locator("#live")
        assert TEXT not in page.locator("body").aria_snapshot()
        assert "Hidden until revealed" in page.locator("body").aria_snapshot()
        page.keyboard.press("h")
        expect(live).to_have_text("Reveal the post first.")
        expect(page.get_by_label("Hate")).not_to_be_checked()
        page.keyboard.press("r")
        expect(live).to_have_text("The post is shown.")
        assert f"{TEXT} one" in page.locator("body").aria_snapshot()
        page.keyboard.press("r")
        assert TEXT not in page.locator("body").aria_snapshot()
        page.keyboard.press("r")
        page.keyboard.press("h")
        page.keyboard.press("1")
        page.keyboard.press("3")
        # Keys are letters while one types.
        page.get_by_label("Why?").focus()
        page.keyboard.type("rhns 10z")
        expect(page.get_by_label("Why?")).to_have_value("rhns 10z")
        expect(page.get_by_label("Hate")).to_be_checked()
        page.get_by_label("lgbtq").focus()
        page.keyboard.press("Enter")
        expect(post).to_contain_text("two")
        expect(page.locator("#post-heading")).to_be_focused()
        assert TEXT not in page.locator("body").aria_snapshot()

        page.keyboard.press("r")
        page.keyboard.press("Enter")  # incomplete: the browser says what is missing
        expect(post).to_contain_text("two")
        page.keyboard.press("n")
        page.keyboard.press("2")
        page.keyboard.press("0")
        expect(page.get_by_label("mexican")).not_to_be_checked()
        page.keyboard.press("Enter")
        expect(post).to_contain_text("three")
        page.keyboard.press("s")
        expect(post).to_contain_text("four")

        page.keyboard.press("z")
        expect(page.get_by_label("Reason, in a few words")).to_be_focused()
        page.keyboard.type("too fast")
        page.keyboard.press("Enter")
        expect(post).to_contain_text("three")
        expect(live).to_contain_text("Undone.")
        page.keyboard.press("r")
        page.keyboard.press("n")
        page.keyboard.press("0")
        page.keyboard.press("Enter")
        expect(post).to_contain_text("four")
        assert page.url == f"{url}/"
        assert page.evaluate("Object.keys(localStorage)") == ["evenhand.single-keys"]
        assert seen == []
    assert acts_of(site) == [
        ("label", "hate", ["lgbtq", "middle_east"], "rhns 10z"),
        ("label", "normal", [], None),
        ("skip", None, None, None),
        ("undo", None, None, "too fast"),
        ("label", "normal", [], None),
    ]


def test_keys_can_be_switched_off(browser: Browser, site: MadeUpSite, url: str) -> None:
    site.add_posts([TEXT])
    site.add_person("ann")
    with opened(browser, viewport=DESK) as (page, seen):
        log_in(page, url, "ann")
        page.get_by_text("Keyboard shortcuts").click()
        page.get_by_label("Use single-key shortcuts").uncheck()
        page.reload()
        page.keyboard.press("r")
        expect(page.locator("#reveal")).to_have_attribute("aria-expanded", "false")
        page.keyboard.press("Control+r")
        assert page.get_by_role("button", name="Reveal the post").is_visible()
        assert seen == []


def test_it_works_without_script(browser: Browser, site: MadeUpSite, url: str) -> None:
    site.add_posts([TEXT, "another one"])
    site.add_person("ann")
    with opened(browser, viewport=PHONE, java_script_enabled=False) as (page, _):
        log_in(page, url, "ann")
        assert page.get_by_label("Hate").is_disabled()
        page.get_by_role("button", name="Reveal the post").click()
        page.get_by_label("Normal").check()
        page.get_by_label("none of these").check()
        page.get_by_role("button", name="Submit").click()
        expect(page.locator(".post-text")).to_contain_text("another one")
        page.get_by_role("button", name="Skip").click()
        expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
        page.get_by_text("Undo my last answer").click()
        page.get_by_label("Reason, in a few words").fill("a slip")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".post-text")).to_contain_text("another one")
    assert [act[0] for act in acts_of(site)] == ["label", "skip", "undo"]


def test_a_lost_server_and_an_ended_login_are_said(
    browser: Browser, site: MadeUpSite, url: str
) -> None:
    site.add_posts([TEXT, "two"])
    site.add_person("ann")
    is_lost = True
    with opened(browser, viewport=DESK) as (page, _):
        # Before the page is there: Chromium lets a request of a page that is open already slip by.
        page.route("**/label", lambda route: route.abort() if is_lost else route.continue_())
        log_in(page, url, "ann")
        for key in "rn0":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        expect(page.locator("#live")).to_contain_text("could not be reached")
        expect(page.get_by_label("Normal")).to_be_checked()
        is_lost = False
        site.clock.forward(hours=11)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator(".post-text")).to_contain_text(TEXT)


def test_a_post_with_script_runs_nothing(browser: Browser, site: MadeUpSite, url: str) -> None:
    post = "<script>document.title='run'</script><img src=http://a.test/i.png onerror=alert(1)>"
    site.add_posts([post + "\u202e\u2066 and http://a.test", "long " * 3000])
    site.add_person("ann")
    with opened(browser, viewport=PHONE) as (page, seen):
        log_in(page, url, "ann")
        page.get_by_role("button", name="Reveal").click()
        expect(page.locator(".post-text")).to_contain_text(post)
        expect(page.locator(".post-text")).to_contain_text("[U+202E RIGHT-TO-LEFT OVERRIDE]")
        assert page.locator(".post-text :is(script, img, a)").count() == 0
        page.get_by_role("button", name="Skip").click()
        page.get_by_role("button", name="Reveal").click()
        box = page.locator(".post-text").bounding_box()
        assert box is not None
        assert box["height"] <= 0.45 * PHONE["height"] + 1
        assert seen == []


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (DESK, "light"), (DESK, "dark")]
)
def test_every_page_fits_and_can_be_used_by_all(
    browser: Browser, site: MadeUpSite, url: str, viewport: dict[str, int], scheme: str
) -> None:
    fill(site)
    with opened(browser, viewport=viewport, color_scheme=scheme) as (page, seen):
        page.goto(f"{url}/login")
        check(page, viewport)
        log_in(page, url, "cleo")
        check(page, viewport)
        for place in ("/?show=1", "/adjudicate", "/adjudicate?show=1", "/history?of=all"):
            page.goto(f"{url}{place}")
            check(page, viewport)
        for place in ("/dashboard", "/settings"):
            page.goto(f"{url}{place}")
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            check(page, viewport)
        page.get_by_role("button", name="Take a break now").click()
        page.get_by_role("heading", name="Break").wait_for()
        check(page, viewport)
        assert seen == []


def fill(site: MadeUpSite) -> None:
    """Put something on every page."""
    ann, bob = site.signed_in("ann"), site.signed_in("bob")
    site.add_posts([TEXT], proposed=["lgbtq"], needed=2)
    ann.label("hate", "lgbtq", rationale="w" * 300)
    bob.label("normal", "", rationale="reported speech")
    site.add_posts([f"{TEXT} {'w' * 500}"], proposed=["lgbtq", "mexican", "middle_east"])
    site.add_person("cleo", role="admin")
    alarm = AlarmRow(
        release_id=site.release_id,
        kind="fpr",
        subject="lgbtq",
        opened=site.clock(),
        message="The false-positive rate is above its bound.",
        evidence={},
    )
    with site.database.session() as session:
        session.add(alarm)


def check(page: Page, viewport: dict[str, int]) -> None:
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"], f"{page.url} is {width} wide"
    assert page.evaluate(CHECKS, 44) == [], page.url
    # Every stop of the tabulator is seen.
    stops = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => {
              const el = document.activeElement;
              if (el === document.body) return null;
              const shown = [el, el.closest(".choice")].some((one) => one &&
                getComputedStyle(one).outlineStyle !== "none" &&
                parseFloat(getComputedStyle(one).outlineWidth) >= 2);
              return [el.outerHTML.slice(0, 120), shown];
            }"""
        )
        if stop is None or stop[0] in stops:
            break
        stops.add(stop[0])
        assert stop[1], f"{page.url}: the focus is not seen on {stop[0]}"
    assert len(stops) >= 3 or "login" in page.url
