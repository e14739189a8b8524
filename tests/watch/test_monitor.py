from __future__ import annotations

import csv
import json
import threading
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select
from tests.watch.made_up import (
    START,
    make_answer,
    make_answers,
    make_release,
    make_settings,
    settle,
    start_intake,
)
from tests.watch.simulated import produce, review, simulated_answers

from evenhand.core.decisions import Deployment
from evenhand.core.errors import ConfigError
from evenhand.core.production import Release
from evenhand.watch import windows
from evenhand.watch.alarm_book import Raised, close_alarm, open_alarms, read_alarms
from evenhand.watch.duties import duties_of
from evenhand.watch.monitor import check, read_report
from evenhand.watch.store.database import Database
from evenhand.watch.store.exporting import export_decisions
from evenhand.watch.store.served import find_served
from evenhand.watch.store.tables import AlarmRow, EstimateRow, ItemRow, PostRow, ReviewRow, UserRow
from evenhand.watch.traffic import read_queue, read_traffic

SETTINGS = make_settings("watch.posts_per_day=1500", "watch.labels_per_day=600")
LATER = START + timedelta(days=3)
HIGH = {"lgbtq": 2.5}


def deployment(**changes: object) -> Deployment:
    release = make_release()
    return Deployment(
        status="approved_with_conditions",
        date="2026-11-01",
        model=release.model,
        set="production",
        outcome="PASS WITH CONDITIONS",
        threshold=release.threshold,
        binding=release.binding,
        conditions=(
            {
                "criterion": "No large gap",
                "monitor": "each group's FPR",
                "owner": "the model's owner",
                "action": "Tune the threshold.",
                "due": "2026-11-15",
            },
        ),
        next_action="Tune the threshold.",
        due="2026-11-15",
    ).model_copy(update=changes)


def with_duties(**changes: object) -> Release:
    found = deployment(**changes)
    return make_release(outcome=found.outcome, deployment=found)


def rows(database: Database, table: type) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_an_empty_release_can_be_looked_at(database: Database, release: Release) -> None:
    start_intake(database, release)
    report = check(database, release.sha256, make_settings(), now=START)
    assert report.traffic.posts == 0
    assert report.error_rate is None
    assert report.alarms == ()
    assert {(one.metric, one.group) for one in report.estimates} >= {
        ("fpr", None),
        ("fnr", "lgbtq"),
    }
    assert report.offline == {("fpr", "lgbtq"): 0.3}
    assert report.offline_set == "production"
    assert len(report.needed) == 3
    assert rows(database, EstimateRow) == 0


def test_a_high_rate_alarms_once_and_a_second_check_writes_nothing(
    database: Database, release: Release
) -> None:
    produce(database, release, 1500, settings=SETTINGS, lift=HIGH)
    report = check(database, release.sha256, SETTINGS, now=LATER)
    assert {(one.kind, one.subject) for one in report.alarms} == {
        ("fpr", "lgbtq"),
        ("gap", "lgbtq"),
    }
    fpr = next(one for one in report.estimates if (one.metric, one.group) == ("fpr", "lgbtq"))
    assert fpr.low > report.bounds["lgbtq"] == 0.30
    assert fpr.value is not None and fpr.value > 0.5
    written = rows(database, EstimateRow)
    assert written == len(report.estimates)
    again = check(database, release.sha256, SETTINGS, now=LATER + timedelta(hours=5))
    assert rows(database, EstimateRow) == written
    assert rows(database, AlarmRow) == 2
    assert again.alarms == report.alarms


def test_reading_writes_nothing(database: Database, release: Release) -> None:
    produce(database, release, 1000, settings=SETTINGS, lift=HIGH)
    report = read_report(database, release.sha256, SETTINGS, now=LATER)
    assert report.alarms == ()
    assert rows(database, AlarmRow) == rows(database, EstimateRow) == 0


def test_good_rates_do_not_alarm(database: Database, release: Release) -> None:
    produce(database, release, 1500, settings=SETTINGS)
    report = check(database, release.sha256, SETTINGS, now=LATER)
    assert report.alarms == ()
    assert any(sentence.startswith("Shown") for sentence in report.needed)


def test_new_labels_make_a_new_point_and_pending_posts_wait_for_the_hour(
    database: Database, release: Release
) -> None:
    intake = produce(database, release, 500, settings=SETTINGS)
    check(database, release.sha256, SETTINGS, now=LATER)
    before = rows(database, EstimateRow)
    answers, truth = simulated_answers(
        200, rng=np.random.default_rng(5), first=1000, start=LATER, seconds=1
    )
    intake.record(answers)
    with database.reading() as session:
        last = session.scalar(select(func.max(ItemRow.id)))
    settle(database, [last], label="normal", groups=["mexican"], now=LATER)
    check(database, release.sha256, SETTINGS, now=LATER + timedelta(minutes=5))
    # One normal post about Mexicans: its own FPR and that of all; the others moved by pending
    # posts alone.
    assert rows(database, EstimateRow) == before + 2
    check(database, release.sha256, SETTINGS, now=LATER + timedelta(minutes=6))
    assert rows(database, EstimateRow) == before + 2
    check(database, release.sha256, SETTINGS, now=LATER + timedelta(hours=2))
    assert rows(database, EstimateRow) > before + 2
    assert truth


def test_a_closed_alarm_comes_back_on_new_evidence_only(
    database: Database, release: Release
) -> None:
    intake = produce(database, release, 1500, settings=SETTINGS, lift=HIGH)
    report = check(database, release.sha256, SETTINGS, now=LATER)
    closing = LATER + timedelta(hours=1)
    with database.session() as session:
        for one in report.alarms:
            close_alarm(session, one.id, reason="known; being retuned", now=closing)
    assert check(database, release.sha256, SETTINGS, now=closing).alarms == ()
    answers, truth = simulated_answers(
        1500,
        rng=np.random.default_rng(3),
        lift=HIGH,
        first=1500,
        start=closing + timedelta(minutes=1),
        seconds=2,
    )
    for at in range(0, len(answers), 500):
        intake.record(answers[at : at + 500])
    review(database, truth, rng=np.random.default_rng(1))
    again = check(database, release.sha256, SETTINGS, now=closing + timedelta(days=1))
    assert ("fpr", "lgbtq") in {one.key for one in again.alarms}
    with database.reading() as session:
        kept = read_alarms(session, release.sha256, with_closed=True)
    assert {one.reason for one in kept} == {None, "known; being retuned"}


def test_closing_needs_a_reason_and_an_open_alarm(database: Database, release: Release) -> None:
    start_intake(database, release)
    with database.session() as session:
        raised = [Raised("errors", "all posts", "too many")]
        assert open_alarms(session, release.sha256, raised, known={}, now=START) == 1
        assert open_alarms(session, release.sha256, raised, known={}, now=START) == 0
        alarm = read_alarms(session, release.sha256)[0]
        with pytest.raises(ConfigError, match="1 problem"):
            close_alarm(session, alarm.id, reason=" ", now=START)
        with pytest.raises(ConfigError):
            close_alarm(session, 99, reason="because", now=START)
        close_alarm(session, alarm.id, reason="because", now=START)
        with pytest.raises(ConfigError):
            close_alarm(session, alarm.id, reason="because", now=START)
        # What rested on the evidence of before the closing must wait for the next check.
        assert open_alarms(session, release.sha256, raised, known={}, now=START) == 0
        known = {("errors", "all posts"): START}
        assert open_alarms(session, release.sha256, raised, known=known, now=START) == 1


def test_checks_at_once_open_one_alarm(database: Database, release: Release) -> None:
    produce(database, release, 1500, settings=SETTINGS, lift=HIGH)
    failures: list[BaseException] = []

    def look() -> None:
        try:
            check(database, release.sha256, SETTINGS, now=LATER)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rows(database, AlarmRow) == 2
    assert rows(database, EstimateRow) == 8


def test_errors_alarm(database: Database, release: Release) -> None:
    intake = start_intake(database, release)
    intake.record([make_answer(n, score=None if n % 10 == 0 else 0.2) for n in range(600)])
    report = check(database, release.sha256, make_settings(), now=START)
    assert [one.kind for one in report.alarms] == ["errors"]
    assert report.error_rate == pytest.approx(0.1)
    assert report.traffic.days[-1].decisions["error"] == 60


def test_a_drift_of_scores_and_of_the_mix_alarms(database: Database, release: Release) -> None:
    intake = start_intake(database, release)
    rng = np.random.default_rng(0)
    intake.record(make_answers(500, rng=rng))
    intake.record([make_answer(500 + n, "a gay friend", score=0.9) for n in range(500)])
    report = check(database, release.sha256, make_settings(), now=START)
    assert {one.kind for one in report.alarms} == {"score", "mix"}


@pytest.mark.parametrize("posts", [0, 4, 5, 9, 14, 15, 19, 20, 33])
def test_windows_are_read_from_the_end(
    database: Database, release: Release, monkeypatch: pytest.MonkeyPatch, posts: int
) -> None:
    monkeypatch.setattr(windows, "WINDOW_POSTS", 5)
    monkeypatch.setattr(windows, "LATEST", 2)
    other = make_release(threshold=0.7)
    start_intake(database, other).record([make_answer(900 + n) for n in range(7)])
    scores = [round(n / 100, 2) for n in range(posts)]
    start_intake(database, release).record([make_answer(n, score=s) for n, s in enumerate(scores)])
    with database.reading() as session:
        found = windows.read_windows(session, release.sha256)
    numbers = [one.number for one in found]
    full = posts // 5
    assert numbers == sorted({1, *range(max(1, full - 1), full + 1)} if full else set())
    for one in found:
        assert one.scores.tolist() == scores[(one.number - 1) * 5 : one.number * 5]


def test_duties_come_from_the_deployment_and_alarm_when_overdue(database: Database) -> None:
    release = with_duties()
    start_intake(database, release)
    early = check(database, release.sha256, make_settings(), now=START)
    assert [(one.name, one.due, one.is_overdue) for one in early.duties] == [
        ("No large gap", date(2026, 11, 15), False)
    ]
    assert early.alarms == ()
    late = START + timedelta(days=20)
    report = check(database, release.sha256, make_settings(), now=late)
    assert [(one.kind, one.subject) for one in report.alarms] == [("duty", "No large gap")]
    assert "overdue since 2026-11-15: Tune the threshold." in report.alarms[0].message
    with database.session() as session:
        close_alarm(session, report.alarms[0].id, reason="done by hand", now=late)
    assert check(database, release.sha256, make_settings(), now=late).alarms == ()


def test_the_next_action_is_a_duty_of_its_own_where_it_says_more() -> None:
    release = with_duties(next_action="Settle before deploying: recall.", due=None)
    found = duties_of(release, now=START)
    assert [one.name for one in found] == ["No large gap", "next action"]
    assert found[1].due is None and not found[1].is_overdue
    assert duties_of(make_release(), now=START) == ()


def test_a_day_is_due_until_it_ends() -> None:
    release = with_duties()
    last = START.replace(month=11, day=15, hour=23)
    assert not duties_of(release, now=last)[0].is_overdue
    assert duties_of(release, now=last + timedelta(hours=2))[0].is_overdue


def test_dropped_texts_are_said(database: Database, release: Release) -> None:
    settings = make_settings("watch.text=drop")
    intake = start_intake(database, release, settings)
    intake.record(make_answers(50, rng=np.random.default_rng(0)))
    report = check(database, release.sha256, settings, now=START)
    assert "no post can be reviewed" in report.notes[0]


def test_texts_past_their_time_are_erased(database: Database, release: Release) -> None:
    produce(database, release, 300, settings=SETTINGS, labelled=0.5)
    report = check(database, release.sha256, SETTINGS, now=START + timedelta(days=60))
    with database.reading() as session:
        assert session.scalar(select(func.count()).where(PostRow.text.is_not(None))) == 0
    assert report.queue.erased > 0
    assert any("erased before anybody labelled" in note for note in report.notes)


def test_traffic_by_day_and_the_budget(database: Database, release: Release) -> None:
    intake = start_intake(database, release, SETTINGS)
    answers = [
        make_answer(
            n,
            "a gay arab friend" if n % 2 else "a friend",
            score=0.9 if n % 4 == 0 else 0.1,
            time=START + timedelta(days=n // 100),
        )
        for n in range(300)
    ]
    intake.record(answers)
    now = START + timedelta(days=2, hours=1)
    with database.session() as session:
        session.add(
            UserRow(
                id=1,
                name="anna",
                pseudonym="r1",
                role="reviewer",
                password_hash="-",
                opted_out=[],
                created=START,
            )
        )
        first, second, third = session.scalars(select(ItemRow.id).order_by(ItemRow.id)).all()[:3]
        acts = [
            ReviewRow(item_id=item, user_id=1, time=now, action=action, label="hate")
            for item, action in (
                (first, "label"),
                (first, "label"),
                (second, "label"),
                (third, "skip"),
            )
        ]
        session.add_all(acts)
        session.flush()
        undo = ReviewRow(item_id=second, user_id=1, time=now, action="undo", undoes=acts[2].id)
        session.add(undo)
    with database.reading() as session:
        traffic = read_traffic(session, release.sha256, now=now, days=3)
        queue = read_queue(session, release.sha256)
    assert [one.posts for one in traffic.days] == [100, 100, 100]
    assert traffic.days[0].decisions == {"hate": 25, "normal": 75}
    assert traffic.days[0].groups == {"lgbtq": 50, "middle_east": 50, "none": 50}
    assert [one.labels for one in traffic.days] == [0, 0, 1]
    assert queue.second == 1
    notes = read_report(database, release.sha256, SETTINGS, now=now).notes
    assert any("only one reviewer: the first label counts" in note for note in notes)
    with database.reading() as session:
        today = read_traffic(session, release.sha256, now=now, days=1)
    assert today.posts == 300
    assert today.days[0].posts == 100


def test_the_release_that_was_started_last(database: Database) -> None:
    with pytest.raises(ConfigError, match="1 problem"):
        find_served(database)
    old, new = make_release(), make_release(threshold=0.7)
    start_intake(database, old, now=START)
    start_intake(database, new, SETTINGS, now=START + timedelta(days=1))
    assert find_served(database).release == new
    assert find_served(database).settings == SETTINGS
    assert find_served(database, old.sha256[:8]).release == old
    start_intake(database, old, now=START + timedelta(days=2))
    assert find_served(database).release == old
    for wrong in ("", "zz"):
        with pytest.raises(ConfigError):
            find_served(database, wrong)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_export_holds_weights_and_labels_and_no_posts(
    database: Database, release: Release, tmp_path: Path, suffix: str
) -> None:
    produce(database, release, 120, settings=SETTINGS)
    out = tmp_path / f"decisions.{suffix}"
    with database.reading() as session:
        assert export_decisions(session, out) == 120
    text = out.read_bytes()
    assert b"friend" not in text
    if suffix == "csv":
        lines = list(csv.DictReader(out.read_text("utf-8").splitlines()))
        found = [line for line in lines if line["sampled"] == "True"]
        assert all(json.loads(line["reviews"]) == [] for line in lines)
    elif suffix == "jsonl":
        lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        found = [line for line in lines if line["sampled"]]
    else:
        lines = pq.read_table(out).to_pylist()
        found = [line for line in lines if line["sampled"]]
    assert len(lines) == 120
    assert found
    for line in found:
        assert float(line["weight"]) == pytest.approx(1 / float(line["inclusion"]))
        assert line["label"] in ("hate", "normal")
    with database.reading() as session:
        export_decisions(session, out, include_posts=True)
    assert b"friend" in out.read_bytes() or suffix == "parquet"


def test_the_export_names_reviewers_by_pseudonym(
    database: Database, release: Release, tmp_path: Path
) -> None:
    produce(database, release, 60, settings=SETTINGS)
    with database.session() as session:
        session.add(
            UserRow(
                id=1,
                name="anna",
                pseudonym="r-17",
                role="reviewer",
                password_hash="-",
                opted_out=[],
                created=START,
            )
        )
        item = session.scalars(select(ItemRow).order_by(ItemRow.id)).first()
        assert item is not None
        words = {"label": "hate", "groups": ["lgbtq"], "rationale": "it says friend"}
        act = ReviewRow(item_id=item.id, user_id=1, time=START, action="label", **words)
        session.add(act)
        session.flush()
        session.add(ReviewRow(item_id=item.id, user_id=1, time=START, action="undo", undoes=act.id))
    out = tmp_path / "decisions.jsonl"
    with database.reading() as session:
        export_decisions(session, out, release_id=release.sha256)
    assert "anna" not in out.read_text() and "it says" not in out.read_text()
    acts = [act for line in out.read_text().splitlines() for act in json.loads(line)["reviews"]]
    assert [(act["reviewer"], act["label"], act["undone"]) for act in acts] == [
        ("r-17", "hate", True)
    ]
    with pytest.raises(ConfigError), database.reading() as session:
        export_decisions(session, tmp_path / "decisions.xlsx")
