"""docs/production.md, followed from its first command to its last."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tests.postgres import postgres_database_url, postgres_url  # noqa: F401
from tests.production_walk import PAGE, Step, Walk, read_steps, walking
from tests.tiny_production import QUOTED, make_tiny_demo

STEPS = read_steps(PAGE.read_text(encoding="utf-8"))
ORDINARY, DRIFTED, TUNED, AGAIN = (
    "Ordinary traffic",
    "The traffic changes",
    "A new threshold",
    "Serve it",
)


@pytest.fixture(scope="module")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``demo/`` and ``live.jsonl``, to be copied."""
    folder = tmp_path_factory.mktemp("tiny_demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENHAND_QUIET", "1")
        make_tiny_demo(folder)
    return folder


@pytest.fixture
def place(tiny_demo: Path, tmp_path: Path) -> Path:
    """A folder of the test's own to walk in."""
    shutil.copytree(tiny_demo / "demo", tmp_path / "demo")
    shutil.copy(tiny_demo / "live.jsonl", tmp_path / "live.jsonl")
    return tmp_path


def changes(posts: int) -> dict[str, str]:
    """What differs from the page: fewer posts, and of a kind that the tiny model knows.

    The groups' shares are such that each has enough normal posts among the fewer for a threshold.
    """
    sent = {f"--posts {count}": f"--posts {posts} --data live.jsonl" for count in (400, 500)}
    return {
        **sent,
        "lgbtq=0.6": "lgbtq=0.5",
        "mexican=0.15": "mexican=0.2",
        "middle_east=0.15": "middle_east=0.2",
        "--drift lgbtq": "--drift lgbtq --drift-kinds 1 --hate-share 0.25",
        "--max-group-fpr 0.45": "--max-group-fpr 0.45 --fit-share 0.7",
    }


def get(walk: Walk, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(walk.url + path, timeout=30) as response:
        return json.load(response)


def cli_json(walk: Walk, *words: str) -> Any:
    database = '--database "$DATABASE"'
    return json.loads(walk.do(Step("test", f"evenhand {' '.join(words)} {database} --json")))


def steps_of(*sections: str) -> list[Step]:
    return [step for step in STEPS if step.section in sections]


def first_part() -> list[Step]:
    """All steps before the traffic."""
    return STEPS[: [step.section for step in STEPS].index(ORDINARY)]


def truths(walk: Walk) -> list[dict[str, Any]]:
    lines = (walk.folder / "live" / "truth.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def false_positive_rate(found: list[dict[str, Any]]) -> float:
    flagged = [
        one["decision"] == "hate"
        for one in found
        if one["label"] == "normal" and one["groups"] == ["lgbtq"]
    ]
    return sum(flagged) / len(flagged)


def rate(report: dict[str, Any], metric: str, group: str) -> dict[str, Any]:
    return next(
        one for one in report["estimates"] if (one["metric"], one["group"]) == (metric, group)
    )


def test_the_page_names_what_there_is() -> None:
    assert [step.section for step in STEPS].index(ORDINARY) > 10
    commands = [step.command for step in STEPS]
    assert sum(command.startswith("evenhand serve") for command in commands) == 2


@pytest.mark.timeout(400)  # half a minute on a machine of its own
def test_the_walk_from_a_run_to_a_retuned_server(place: Path) -> None:
    with walking(place, changes(150)) as walk:
        for step in first_part():
            walk.do(step)
        before = get(walk, "/readyz")
        assert (before["status"], before["outcome"]) == ("ready", "PASS WITH CONDITIONS")
        assert before["adapter"]["difference"] > 0.005

        for step in steps_of(ORDINARY):
            walk.do(step)
        sent = truths(walk)
        calm = cli_json(walk, "watch status")
        assert calm["alarms"] == []
        known = rate(calm, "fpr", "lgbtq")
        assert known["low"] <= false_positive_rate(sent) <= known["high"]
        assert calm["queue"]["disputed"] == 0
        assert "No alarm is open" in walk.printed[ORDINARY][-1]

        for step in steps_of(DRIFTED):
            walk.do(step)
        later = truths(walk)[len(sent) :]
        assert QUOTED in {one["kind"] for one in later}
        assert false_positive_rate(later) > 0.7
        alarms = cli_json(walk, "watch alarms")
        assert ("fpr", "lgbtq") in {(one["kind"], one["subject"]) for one in alarms}

        for step in steps_of(TUNED):
            walk.do(step)
        retuned = json.loads((place / "demo/runs/high_capacity/retune.json").read_text())
        threshold = json.loads((place / "demo/runs/high_capacity/threshold.json").read_text())
        assert retuned["status"] == "replaced"
        assert threshold["fitted_on"]["set"] == "reviewed"
        assert get(walk, "/readyz")["release"] == before["release"], "until it is started again"

        for step in steps_of(AGAIN):
            walk.do(step)
        after = get(walk, "/v1/model")
        assert after["release"] != before["release"]
        assert after["threshold"] == threshold["value"]
        fresh = cli_json(walk, "watch status")
        assert all(one["labels"] == 0 for one in fresh["estimates"])


def keep_picture(page: Page, name: str) -> None:
    """Keep a screenshot where EVENHAND_SCREENSHOTS names a folder."""
    folder = os.environ.get("EVENHAND_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def log_in(page: Page, walk: Walk, name: str) -> None:
    page.goto(f"{walk.url}/review/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(os.environ["EVENHAND_REVIEWER_PASSWORD"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{walk.url}/review/")


def read_truth_of(walk: Walk) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What the simulated reviewers know, for a person at the browser."""
    import review_posts  # on the path while a walk lasts

    return review_posts.known_answers(walk.folder / "live" / "truth.jsonl")


def label_by_keyboard(page: Page, walk: Walk, *, posts: int) -> None:
    """Reveal, judge and submit posts with the keys that the page names."""
    from truth import hash_of

    known = read_truth_of(walk)
    groups = ("lgbtq", "mexican", "middle_east")
    for number in range(posts):
        item = page.locator("#answer-form input[name=item]").input_value()
        page.keyboard.press("r")
        text = page.locator("#post bdi")
        text.wait_for(state="visible")
        label, about = known[hash_of(text.text_content() or "")]
        page.keyboard.press("h" if label == "hate" else "n")
        for key in [str(groups.index(one) + 1) for one in about if one in groups] or ["0"]:
            page.keyboard.press(key)
        if number == 0:
            keep_picture(page, "queue")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "old => document.querySelector('#answer-form input[name=item]')?.value !== old",
            arg=item,
        )


@pytest.mark.slow
def test_the_walk_with_postgresql_and_a_browser(
    place: Path,
    postgres_database_url: str,  # noqa: F811
    browser: Browser,
) -> None:
    stored = {"sqlite:///demo/production.sqlite": postgres_database_url}
    with walking(place, {**changes(200), **stored}) as walk:
        for step in first_part():
            walk.do(step)
        before = get(walk, "/readyz")
        traffic, *reviews = steps_of(ORDINARY)
        walk.do(traffic)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        outside: list[str] = []
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((walk.url, "data:")) else outside.append(request.url)
            ),
        )
        log_in(page, walk, "alice")
        label_by_keyboard(page, walk, posts=5)
        for step in (*reviews, *steps_of(DRIFTED)):
            walk.do(step)
        page.goto(f"{walk.url}/review/dashboard")
        assert page.get_by_text(re.compile("lgbtq.* has been above 0.45")).first.is_visible()
        assert page.get_by_text("J. Doe").first.is_visible()
        keep_picture(page, "dashboard")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        keep_picture(page, "dashboard_phone")
        assert outside == []
        page.close()
        for step in (*steps_of(TUNED), *steps_of(AGAIN)):
            walk.do(step)
        assert get(walk, "/readyz")["release"] != before["release"]
        acts = cli_json(walk, "review history --limit 100000")["acts"]
        assert {one["action"] for one in acts} == {"label", "adjudicate"}
