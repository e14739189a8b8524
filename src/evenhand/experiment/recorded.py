"""What an audit looks at in finished run folders: one or several, trained here or imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import InputError, StorageError
from evenhand.core.paths import read_json
from evenhand.core.records import Dataset
from evenhand.decide.audit.inputs import (
    ROLES,
    AuditEvaluation,
    AuditInputs,
    AuditPhase,
    AuditSet,
    Role,
)
from evenhand.experiment.deciding import read_decisions
from evenhand.experiment.importing.answers import answered_rows
from evenhand.experiment.inputs import DataSource, rows_sha256
from evenhand.experiment.phase_facts import COUNTED, PhaseFacts, audit_phase
from evenhand.experiment.production import BOOK, read_uses
from evenhand.experiment.remaking import ChangedRowsError, remake
from evenhand.experiment.results import Results
from evenhand.experiment.runs import open_run
from evenhand.prompts.template import PromptTemplate, load_prompt

_TRAIN = "train"
_NOT_KNOWN = "not known"
"""Names no training set: a run's own is not known, and that of another run is not its own."""


def audit_inputs(
    results: Sequence[Results],
    *,
    sets: Sequence[AuditSet],
    prompt: PromptTemplate | None,
    roles: Mapping[str, Role],
) -> AuditInputs:
    """Gather what an audit looks at from finished run folders.

    The data files that the folders name are read again where they are still there and unchanged.
    Files that runs share are one set; unlike files of one name are told apart by the run's.

    Args:
        results: the runs.
        sets: further data files; with training files among them, the folders' are not read.
        prompt: the prompt of the evaluations, where a folder has none.
        roles: what evaluation sets are for; a set whose name is a role has that one.
    """
    known = _Sets({one.name: (None, one) for one in sets})
    given = [one for one in sets if one.role == "train"]
    phases, evaluations = [], []
    known_roles: dict[str, Role] = {**{role: role for role in ROLES}, **roles}
    books = dict.fromkeys(one.path.resolve().parent.parent / BOOK for one in results)
    uses = [use for book in books for use in read_uses(book)]
    for one in results:
        train = given[0] if given else known.add_training(one)
        phases.append(_phase(one, train, prompt=prompt, trains_on_all=bool(given)))
        for name in one.evaluation_names:
            role = known_roles.get(name, "test")
            made_from = one.inputs(name)
            label = known.add_evaluation(one, name, made_from, role=role)
            evaluations.append(AuditEvaluation(one.name, label, one.evaluation(name)))
            if one.is_imported and role == "production":
                rows = made_from["inputs"]["rows"]
                run = one.manifest["inputs_sha256"]
                uses.append({"set": label, "rows": rows, "run": run, "phase": one.name})
    return AuditInputs(
        sets=known.sets,
        phases=tuple(phases),
        evaluations=tuple(evaluations),
        verdicts=tuple(
            verdict for one in results if (verdict := read_decisions(one).verdict) is not None
        ),
        uses=tuple(uses),
        imported={
            one.name: {**one.manifest["imported"], "stated": one.stated}
            for one in results
            if one.is_imported
        },
    )


@dataclass
class _Sets:
    """Data sets by the names that an audit calls them, each with what tells its rows apart.

    The set is None where its file is gone or has changed.
    """

    found: dict[str, tuple[str | None, AuditSet | None]] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[AuditSet, ...]:
        return tuple(one for _, one in self.found.values() if one is not None)

    def add_training(self, results: Results) -> AuditSet | None:
        """Add the training rows of a run, if they are known."""
        source = read_json(results.path / "config.json").get("train_source")
        if source is None:
            return None
        recorded = (results.manifest.get("data") or {}).get("train") or {}
        if results.is_imported:
            data = _read_again(lambda: DataSource.from_json(source).read(_TRAIN))
        else:
            data = _read_again(lambda: _training_rows(results))
        if data is None or data.sha256 != recorded.get("sha256"):
            return None
        name = self._name(_TRAIN, results, rows_sha256(data))
        return self._add(name, rows_sha256(data), lambda: AuditSet(name, "train", data))

    def add_evaluation(
        self, results: Results, name: str, made_from: Mapping[str, Any], *, role: Role
    ) -> str:
        """Add the rows that a run was evaluated on, and return what they are called."""
        rows = made_from["inputs"]["rows"]
        label = self._name(name, results, rows)

        def read() -> AuditSet | None:
            data = _evaluated_rows(results, name, made_from)
            return None if data is None else AuditSet(label, role, data)

        self._add(label, rows, read)
        return label

    def _name(self, name: str, results: Results, rows: str) -> str:
        """Return a set's name, with the run's where another set has it; files given keep theirs."""
        before = self.found.get(name)
        same = before is None or before[0] in (None, rows)
        return name if same else f"{name} of {results.name}"

    def _add(self, name: str, rows: str, read: Callable[[], AuditSet | None]) -> AuditSet | None:
        if self.found.get(name, (rows, None))[1] is None:
            self.found[name] = (rows, read())
        return self.found[name][1]


def _phase(
    results: Results,
    train: AuditSet | None,
    *,
    prompt: PromptTemplate | None,
    trains_on_all: bool,
) -> AuditPhase:
    stated = {
        key: results.stated[key]["value"]
        for key in (*COUNTED, "processes")
        if key in results.stated
    }
    # Of a training elsewhere the updates cannot be planned before its processes are known.
    is_plannable = not results.is_imported or "processes" in stated
    config = results.config or {}
    # Others train on chats as they stand, unless a configuration of ours says otherwise.
    is_verbatim = True if results.is_imported and "objective" not in config else None
    name = None if trains_on_all else _NOT_KNOWN if train is None else train.name
    return audit_phase(
        PhaseFacts(
            name=results.name,
            config=_config(results),
            stated_keys=frozenset(config) if results.is_imported else None,
            train=None if train is None or not is_plannable else train.data,
            train_name=name,
            prompt=prompt or _recorded_prompt(results),
            stated=stated,
            training=results.training,
            trains_on_file=is_verbatim,
        )
    )


def _config(results: Results) -> PhaseConfig | None:
    """Return a run's configuration; None where an import knows too little of it."""
    if results.config is None:
        return None
    try:
        return PhaseConfig.model_validate(results.config)
    except ValidationError:
        return None


def _evaluated_rows(results: Results, name: str, made_from: Mapping[str, Any]) -> Dataset | None:
    """Read the rows of an evaluation again; None where their file is gone or has changed."""
    facts = results.manifest.get("imported", {}).get("evaluations", {}).get(name)
    recorded = made_from.get("data") or {}
    if recorded.get("file") is None:
        return None
    source = DataSource(Path(recorded["file"]), on_bad_row="skip")
    if "source" in recorded:
        source = DataSource.from_json(recorded["source"])
    if source.starter_part is None and not source.path.is_file():
        return None
    if facts is not None and facts["matching"] is None:
        data = _read_again(lambda: answered_rows(facts, name=name))
    else:
        data = _read_again(source.read)
    same = data is not None and rows_sha256(data) == made_from["inputs"].get("rows")
    return data if same else None


def _training_rows(results: Results) -> Dataset:
    """Return the training file's rows, or what was made of them where it was not a mere draw."""
    train, made = remake(open_run(results.path))
    return replace(train, name=_TRAIN, rows=made.rows if made.is_treated else train.rows)


def _read_again(read: Callable[[], Dataset]) -> Dataset | None:
    try:
        return read()
    except (InputError, ChangedRowsError, StorageError):
        return None


def _recorded_prompt(results: Results) -> PromptTemplate | None:
    file = results.path / "prompt.json"
    return load_prompt(file) if file.is_file() else None
