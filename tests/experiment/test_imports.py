from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.imported import bring, posts, problems, table

from evenhand.core.errors import ConfigError, DataError
from evenhand.experiment.importing.stated import agrees, parse_stated, read_stated
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import open_results
from evenhand.prompts.template import load_prompt


def test_a_second_import_adds_an_evaluation(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    more = table(tmp_path / "q.csv", posts(20))
    bring(path, tmp_path / "run", stated=(("f1", "0.8333"), ("more.f1", "0.9")))
    before = open_results(tmp_path / "run")
    assert before.stated["more.f1"]["status"] == "stated, not verified"
    bring(more, tmp_path / "run", name="more")
    after = open_results(tmp_path / "run")
    assert after.evaluation_names == ("more", "test")
    assert after.manifest["inputs_sha256"] == before.manifest["inputs_sha256"]
    assert after.inputs("more")["inputs"]["run"] == after.manifest["inputs_sha256"]
    # What was stated earlier is checked as soon as there is a file for it.
    assert after.stated["test.f1"]["status"] == "verified"
    assert after.stated["more.f1"]["status"] == "verified"
    assert set(after.manifest["imported"]["evaluations"]) == {"test", "more"}


def test_the_same_import_again_is_the_same_and_another_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    first = bring(path, tmp_path / "run")
    assert bring(path, tmp_path / "run").evaluation == first.evaluation
    rows = posts()
    rows[0]["prediction"] = "hate"
    with pytest.raises(ConfigError) as caught:
        bring(table(tmp_path / "q.csv", rows), tmp_path / "run")
    assert "holds an evaluation with other answers" in problems(caught.value)["--name"]
    with pytest.raises(ConfigError) as caught:
        bring(table(tmp_path / "r.csv", posts(20)), tmp_path / "run")
    assert "other rows and answers" in problems(caught.value)["--name"]
    assert open_results(tmp_path / "run").evaluation("test") == first.evaluation


def test_a_later_import_keeps_what_an_earlier_one_knew(tmp_path: Path) -> None:
    train = table(
        tmp_path / "train.csv", [{"text": r["text"], "label": r["label"]} for r in posts()]
    )
    path = table(tmp_path / "p.csv", posts())
    bring(path, tmp_path / "run", train=DataSource(train), stated=(("processes", "4"),))
    results = {"train_runtime": 10.0, "train_loss": 0.5}
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "all_results.json").write_text(json.dumps(results))
    bring(path, tmp_path / "run", name="second", history=tmp_path / "trained")
    bring(path, tmp_path / "run", name="third", stated=(("train_loss", "0.50"),))
    run = open_results(tmp_path / "run")
    assert run.training == {"runtime_seconds": 10.0, "train_loss": 0.5}
    assert {key: one["status"] for key, one in run.stated.items()} == {
        "processes": "stated, not verified",
        "train_loss": "verified",
    }
    assert run.manifest["data"]["train"]["rows"] == 12
    document = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert document["train_source"]["path"] == str(train)
    (tmp_path / "trained" / "all_results.json").write_text('{"train_loss": 0.4}')
    with pytest.raises(ConfigError, match="1 problem") as caught:
        bring(path, tmp_path / "run", name="fourth", history=tmp_path / "trained")
    assert set(problems(caught.value)) == {"--history"}


def test_a_later_import_takes_the_training_rows_of_the_first(tmp_path: Path) -> None:
    rows = [{"text": r["text"], "label": r["label"]} for r in posts()]
    train = table(tmp_path / "train.csv", rows)
    path = table(tmp_path / "p.csv", posts())
    bring(path, tmp_path / "run", train=DataSource(train))
    later = bring(path, tmp_path / "run", name="second")
    assert "tfidf_logreg" in later.evaluation.baselines and not later.warnings
    table(train, rows[:6])
    changed = bring(path, tmp_path / "run", name="third")
    assert set(changed.evaluation.baselines) == {"always_hate", "always_normal"}
    assert [line for line in changed.warnings if "train.csv has changed" in line]
    train.unlink()
    gone = bring(path, tmp_path / "run", name="fourth")
    assert [line for line in gone.warnings if "train.csv cannot be read again" in line]


def test_the_constants_need_no_training_rows(tmp_path: Path) -> None:
    rows = posts()
    rows[1]["prediction"] = "unknown"
    made = bring(table(tmp_path / "p.csv", rows), tmp_path / "run")
    always_hate = made.evaluation.baselines["always_hate"]
    # Over all 12 rows, also the one that the model gave no answer to.
    assert always_hate.metrics.f1.value == pytest.approx(2 * 6 / (2 * 6 + 6))
    assert set(open_results(tmp_path / "run").baselines("test")) == {"always_hate", "always_normal"}


def test_slices_beside_the_usual_ones(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    made = bring(path, tmp_path / "run", slices=(("label", "group"),))
    keys = {tuple(one.keys) for one in made.evaluation.slices}
    assert ("label", "group") in keys
    origin = open_results(tmp_path / "run").inputs("test")
    assert origin["measured"] == {"baselines": False, "slices": [["label", "group"]]}
    with pytest.raises(DataError, match="1 problem") as caught:
        bring(path, tmp_path / "other", slices=(("grup",),))
    assert 'did you mean "group"' in problems(caught.value)['slice by "grup"']
    assert not (tmp_path / "other").exists()


def write_prompt(path: Path, **words: str) -> Path:
    entry = {"system_prompt": "", "user_template": "{text}", "labels": words}
    path.write_text(json.dumps({"strategies": {"one": entry}}))
    return path


def test_the_prompt_is_kept_without_responses(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    prompt = write_prompt(tmp_path / "prompt.json", hate="yes", normal="no")
    bring(path, tmp_path / "run", prompt_file=prompt, strategy="one")
    bring(path, tmp_path / "run", name="second")
    run = open_results(tmp_path / "run")
    kept = load_prompt(tmp_path / "run" / "prompt.json")
    assert kept.labels == {"hate": "yes", "normal": "no"}
    assert run.binding.prompt == kept.sha256
    other = write_prompt(tmp_path / "other.json", hate="yes", normal="nay")
    with pytest.raises(ConfigError) as caught:
        bring(path, tmp_path / "run", name="third", prompt_file=other)
    assert set(problems(caught.value)) == {"--prompt-file"}
    # A prompt may come with a later import too.
    bring(path, tmp_path / "bare")
    bring(path, tmp_path / "bare", name="second", prompt_file=prompt)
    assert open_results(tmp_path / "bare").binding.prompt == kept.sha256


def test_an_import_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    prompt = write_prompt(tmp_path / "prompt.json", hate="yes", normal="no")
    bring(path, tmp_path / "run", prompt_file=prompt)
    (tmp_path / "run" / "manifest.json").unlink()  # it is written last
    bring(path, tmp_path / "run", prompt_file=prompt)
    assert open_results(tmp_path / "run").evaluation_names == ("test",)
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "prompt.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        bring(path, tmp_path / "trained")
    assert "holds a training that has not ended" in problems(caught.value)["--out"]


def test_a_run_that_was_trained_here_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text('{"inputs_sha256": "0"}')
    path = table(tmp_path / "p.csv", posts())
    with pytest.raises(ConfigError, match="nothing was imported"):
        bring(path, run)
    assert [one.name for one in run.iterdir()] == ["manifest.json"]


# Responses


def test_responses_are_matched_by_text_id_or_position(tmp_path: Path) -> None:
    rows = posts()
    path = table(tmp_path / "p.csv", [{"id": f"p{at}", **row} for at, row in enumerate(rows)])
    by_text = [{"text": row["text"], "raw_response": row["label"]} for row in rows[::-1][:6]]
    by_id = [{"id": f"p{at}", "raw_response": rows[at]["label"]} for at in (11, 9, 7, 6, 8, 10)]
    by_position = [{"sample_id": at, "response": rows[at]["label"]} for at in range(11, 5, -1)]
    reports = []
    for number, said in enumerate((by_text, by_id, by_position)):
        file = table(tmp_path / f"r{number}.jsonl", said)
        made = bring(path, tmp_path / f"run{number}", responses=file)
        reports.append({key: made.facts["responses"][key] for key in ("agree", "differ", "read")})
        frame = open_results(tmp_path / f"run{number}").predictions("test").frame
        stored = frame.set_index("id")["raw_response"].dropna().to_dict()
        assert stored == {f"p{at}": rows[at]["label"] for at in range(6, 12)}
    assert reports == [{"agree": 6, "differ": 0, "read": 6}] * 3


def test_reparsing_counts_what_differs_and_cannot_be_read(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    said = ['{"classification": "hate"}', "normal", "I think hate", "", "hate", None]
    file = table(
        tmp_path / "r.jsonl",
        [
            {"text": row["text"], "raw_response": raw}
            for row, raw in zip(posts(), said, strict=False)
        ],
    )
    stored = bring(path, tmp_path / "stored", responses=file)
    report = stored.facts["responses"]
    # p0 and p1 are stored the wrong way round; p4 agrees; p2 and p3 cannot be read.
    assert [report[key] for key in ("responses", "read", "agree", "differ")] == [5, 3, 1, 2]
    assert (report["label_without_reading"], report["rows_without_response"]) == (2, 7)
    assert stored.evaluation.confusion.model_dump() == {"tp": 5, "tn": 5, "fp": 1, "fn": 1}
    again = bring(path, tmp_path / "again", responses=file, labels_from="reparsed").evaluation
    assert (again.n_unparseable, again.confusion.fp, again.confusion.fn) == (2, 0, 0)


def test_label_strings_of_the_prompt_are_read(tmp_path: Path) -> None:
    words = {"hate": "yes", "normal": "no"}
    prompt = write_prompt(tmp_path / "prompt.json", **words)
    rows = [{**row, "raw_response": words[row["label"]]} for row in posts()]
    made = bring(
        table(tmp_path / "p.jsonl", rows),
        tmp_path / "run",
        prompt_file=prompt,
        labels_from="reparsed",
    )
    assert made.evaluation.metrics.accuracy.value == 1.0
    assert open_results(tmp_path / "run").binding.prompt is not None


def test_responses_of_other_rows_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    file = table(tmp_path / "r.jsonl", [{"text": "unheard of", "raw_response": "hate"}])
    with pytest.raises(DataError) as caught:
        bring(path, tmp_path / "run", responses=file)
    assert problems(caught.value) == {"line 1": "belongs to no row of the predictions"}
    with pytest.raises(ConfigError, match="1 problem"):
        bring(path, tmp_path / "run", labels_from="reparsed")
    assert not (tmp_path / "run").exists()


# Stated figures


@pytest.mark.parametrize(
    ("stated", "found", "expected"),
    [
        (0.6308, 0.6307692, True),
        (0.6308, 0.6307, False),
        (0.6308, 0.63085, True),
        (0.5, 0.5, True),
        (1, 0.93, False),
        (1, 1.0, True),
        (825, 825.3863, True),
        (23887872, 21135360, False),
        ("q_proj,v_proj", ["v_proj", "q_proj"], True),
        ('["q_proj", "v_proj"]', ["q_proj", "v_proj"], True),
        ("Cosine", "cosine", True),
        (True, False, False),
    ],
)
def test_a_stated_figure_agrees_as_far_as_it_goes(stated: Any, found: Any, expected: bool) -> None:
    assert agrees(stated, found) is expected


@given(st.floats(1e-3, 1e4), st.integers(1, 6))
def test_every_rounding_of_a_figure_verifies_it(found: float, digits: int) -> None:
    (stated,) = parse_stated([("x", f"{found:.{digits}f}")]).values()
    assert agrees(stated, found)


def test_files_of_stated_figures(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"f1": 0.6308, "validation": {"f1": "0.6852"}, "x": null}')
    assert read_stated(tmp_path / "a.json", strategy=None) == {
        "f1": 0.6308,
        "validation.f1": 0.6852,
    }
    (tmp_path / "b.csv").write_text("strategy,f1_score,lgbtq_fpr\nshort,0.5,0.25\nlong,0.6,0.35\n")
    assert read_stated(tmp_path / "b.csv", strategy="long") == {"f1_score": 0.6, "lgbtq_fpr": 0.35}
    with pytest.raises(ConfigError):
        read_stated(tmp_path / "b.csv", strategy=None)
    with pytest.raises(ConfigError):
        read_stated(tmp_path / "b.csv", strategy="other")
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(ConfigError):
        read_stated(tmp_path / "c.json", strategy=None)


def test_stated_figures_of_groups_and_of_nothing_known(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    claims = {
        "a.fpr": "0.5",
        "a_fpr": "50%",
        "test.a.samples": "5",
        "roc_auc": "0.7",
        "train_loss": "0.5",
    }
    made = bring(path, tmp_path / "run", stated=tuple(claims.items()))
    assert {key: one["status"] for key, one in made.stated.items()} == {
        "test.a.fpr": "contradicted",
        "test.a.n": "contradicted",
        "test.roc_auc": "stated, not verified",  # there are no scores
        "train_loss": "stated, not verified",
    }
    assert made.stated["test.a.n"]["found"] == 4


def test_a_named_response_column_is_the_responses_own(tmp_path: Path) -> None:
    rows = [{**row, "response": "the table's own"} for row in posts()]
    file = table(tmp_path / "r.jsonl", [{"text": rows[0]["text"], "said": "hate"}])
    made = bring(
        table(tmp_path / "p.csv", rows),
        tmp_path / "run",
        columns={"response": "said"},
        responses=file,
    )
    assert made.facts["responses"]["responses"] == 1
    assert made.facts["responses"]["differ"] == 1


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"f1": "high"}, 'f1: "high" is not a number'),
        ({"processes": "four"}, '"four" is not a number'),
        ({"learning_rate": "low"}, '"low" is not a number'),
        ({"recal": "0.5"}, '"recal" is not a figure that is known here; did you mean "recall"?'),
        ({"train_row": "5"}, 'did you mean "train_rows"?'),
        ({"lgbqt.fpr": "0.5"}, 'did you mean "lgbtq"?'),
        ({"lgbqt_fpr": "0.5"}, 'did you mean "lgbtq_fpr"?'),
        ({"test.women.fpr": "0.5"}, 'test has no group "women"; it has: lgbtq'),
        ({"f1": "0.8", "test.f1": "0.9"}, "test.f1 is stated twice: 0.8 and 0.9"),
    ],
)
def test_mistakes_in_stated_figures(tmp_path: Path, stated: dict[str, str], said: str) -> None:
    path = table(tmp_path / "p.csv", [{**row, "group": "lgbtq"} for row in posts()])
    with pytest.raises(ConfigError) as caught:
        bring(path, tmp_path / "run", name="test", stated=tuple(stated.items()))
    assert said in caught.value.render()
    with pytest.raises(ConfigError, match="2 problems") as caught:  # with those of the files
        none = tmp_path / "none.json"
        bring(path, tmp_path / "run", config=none, stated=tuple(stated.items()))
    assert said in caught.value.render() and not (tmp_path / "run").exists()


def test_stated_figures_that_agree_or_come_later_are_no_mistakes(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    claims = (("f1", "0.8333"), ("f1_score", "0.83"), ("later.f1", "0.5"), ("optim", "adam"))
    made = bring(path, tmp_path / "run", stated=claims)
    assert [line for line in made.warnings if '"later" is neither an evaluation nor' in line]


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    rows = posts()
    rows[1]["text"], rows[4]["text"] = "", "  "
    made = bring(table(tmp_path / "p.csv", rows), tmp_path / "run")
    said = "test: 2 rows of the predictions have an empty text (line 3, line 6)"
    assert said in made.warnings


def test_predictions_in_another_encoding_have_one_problem(tmp_path: Path) -> None:
    lines = "text,label,prediction\n" + "sch\u00f6n,hate,hate\n" * 3
    (tmp_path / "p.csv").write_bytes(lines.encode("latin-1"))
    with pytest.raises(DataError, match="1 problem") as caught:
        bring(tmp_path / "p.csv", tmp_path / "run")
    assert "save the file as UTF-8 (3 rows, first line 2)" in problems(caught.value)["the file"]
