"""What the pages do, in a browser without script: label, skip, undo, adjudicate, settings."""

from __future__ import annotations

import html
import re
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.watch.made_up import START, make_release, make_settings, start_intake
from tests.watch.web.made_up_site import PASSWORD, MadeUpSite

from evenhand.core.decisions import Deployment
from evenhand.core.production import Override
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import AlarmRow, EstimateRow, ItemRow, ReviewRow
from evenhand.watch.web.curves import BOTTOM, LEFT, RIGHT, TOP, Point, draw_curve
from evenhand.watch.web.display import visible

POSTS = [
    "<script>alert(1)</script>",
    "</div></main><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %} ${7*7} #{7*7}",
    "' onmouseover='alert(1)\" style=\"x",
    "see http://a.test and [this](javascript:alert(1))",
    "&lt;b&gt; &amp;amp; &#x202e;",
    "]]><!-- <![CDATA[",
]


def bdi_of(page: str) -> str:
    found = re.search(r'<bdi dir="auto">(.*?)</bdi>', page, re.DOTALL)
    assert found is not None
    return found[1]


def row_of(site: MadeUpSite, item: int) -> ItemRow:
    with site.database.reading() as session:
        return session.get_one(ItemRow, item)


def test_a_post_is_text_and_nothing_else(site: MadeUpSite) -> None:
    items = site.add_posts(POSTS)
    person = site.signed_in("ann")
    for item, text in zip(items, POSTS, strict=True):
        for path in ("/", "/?show=1"):
            shown = bdi_of(person.get(path).text)
            assert html.unescape(shown) == text
            assert "<" not in shown
        person.label(rationale=text)
        assert html.unescape(bdi_of(person.get("/history").text)) == text
        assert row_of(site, item).state == "done"


def test_a_post_is_hidden_until_revealed(site: MadeUpSite) -> None:
    site.add_posts(["a post"])
    person = site.signed_in("ann")
    hidden, shown = person.get("/").text, person.get("/?show=1").text
    assert "Hidden until revealed" in hidden
    assert re.search(r'class="post-text"[^>]* aria-hidden="true" inert>', hidden)
    assert '<fieldset id="answers" class="bare" disabled>' in hidden
    assert re.search(r'class="post-text"[^>]* tabindex="0">', shown)
    assert '<fieldset id="answers" class="bare">' in shown


def test_labels_groups_and_rationale_are_recorded(site: MadeUpSite) -> None:
    first, second, third = site.add_posts(["one", "two", "three"])
    person = site.signed_in("ann")
    assert person.label("hate", ["lgbtq", "mexican"], rationale=" why\0 ").url.path == "/review/"
    assert person.label("normal", "").status_code == 200
    assert person.post("/skip", item=person.open_item()).status_code == 200
    assert "Nothing waits for you" in person.get("/").text
    one, two, three = (row_of(site, item) for item in (first, second, third))
    assert (one.label, one.groups) == ("hate", ["lgbtq", "mexican"])
    assert (two.label, two.groups) == ("normal", [])
    assert three.state == "open"
    with site.database.reading() as session:
        acts = session.query(ReviewRow).order_by(ReviewRow.id).all()
    assert [act.action for act in acts] == ["label", "label", "skip"]
    assert acts[0].rationale == "why␀"


def test_what_is_missing_is_said_and_what_was_filled_in_stays(site: MadeUpSite) -> None:
    (item,) = site.add_posts(["a post"])
    person = site.signed_in("ann")
    cases: list[tuple[dict[str, object], str]] = [
        ({"group": ""}, "Choose hate or normal."),
        ({"label": "maybe", "group": ""}, "Choose hate or normal."),
        ({"label": "hate"}, "Choose whom the post speaks of"),
        ({"label": "hate", "group": ["", "lgbtq"]}, "not both"),
        ({"label": "hate", "group": "martians"}, "not on the list"),
    ]
    for fields, told in cases:
        answer = person.post("/label", item=person.open_item(), rationale="kept <words>", **fields)
        assert answer.status_code == 422
        assert told in html.unescape(answer.text)
        assert "kept &lt;words&gt;</textarea>" in answer.text
    assert row_of(site, item).state == "open"


def test_what_was_filled_in_never_moves_to_another_post(site: MadeUpSite) -> None:
    site.add_posts(["one", "two"])
    person = site.signed_in("ann")
    item = person.open_item()
    person.label()
    stale = person.post("/label", item=item, label="hate", group="", rationale="of the first")
    assert stale.status_code == 422
    assert "not open for you any more" in stale.text
    assert "of the first" not in stale.text
    assert person.post("/label", item=item, rationale="x" * 5000).status_code == 422


def test_undo_opens_the_post_again_and_needs_a_reason(site: MadeUpSite) -> None:
    (item,) = site.add_posts(["a post"])
    person = site.signed_in("ann")
    assert 'id="undo"' not in person.get("/").text
    assert "nothing to undo" in person.post("/undo", reason="x").text
    named = person.open_item()
    person.label("hate", "lgbtq")
    assert 'id="undo"' in person.get("/").text
    assert person.post("/undo", reason=" ").status_code == 422
    assert row_of(site, item).state == "done"
    person.post("/undo", reason="pressed the wrong key")
    assert row_of(site, item).state == "open"
    assert person.open_item() == named
    history = person.get("/history").text
    assert "pressed the wrong key" in history
    assert "taken back" in history


def test_two_reviewers_differ_and_an_admin_decides(site: MadeUpSite) -> None:
    (item,) = site.add_posts(["a disputed <post>"], needed=2)
    ann, bob = site.signed_in("ann"), site.signed_in("bob")
    ann.label("hate", "lgbtq", rationale="ann's <why>")
    bob.label("normal", "", rationale="bob's why")
    admin = site.signed_in("cleo", role="admin")
    page = admin.get("/adjudicate?show=1").text
    assert "a disputed &lt;post&gt;" in page
    assert "ann&#39;s &lt;why&gt;" in page
    assert ">ann<" not in page
    assert page.count('<article class="said"') == 2
    said = {"item": item, "label": "normal", "group": "lgbtq"}
    assert "Give a reason." in admin.post("/adjudicate", **said).text
    assert row_of(site, item).state == "disputed"
    done = admin.post("/adjudicate", **said, reason="reported speech")
    assert "No post is disputed." in done.text
    settled = row_of(site, item)
    assert (settled.state, settled.label, settled.groups) == ("done", "normal", ["lgbtq"])
    again = admin.post("/adjudicate", item="999", label="hate", group="", reason="x")
    assert again.status_code == 422


def test_an_admin_is_told_where_a_label_is_their_own(site: MadeUpSite) -> None:
    site.add_posts(["a post", "another"], needed=2)
    admin, bob = site.signed_in("cleo", role="admin"), site.signed_in("bob")
    for _ in range(2):
        admin.label("hate", "")
        bob.label("normal", "")
    page = admin.get("/adjudicate?place=1&show=1").text
    assert "Disputed posts: 2." in page
    assert "another" in page
    assert "This label is your own" in page


def test_breaks_and_caps(site: MadeUpSite) -> None:
    site.settings = make_settings("review.golden_share=0", "review.session_items=3")
    site.add_posts([f"post {number}" for number in range(5)])
    person = site.signed_in("ann")
    assert "Your next break is in about 50 minutes" in person.get("/").text
    paused = person.post("/settings/break")
    assert "Break</h1>" in paused.text
    assert "post 0" not in paused.text
    site.clock.forward(minutes=site.settings.review.break_minutes + 1)
    for _ in range(3):
        assert "Nothing waits" not in person.label().text
    assert "Break</h1>" in person.get("/").text
    assert not re.search(r"\d+ (posts?|labels?) (done|labelled|today)", person.get("/").text)


def test_settings_are_kept(site: MadeUpSite) -> None:
    site.add_posts(["about a group"], proposed=["lgbtq"])
    person = site.signed_in("ann")
    assert "about a group" in person.get("/").text
    saved = person.post("/settings/opt-outs", group=["lgbtq", "martians"])
    assert "Saved" in saved.text
    assert re.search(r'value="lgbtq" checked', saved.text)
    assert "about a group" not in person.get("/").text
    person.post("/settings/opt-outs")
    assert "about a group" in person.get("/").text


def test_a_password_is_changed_with_the_present_one(site: MadeUpSite) -> None:
    person, elsewhere = site.signed_in("ann"), site.client()
    elsewhere.log_in("ann")
    new = "another long password"
    cases = [
        ({"current": "wrong", "new": new, "again": new}, "present password is wrong"),
        ({"current": PASSWORD, "new": new, "again": "x"}, "passwords differ"),
        ({"current": PASSWORD, "new": "short", "again": "short"}, "has 5 characters"),
        ({}, "present password is wrong"),
    ]
    for fields, told in cases:
        answer = person.post("/settings/password", **fields)
        assert answer.status_code == 422
        assert told in answer.text
        assert new not in answer.text
    assert (
        "is changed" in person.post("/settings/password", current=PASSWORD, new=new, again=new).text
    )
    assert person.get("/settings").url.path == "/review/settings"
    assert elsewhere.get("/settings").url.path == "/review/login"
    assert site.client().log_in("ann", new).url.path == "/review/"


def deployed_site(database: Database) -> MadeUpSite:
    plain = make_release()
    deployment = Deployment(
        status="approved_with_conditions",
        date="2026-10-30",
        model=plain.model,
        set="production",
        outcome="PASS WITH CONDITIONS",
        threshold=0.5,
        binding=plain.binding,
        conditions=(
            {
                "criterion": "lgbtq fpr",
                "monitor": "LGBTQ+ false positives",
                "owner": "safety <team>",
                "action": "tune the threshold",
                "due": "2026-11-01",
            },
        ),
        next_action="report to the board",
        due="2026-11-05",
    )
    accepted = Override(code="gate_review", message="It said REVIEW.", reason="a <pilot>")
    release = make_release(
        outcome="PASS WITH CONDITIONS", deployment=deployment, overrides=(accepted,)
    )
    settings = make_settings()
    start_intake(database, release, settings)
    return MadeUpSite(database, settings, release.sha256)


def test_the_dashboard_shows_what_is_known(database: Database) -> None:
    site = deployed_site(database)
    with database.session() as session:
        for day in range(3):
            session.add(
                EstimateRow(
                    release_id=site.release_id,
                    time=site.clock() - timedelta(days=3 - day),
                    metric="fpr",
                    group="lgbtq",
                    value=None if day == 0 else 0.4,
                    low=0.1 * day,
                    high=0.9,
                    labels=10 * day,
                    pending=1,
                )
            )
    person = site.signed_in("ann")
    page = html.unescape(person.get("/dashboard").text)
    assert "overdue by 1 day" in page
    assert "due in 3 days" in page
    assert "safety <team>" in page
    assert "a <pilot>" in page
    assert "PASS WITH CONDITIONS" in page
    assert "bound 30.0%; offline 30.0% on production" in page
    assert page.count("<svg") == 8
    assert len(re.findall("<polyline", page)) == 1
    assert "Labels planned a day" in page
    assert "Labels needed" in page


def test_an_alarm_is_closed_with_a_reason(site: MadeUpSite) -> None:
    with site.database.session() as session:
        alarm = AlarmRow(
            release_id=site.release_id,
            kind="fpr",
            subject="lgbtq",
            opened=site.clock(),
            message="above its <bound>",
            evidence={},
        )
        session.add(alarm)
        session.flush()
        number = alarm.id
    reviewer = site.signed_in("ann").get("/dashboard").text
    assert "False positives of lgbtq" in reviewer
    assert "Close this alarm" not in reviewer
    admin = site.signed_in("cleo", role="admin")
    assert "Close this alarm" in admin.get("/dashboard").text
    assert admin.post("/alarms/close", alarm=number, reason=" ").status_code == 422
    done = admin.post("/alarms/close", alarm=number, reason="retuned")
    assert "No alarm is open." in done.text
    assert "was closed on" in admin.post("/alarms/close", alarm=number, reason="again").text
    with site.database.reading() as session:
        kept = session.get_one(AlarmRow, number)
    assert (kept.reason, kept.closed_by) == ("retuned", 2)


@given(st.text())
def test_visible_keeps_the_text_and_names_what_hides(text: str) -> None:
    shown = str(visible(text))
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u0000-\u0008]", shown)
    bare = html.unescape(re.sub(r'<span class="mark">[^<]*</span>', "", shown))
    kept = text.replace("\r\n", "\n").replace("\r", "\n")
    assert set(bare) <= set(kept)
    if kept.isprintable():
        assert bare == kept


def test_visible_names_runs_once_and_leaves_emoji_alone() -> None:
    assert "[U+200B ZERO WIDTH SPACE ×3]" in visible("a\u200b\u200b\u200bb")
    family = "\N{WOMAN}\u200d\N{GIRL}"
    assert visible(family) == family


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6)
        ),
        min_size=1,
        max_size=300,
    ),
    st.none() | st.floats(0, 1),
)
def test_a_curve_stays_in_its_box(rows: list[tuple], bound: float | None) -> None:
    start = START
    points = sorted(
        (
            Point(start + timedelta(minutes=minutes), value, min(a, b), max(a, b))
            for value, a, b, minutes in rows
        ),
        key=lambda point: point.time,
    )
    curve = draw_curve(points, bound=bound, offline=0.2)
    assert curve is not None
    places = [
        tuple(map(float, place.split(",")))
        for part in (curve.band, *curve.lines)
        for place in part.split()
    ]
    for x, y in [*places, *curve.dots]:
        assert LEFT - 0.1 <= x <= RIGHT + 0.1
        assert TOP - 0.1 <= y <= BOTTOM + 0.1
    assert len(curve.band.split()) <= 240
    assert bool(curve.dots) == any(point.value is not None for point in points)


def test_no_points_no_curve() -> None:
    assert draw_curve([]) is None
