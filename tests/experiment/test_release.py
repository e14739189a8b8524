"""What is checked and proved before a run is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiment.released import (
    criteria,
    edit,
    flip_byte,
    make_gated_run,
    remove,
    zero_adapter,
)
from tests.tiny_experiments import (
    edit_json,
    make_posts,
    quiet,
    tiny_bert,
    tiny_llama,
    write_csv,
    write_phase,
)

from evenhand.cli.main import run as run_command
from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import ConfigError
from evenhand.core.paths import read_json
from evenhand.experiment.releasing import golden as golden_module
from evenhand.experiment.releasing.address import check_exposure
from evenhand.experiment.releasing.describe import describe_release, render_release, warnings_of
from evenhand.experiment.releasing.golden import golden_posts, read_golden
from evenhand.experiment.releasing.problems import Acceptance, check_acceptance
from evenhand.experiment.releasing.release import (
    STARTS,
    PreparedRelease,
    prepare_release,
    record_start,
)
from evenhand.experiment.releasing.verify import check_run
from evenhand.experiment.runs import open_run
from evenhand.finetune.classifier import load_classifier
from evenhand.watch.store.database import open_database
from evenhand.watch.store.intake import Intake
from evenhand.watch.store.proposer import load_proposer
from evenhand.watch.store.tables import ReleaseRow, StartRow

__all__ = ["quiet", "tiny_bert", "tiny_llama"]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NO_ADAPTER = dict.fromkeys(("lora_r", "lora_alpha", "lora_target_modules"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return make_gated_run(tmp_path_factory.mktemp("gated"), tiny_llama)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of a run with the verdict PASS WITH CONDITIONS, and of its base model."""
    folder = tmp_path / "small"
    shutil.copytree(made, folder)
    base = made.parent / "llama"
    shutil.copytree(base, tmp_path / "llama")
    change = {"model_name_or_path": str(tmp_path / "llama")}
    edit("config.json", lambda document: document["config"].update(change))(folder)
    return folder


def codes(error: ConfigError) -> list[str]:
    return [one.place for one in error.problems]


def refused(run: Path, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare_release(run, **options)
    return caught.value


# What is served


def test_a_judged_run_is_served_as_it_was_judged(run: Path) -> None:
    prepared = prepare_release(run)
    release, readiness = prepared.release, prepared.readiness
    threshold = read_json(run / "threshold.json")
    assert (release.model, release.outcome, release.overrides) == (
        "small",
        "PASS WITH CONDITIONS",
        (),
    )
    assert release.threshold == threshold["value"]
    assert release.temperature == threshold["calibration"]["temperature"]
    assert release.binding.model_dump() == threshold["binding"]
    assert release.deployment is not None
    assert release.deployment.conditions[0]["owner"] == "safety"
    assert readiness.golden_rows == len(golden_posts())
    assert readiness.golden_max_difference <= 1e-6
    assert readiness.golden_tolerance == 1e-3
    assert readiness.adapter_difference is not None
    assert readiness.adapter_difference > readiness.golden_tolerance
    text = render_release(prepared, "http://127.0.0.1:8000")
    for part in ("PASS WITH CONDITIONS", "safety", "switched off", "http://127.0.0.1:8000/review"):
        assert part in text
    assert json.loads(json.dumps(describe_release(prepared, None)))["url"] is None
    assert warnings_of(release) == ()


def test_the_reference_is_the_evaluation_that_was_judged(run: Path) -> None:
    prepared = prepare_release(run)
    measured = read_json(run / "threshold_report.json")["after"]
    assert (prepared.reference["set"], prepared.reference["n"]) == ("production", 12)
    negatives = measured["fp"] + measured["tn"]
    assert prepared.reference["fpr"][""] == pytest.approx(measured["fp"] / negatives)
    assert {"lgbtq", "mexican", "middle_east"} <= set(prepared.reference["fpr"])


def test_the_scorer_gives_the_scores_of_the_evaluation(run: Path) -> None:
    prepared = prepare_release(run)
    found = open_run(run)
    classifier = load_classifier(run, found.config, found.prompt)
    posts = golden_posts()
    expected = classifier.score(posts)
    assert np.abs(prepared.scorer([row.text for row in posts]) - expected).max() < 1e-6
    # In another composition, and a text far longer than the model takes.
    one = prepared.scorer([posts[3].text])
    assert one == pytest.approx(expected[3:4], abs=1e-5)
    assert 0 <= prepared.scorer(["all neighbours " * 60_000])[0] <= 1


def test_without_the_adapter_the_base_answers(run: Path) -> None:
    found = open_run(run)
    classifier = load_classifier(run, found.config, found.prompt)
    bare_config = found.config.model_copy(update={"tuning": "none"})
    posts = golden_posts()
    expected = load_classifier(run, bare_config, found.prompt).score(posts)
    before = classifier.score(posts)
    with classifier.without_adapter() as bare:
        assert bare.score(posts) == pytest.approx(expected, abs=1e-6)
    assert classifier.score(posts) == pytest.approx(before, abs=1e-9)


# Golden rows


def test_golden_posts_are_every_group_and_label_and_some_awkward_ones() -> None:
    posts = golden_posts()
    by_kind = {(row.groups, row.label) for row in posts}
    groups = {row.groups[0] for row in posts if row.groups}
    assert all(((group,), label) in by_kind for group in groups for label in ("hate", "normal"))
    awkward = {row.id: row.text for row in posts if row.label is None}
    assert "<|im_end|>" in awkward["awkward-special"]
    assert "\u202e" in awkward["awkward-right-to-left"]
    assert len(awkward["awkward-long"]) > 2000
    assert len({row.id for row in posts}) == len(posts)


def test_an_evaluation_writes_golden_rows_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = read_golden(run)
    assert golden is not None
    assert golden.binding.model_dump() == read_json(run / "threshold.json")["binding"]
    assert all(row.base_score is not None for row in golden.rows)
    before = (run / "golden.json").read_bytes()
    monkeypatch.setattr(golden_module, "golden_posts", lambda: pytest.fail("scored again"))
    data = write_csv(tmp_path / "more.csv", make_posts(8, seed=30))
    assert run_command(["evaluate", str(run), "--data", str(data), "--name", "more"]) == 0
    assert (run / "golden.json").read_bytes() == before


@pytest.mark.parametrize("spoil", [remove("golden.json"), lambda run: zero_adapter(run)])
def test_golden_rows_of_another_model_are_made_anew(
    run: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(run)
    data = write_csv(tmp_path / "more.csv", make_posts(8, seed=30))
    assert run_command(["evaluate", str(run), "--data", str(data), "--name", "more"]) == 0
    golden, found = read_golden(run), open_run(run)
    assert golden is not None
    there = load_classifier(run, found.config, found.prompt).score(golden.posts)
    assert golden.scores == pytest.approx(there, abs=1e-6)


# Problems


def spoil_adapter(run: Path) -> None:
    flip_byte(run / "adapter" / "adapter_model.safetensors", bit=0x01)


def spoil_base(run: Path) -> None:
    flip_byte(run.parent / "llama" / "model.safetensors", at=-2, bit=0x40)


def set_prompt(document: dict[str, Any]) -> None:
    next(iter(document["strategies"].values()))["system_prompt"] = "Say something."


def set_score(document: dict[str, Any]) -> None:
    document["rows"][4]["score"] = 1.0 - document["rows"][4]["score"]


def set_weights(document: dict[str, Any]) -> None:
    document["weights"] = "0" * 64


STALE = {"threshold_stale", "gate_stale", "golden_stale"}
TAMPERINGS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "adapter": (spoil_adapter, {"adapter_changed", *STALE}),
    "prompt": (edit("prompt.json", set_prompt), {"prompt_changed", *STALE, "golden_differs"}),
    "base": (spoil_base, {"base_changed"}),
    "threshold": (edit("threshold.json", lambda d: d.update(value=0.9)), {"gate_stale"}),
    "rows": (
        edit("evaluations/production/inputs.json", lambda d: d["inputs"].update(rows="x")),
        {"gate_stale"},
    ),
    "fitted rows": (
        edit("evaluations/validation/inputs.json", lambda d: d["inputs"].update(rows="x")),
        {"threshold_stale", "gate_stale"},
    ),
    "verdict": (
        edit("gate.json", lambda d: d.update(outcome="FAIL")),
        {"gate_failed", "deployment_stale"},
    ),
    "status": (
        edit("deployment.json", lambda d: d.update(status="rejected")),
        {"gate_failed"},
    ),
    "duty of another threshold": (
        edit("deployment.json", lambda d: d.update(threshold=0.1)),
        {"deployment_stale"},
    ),
    "vacuous": (
        edit("gate.json", lambda d: d.update(vacuous=["always_hate"])),
        {"gate_vacuous"},
    ),
    "no gate": (remove("gate.json"), {"gate_missing"}),
    "no deployment": (remove("deployment.json"), {"deployment_missing"}),
    "no golden rows": (remove("golden.json"), {"golden_missing"}),
    "golden score": (edit("golden.json", set_score), {"golden_differs"}),
    "golden of others": (edit("golden.json", set_weights), {"golden_stale"}),
    "inert adapter": (zero_adapter, {"adapter_changed", *STALE, "adapter_inert"}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_each_tampering_has_its_code(run: Path, name: str) -> None:
    spoil, expected = TAMPERINGS[name]
    spoil(run)
    error = refused(run)
    may_differ = {"golden_differs"}  # whether a changed weight moves a score is chance
    assert expected <= set(codes(error)) <= expected | may_differ
    assert error.exit_code == 2
    text = error.render()
    for code in expected:
        assert f"--accept {code}" in text
    # Accepted by name, the same run is served, and each is recorded with its reason.
    accepted = Acceptance(tuple(dict.fromkeys(codes(error))), "a drill")
    release = prepare_release(run, acceptance=accepted).release
    assert {one.code for one in release.overrides} == set(accepted.codes)
    assert {one.reason for one in release.overrides} == {"a drill"}


def test_everything_is_told_at_once(run: Path) -> None:
    for name in ("adapter", "prompt", "base", "no gate", "golden score"):
        TAMPERINGS[name][0](run)
    found = set(codes(refused(run)))
    assert found == {
        "adapter_changed",
        "prompt_changed",
        "base_changed",
        "threshold_stale",
        "gate_missing",
        "golden_stale",
        "golden_differs",
    }


def test_what_is_not_accepted_stays_a_problem(run: Path) -> None:
    for name in ("no gate", "golden score"):
        TAMPERINGS[name][0](run)
    error = refused(run, acceptance=Acceptance(("gate_missing",), "a drill"))
    assert codes(error) == ["golden_differs"]
    assert "--accept gate_missing --accept golden_differs" in error.render()


@pytest.mark.parametrize(
    ("acceptance", "told"),
    [
        (Acceptance(("gate_fialed",), "x"), 'did you mean "gate_failed"?'),
        (Acceptance(("gate_failed",), None), "--reason"),
        (Acceptance(("gate_failed",), "  "), "--reason"),
        (Acceptance((), "x"), "nothing is accepted"),
        (Acceptance(("run_imported",), "x"), "cannot be accepted"),
    ],
)
def test_a_wrong_acceptance_is_refused_before_anything_is_read(
    acceptance: Acceptance, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_acceptance(acceptance)
    assert told in caught.value.render()


def test_an_acceptance_of_what_is_no_problem_is_refused(run: Path) -> None:
    TAMPERINGS["no gate"][0](run)
    error = refused(run, acceptance=Acceptance(("gate_missing", "gate_stale"), "x"))
    assert '"gate_stale" is no problem of this run' in error.render()
    assert 'did you mean "gate_missing"?' in error.render() or "it has: gate_missing" in (
        error.render()
    )


def test_a_stale_threshold_that_is_accepted_is_the_one_served(run: Path) -> None:
    TAMPERINGS["threshold"][0](run)
    release = prepare_release(run, acceptance=Acceptance(("gate_stale",), "retuned")).release
    assert (release.threshold, release.outcome, release.deployment) == (0.9, None, None)


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        ({"at_least": 0.6, "judged_on": "lower"}, "REVIEW"),
        ({"at_least": 0.999}, "FAIL"),
    ],
)
def test_review_warns_and_fail_refuses(
    run: Path, tmp_path: Path, entry: dict[str, Any], outcome: str
) -> None:
    path = criteria(tmp_path / "other.json", {"name": "F1", "metric": "f1", **entry})
    run_command(["gate", str(run), "--on", "production", "--criteria", str(path)])
    assert read_json(run / "gate.json")["outcome"] == outcome
    if outcome == "FAIL":
        assert codes(refused(run)) == ["gate_failed"]
        accepted = prepare_release(run, acceptance=Acceptance(("gate_failed",), "a drill"))
        assert accepted.release.outcome == "FAIL"
        return
    release = prepare_release(run).release
    assert [one.code for one in release.overrides] == ["gate_review"]
    assert "needs no acceptance" in release.overrides[0].reason
    assert "REVIEW" in warnings_of(release)[0]
    asked = prepare_release(run, acceptance=Acceptance(("gate_review",), "a pilot"))
    assert asked.release.overrides[0].reason == "a pilot"
    assert asked.release.sha256 == release.sha256


def test_what_has_no_model_is_refused_for_good(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    error = refused(run)
    assert codes(error) == ["run_unfinished"]
    assert "--accept" not in error.render()
    predictions = tmp_path / "answers.csv"
    predictions.write_text("id,text,label,score\n1,kind,normal,0.1\n2,thrown,hate,0.9\n")
    imported = tmp_path / "imported"
    command = ["import", "--predictions", str(predictions), "--name", "test"]
    assert run_command([*command, "--out", str(imported)]) == 0
    assert codes(refused(imported)) == ["run_imported"]
    with pytest.raises(ConfigError, match="1 problem"):
        check_run(tmp_path)


def test_what_cannot_be_loaded_is_told_beside_the_rest(run: Path) -> None:
    (run / "gate.json").unlink()
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert {"gate_missing", "adapter_changed", "cannot_load"} <= set(codes(refused(run)))
    assert "put the files of the training back" in refused(run).render()
    (run / "threshold.json").write_text("{")
    assert codes(refused(run)) == ["damaged"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("full", "fully tuned weights"), ("none", "no adapter"), ("bert", "switched off")],
)
def test_every_kind_of_model(
    kind: str, words: str, tmp_path: Path, tiny_llama: Path, tiny_bert: Path
) -> None:
    changes = {} if kind == "bert" else {**NO_ADAPTER, "tuning": kind}
    phase = write_phase(tmp_path, tiny_bert if kind == "bert" else tiny_llama, **changes)
    path = tmp_path / "run"
    assert run_command(["train", str(phase), "--out", str(path)]) == 0
    data = write_csv(tmp_path / "test.csv", make_posts(8, seed=30))
    assert run_command(["evaluate", str(path), "--data", str(data), "--name", "test"]) == 0
    accepted = Acceptance(("gate_missing",), "a test")
    prepared = prepare_release(path, acceptance=accepted)
    assert words in prepared.readiness.adapter_proof
    assert prepared.readiness.golden_max_difference < 1e-6
    assert (prepared.readiness.adapter_difference is None) == (kind != "bert")
    assert (prepared.release.threshold, prepared.release.temperature) == (0.5, None)
    if kind == "full":
        weights = path / "model" / "model.safetensors"
        flip_byte(weights, at=-2, bit=0x40)
        error = refused(path, acceptance=accepted)
        assert {"weights_changed", "golden_stale"} <= set(codes(error))


def test_the_tolerance_can_be_set(run: Path) -> None:
    def nudge(document: dict[str, Any]) -> None:
        document["rows"][0]["score"] += 5e-4

    edit("golden.json", nudge)(run)
    assert prepare_release(run).readiness.golden_max_difference == pytest.approx(5e-4, abs=1e-6)
    assert codes(refused(run, tolerance=1e-4)) == ["golden_differs"]


# Records


def start(prepared: PreparedRelease, path: Path) -> None:
    settings = ProductionConfig()
    database = open_database(f"sqlite:///{path / 'production.sqlite'}")
    try:
        record_start(prepared, now=NOW, where="http://127.0.0.1:1", database=database.shown)
        intake = Intake(
            database,
            prepared.release,
            settings,
            load_proposer("terms", settings.watch.groups),
            rng=np.random.default_rng(0),
            text_key=None,
        )
        intake.start(NOW, reference=prepared.reference, versions=prepared.versions)
        with database.session() as session:
            (row,) = session.query(ReleaseRow).all()
            starts = session.query(StartRow).all()
            assert row.id == prepared.release.sha256
            assert row.reference["set"] == "production"
            overrides = [json.loads(one) for one in starts[-1].overrides]
            assert overrides == [one.model_dump() for one in prepared.release.overrides]
    finally:
        database.close()


def test_each_start_is_recorded_with_what_was_overridden(run: Path) -> None:
    start(prepare_release(run), run)
    edit_json(run / "deployment.json", threshold=0.1)
    start(prepare_release(run, acceptance=Acceptance(("deployment_stale",), "a drill")), run)
    lines = [json.loads(line) for line in (run / STARTS).read_text().splitlines()]
    assert [[one["code"] for one in line["overrides"]] for line in lines] == [
        [],
        ["deployment_stale"],
    ]
    assert lines[1]["overrides"][0]["reason"] == "a drill"
    assert lines[0]["release"] == lines[1]["release"]
    assert lines[0]["time"] == "2026-11-23T12:00:00+00:00"


def test_only_loopback_is_served_without_keys() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(host, has_keys=False, database="sqlite:///x")
    check_exposure("0.0.0.0", has_keys=True, database="sqlite:///x")
    with pytest.raises(ConfigError) as caught:
        check_exposure("0.0.0.0", has_keys=False, database="sqlite:///x")
    assert "evenhand keys add NAME --database sqlite:///x" in caught.value.render()
