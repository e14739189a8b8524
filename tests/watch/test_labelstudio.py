from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from tests.watch.reviewing import (
    NOW,
    add_items,
    add_known,
    cheap_passwords,
    person,
    say,
    state,
)

from evenhand.core.errors import DataError
from evenhand.core.paths import sha256_text
from evenhand.core.records import LABELS
from evenhand.watch.reviewing.annotations import read_annotations
from evenhand.watch.reviewing.labelstudio import (
    Imported,
    export_tasks,
    import_annotations,
    labelling_config,
    watched_groups,
)
from evenhand.watch.reviewing.queue import adjudicate, history
from evenhand.watch.reviewing.users import Login
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import PostRow, StartRow

__all__ = ["cheap_passwords"]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as opened:
        yield opened


@pytest.fixture
def anna(session: Session) -> Login:
    return person(session, "anna")


def result(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return one result as Label Studio writes it."""
    return {
        "id": "Dx_aB91ISN",
        "from_name": name,
        "to_name": "text",
        "type": kind,
        "origin": "manual",
        "value": value,
    }


def annotation(
    label: str = "hate", groups: tuple[str, ...] = (), rationale: str | None = None, who: Any = 1
) -> dict[str, Any]:
    results = [result("label", "choices", {"choices": [label]})]
    if groups:
        results.append(result("groups", "choices", {"choices": list(groups)}))
    if rationale:
        results.append(result("rationale", "textarea", {"text": [rationale]}))
    return {"id": 1001, "completed_by": who, "was_cancelled": False, "result": results}


def labelled(tasks: list[dict[str, Any]], *given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return tasks as they come back, the first ones annotated; Label Studio numbers them anew."""
    back = copy.deepcopy(tasks)
    for number, task in enumerate(back):
        task["id"] = 5000 + number
        task["project"] = 7
    for task, one in zip(back, given, strict=False):
        task["annotations"] = [*task["annotations"], one]
    return back


def bring(
    session: Session, tmp_path: Path, tasks: Any, login: Login, *, annotator: str | None = None
) -> Imported:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    read = read_annotations(path, annotator=annotator)
    return import_annotations(session, read, login.user, now=NOW)


class TestExport:
    def test_a_task_for_each_post_that_waits(self, session: Session) -> None:
        (item,) = add_items(session, proposed=["lgbtq"])
        assert export_tasks(session) == [
            {
                "id": item,
                "data": {
                    "text": "post number 0",
                    "post": "post-00000",
                    "proposed": ["lgbtq"],
                    "text_sha256": sha256_text("post number 0"),
                },
                "annotations": [],
                "predictions": [],
            }
        ]

    def test_reviews_stand_under_pseudonyms(self, session: Session, anna: Login) -> None:
        add_items(session, needed=2)
        say(session, anna, "hate", ["women"])
        say(session, person(session, "ben"), "normal")
        zoe = person(session, "zoe", role="admin")
        adjudicate(session, zoe.user, 1, label="hate", groups=["women"], reason="policy", now=NOW)
        (task,) = export_tasks(session)
        truth = [one["ground_truth"] for one in task["annotations"]]
        assert truth == [False, False, True]
        first = task["annotations"][0]["result"]
        assert first[0]["value"] == {"choices": ["hate"]}
        assert first[0]["meta"] == {"text": [anna.user.pseudonym]}
        assert first[1]["value"] == {"choices": ["women"]}
        assert "anna" not in json.dumps(task)
        # Label Studio refuses annotators that it does not know.
        assert all("completed_by" not in one for one in task["annotations"])

    def test_a_first_review_is_hidden_from_the_second_reviewer(
        self, session: Session, anna: Login
    ) -> None:
        add_items(session, needed=2)
        say(session, anna)
        assert export_tasks(session)[0]["annotations"] == []

    def test_golden_items_and_erased_posts_stay_out(self, session: Session) -> None:
        add_items(session, 2)
        add_known(session, 3)
        session.execute(update(PostRow).where(PostRow.id == "post-00000").values(text=None))
        assert [task["data"]["post"] for task in export_tasks(session)] == ["post-00001"]

    def test_the_labelling_configuration_names_the_fields_of_the_tasks(
        self, session: Session
    ) -> None:
        config = ElementTree.fromstring(labelling_config(["lgbtq", 'a "b" <c>']))
        names = {one.get("name"): one for one in config.iter() if one.get("name")}
        assert list(names) == ["text", "label", "groups", "rationale"]
        assert names["text"].get("value") == "$text"
        assert all(one.get("toName") == "text" for name, one in names.items() if name != "text")
        choices = {name: [c.get("value") for c in one] for name, one in names.items()}
        assert choices["label"] == list(LABELS)
        assert choices["groups"] == ["lgbtq", 'a "b" <c>']
        assert watched_groups(session) == ("lgbtq", "mexican", "middle_east")

    def test_the_groups_are_those_that_the_server_watches(self, session: Session) -> None:
        add_items(session)
        row = StartRow(
            release_id="r" * 64,
            time=NOW,
            settings={"watch": {"groups": ["women"]}},
            overrides=[],
            proposer={},
            versions={},
        )
        session.add(row)
        session.flush()
        assert watched_groups(session) == ("women",)


class TestImport:
    def test_annotations_become_reviews(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        items = add_items(session, 3)
        back = labelled(
            export_tasks(session),
            annotation("hate", ("women", "lgbtq"), "a threat"),
            annotation("normal"),
        )
        found = bring(session, tmp_path, back, anna)
        assert found == Imported(added=2)
        assert state(session, items[0]) == ("done", "hate", ["lgbtq", "women"])
        assert state(session, items[1]) == ("done", "normal", [])
        assert state(session, items[2])[0] == "open"
        act = history(session, item_id=items[0])[0]
        assert (act.action, act.reviewer) == ("import", anna.user.pseudonym)
        assert act.rationale == "a threat"

    def test_a_second_time_adds_nothing(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        add_items(session, 2, needed=2)
        back = labelled(export_tasks(session), annotation("hate"), annotation("normal"))
        assert bring(session, tmp_path, back, anna) == Imported(added=2)
        assert bring(session, tmp_path, back, anna) == Imported(already=2)
        assert len(history(session)) == 2

    def test_our_own_annotations_are_not_somebody_elses_reviews(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        add_items(session, 1, needed=2)
        say(session, anna, "hate")
        say(session, person(session, "ben"), "normal")
        carl = person(session, "carl")
        assert bring(session, tmp_path, export_tasks(session), carl) == Imported(ours=2)

    def test_an_import_counts_as_one_of_two_reviews(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        (item,) = add_items(session, needed=2)
        back = labelled(export_tasks(session), annotation("hate"))
        say(session, person(session, "ben"), "normal")
        bring(session, tmp_path, back, anna)
        assert state(session, item)[0] == "disputed"

    def test_what_others_settled_or_what_was_erased_meanwhile_is_left_out(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        add_items(session, 3)
        back = labelled(export_tasks(session), *(annotation("hate") for _ in range(3)))
        say(session, person(session, "ben"), "normal")
        session.execute(update(PostRow).where(PostRow.id == "post-00001").values(text=None))
        found = bring(session, tmp_path, back, anna)
        assert found == Imported(added=1, settled=1, erased=1)

    def test_every_problem_at_once_and_nothing_imported(
        self, session: Session, database: Database, tmp_path: Path, anna: Login
    ) -> None:
        add_items(session, 8)
        tasks = export_tasks(session)
        session.commit()
        back = labelled(
            tasks,
            annotation("hate"),
            annotation("hate"),
            annotation("offensive"),
            annotation("hate", ("",)),
            {"completed_by": 1, "result": []},
            annotation("hate"),
            annotation("hate"),
        )
        back[1]["data"]["text"] += "!"
        back[5]["data"]["post"] = "elsewhere"
        del back[6]["data"]["post"]
        back[7] = "no task"  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError) as error, database.session() as other:
            bring(other, tmp_path, back, anna)
        places = {problem.place for problem in error.value.problems}
        assert places == {
            "[1].annotations[0]",
            "[2].annotations[0].label",
            "[3].annotations[0].groups",
            "[4].annotations[0]",
            "[5].annotations[0]",
            "[6].annotations[0]",
            "[7]",
        }
        assert "nothing was imported" in error.value.render()
        assert "post number" not in error.value.render()
        with database.session() as other:
            assert history(other) == []

    @pytest.mark.parametrize("text", ["changed", "\ud800", 7, None])
    def test_another_text_is_refused(
        self, session: Session, tmp_path: Path, anna: Login, text: object
    ) -> None:
        add_items(session)
        back = labelled(export_tasks(session), annotation("hate"))
        back[0]["data"]["text"] = text
        with pytest.raises(DataError):
            bring(session, tmp_path, back, anna)

    def test_a_changed_hash_is_refused(self, session: Session, tmp_path: Path, anna: Login) -> None:
        add_items(session)
        back = labelled(export_tasks(session), annotation("hate"))
        back[0]["data"]["text_sha256"] = "0" * 64
        with pytest.raises(DataError, match="1 problem"):
            bring(session, tmp_path, back, anna)

    def test_a_file_holds_one_persons_answers(
        self, session: Session, tmp_path: Path, anna: Login
    ) -> None:
        add_items(session)
        (task,) = labelled(export_tasks(session), annotation("hate", who=1))
        task["annotations"].append(annotation("normal", who={"id": 2, "email": "b@example.org"}))
        with pytest.raises(DataError) as error, session.begin_nested():
            bring(session, tmp_path, [task], anna)
        assert "one person's answers" in error.value.render()
        found = bring(session, tmp_path, [task], anna, annotator="b@example.org")
        assert found == Imported(added=1, others=1)
        assert history(session)[0].label == "normal"

    def test_skipped_tasks_are_counted(self, session: Session, tmp_path: Path, anna: Login) -> None:
        add_items(session)
        skipped = {"completed_by": 1, "was_cancelled": True, "result": []}
        found = bring(session, tmp_path, labelled(export_tasks(session), skipped), anna)
        assert found == Imported(cancelled=1)

    def test_the_flat_form(self, session: Session, tmp_path: Path, anna: Login) -> None:
        items = add_items(session, 3)
        tasks = [task["data"] for task in export_tasks(session)]
        flat = [
            {**tasks[0], "label": "hate", "groups": "women", "annotation_id": 1, "annotator": 1},
            {**tasks[1], "label": "normal", "groups": {"choices": ["lgbtq", "women"]}},
            {**tasks[2], "id": 3},
        ]
        flat[0]["rationale"] = ["first", "second"]
        assert bring(session, tmp_path, flat, anna) == Imported(added=2)
        assert state(session, items[0]) == ("done", "hate", ["women"])
        assert state(session, items[1]) == ("done", "normal", ["lgbtq", "women"])
        assert history(session, item_id=items[0])[0].rationale == "first\nsecond"

    @pytest.mark.parametrize(
        "content", ["{", "{}", '"x"', "[[]]", '[{"data": 1}]', '[{"data": {}, "annotations": 1}]']
    )
    def test_files_that_are_no_export(
        self, session: Session, tmp_path: Path, anna: Login, content: str
    ) -> None:
        path = tmp_path / "wrong.json"
        path.write_text(content)
        with pytest.raises(DataError):
            import_annotations(session, read_annotations(path), anna.user, now=NOW)
