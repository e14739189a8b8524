"""Whether training chats say the same to the model as the prompt of the evaluation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evenhand.core.decisions import Finding, Severity
from evenhand.core.records import Row
from evenhand.data.chat import target_label
from evenhand.decide.audit.inputs import AuditInputs, AuditSet
from evenhand.decide.audit.targets import answer_of
from evenhand.decide.audit.wording import listed
from evenhand.prompts.template import PromptTemplate

_PERSONA = re.compile(r"^Persona:.*\n?", re.MULTILINE)
_CONSEQUENCE = {
    True: "it is trained on as it stands, and asked otherwise when it is evaluated",
    None: "a model trained on it as it stands is asked otherwise when it is evaluated",
    False: "the texts are rendered anew here, so the model sees the evaluation's wording only",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """What one chat says around the post."""

    system: str
    before: str
    after: str
    has_persona: bool


@dataclass(frozen=True)
class _Use:
    """A training file and the prompt that models trained on it are evaluated with."""

    train: AuditSet
    prompt: PromptTemplate
    verbatim: bool | None

    @property
    def subject(self) -> str:
        return f"{self.train.name} / {self.prompt.strategy}"

    @property
    def severity(self) -> Severity:
        return "note" if self.verbatim is False else "error"


def prompt_drift(inputs: AuditInputs) -> Iterator[Finding]:
    """Find training chats whose instruction or user turn is not the evaluation prompt's."""
    for use in _uses(inputs):
        said = Counter(filter(None, map(chat_wording, use.train.data.rows)))
        if not said:
            continue
        drifts = _drifts(said, use.prompt)
        if drifts:
            commonest = said.most_common(1)[0][0]
            yield Finding(
                check="prompt_drift",
                subject=use.subject,
                severity=use.severity,
                message=(
                    f"{use.train.name} differs from the evaluation's prompt "
                    f"({use.prompt.strategy}): {listed(list(drifts))}; "
                    f"{_CONSEQUENCE[use.verbatim]}."
                ),
                evidence={
                    "trained_verbatim": use.verbatim,
                    "rows": drifts,
                    "of": sum(said.values()),
                    "wordings": len(said),
                    "training_system_prompt": commonest.system,
                    "evaluation_system_prompt": use.prompt.system_prompt,
                    "prompt_sha256": use.prompt.sha256,
                },
                remedy=(
                    "Render training and evaluation from one prompt file, or train with an "
                    'objective that renders the texts anew ("label" or "completion").'
                ),
            )


def label_word_drift(inputs: AuditInputs) -> Iterator[Finding]:
    """Find training targets whose label words are not those that the evaluation asks for."""
    for use in _uses(inputs):
        words = _label_words(use.train.data.rows)
        wrong = {
            label: used for label, used in words.items() if set(used) - {use.prompt.labels[label]}
        }
        if wrong:
            pairs = [
                f'"{word}" ({count:,} rows) where the evaluation has "{use.prompt.labels[label]}"'
                for label, used in sorted(wrong.items())
                for word, count in used.items()
                if word != use.prompt.labels[label]
            ]
            yield Finding(
                check="label_word_drift",
                subject=use.subject,
                severity=use.severity,
                message=f"{use.train.name} says {listed(pairs)}; {_CONSEQUENCE[use.verbatim]}.",
                evidence={
                    "trained_verbatim": use.verbatim,
                    "training": {label: dict(used) for label, used in sorted(words.items())},
                    "evaluation": dict(use.prompt.labels),
                },
                remedy="Use the same label words in training targets and in the prompt's labels.",
            )


def chat_wording(row: Row) -> Wording | None:
    """Return what a row's chat says around the post; None where it is no chat or hides the post."""
    turns = row.messages or ()
    asked = [said for role, said in turns if role == "user"]
    if not asked:
        return None
    # From the right: the line Text: "..." ends the turn, and the instruction may quote words.
    before, found, after = asked[-1].rpartition(row.text)
    if not found:
        return None
    system = "\n".join(said for role, said in turns if role in ("system", "developer"))
    plain = _PERSONA.sub("", before)
    return Wording(system, plain, after, plain != before)


def _drifts(said: Counter[Wording], prompt: PromptTemplate) -> dict[str, int]:
    """Return what differs -> in how many rows."""
    kinds = {
        "another system prompt": lambda one: one.system.strip() != prompt.system_prompt.strip(),
        "another user turn": lambda one: (one.before, one.after) != (prompt.before, prompt.after),
        "a Persona line in training only": lambda one: (
            one.has_persona and "Persona:" not in prompt.before
        ),
    }
    counts = {
        kind: sum(count for one, count in said.items() if differs(one))
        for kind, differs in kinds.items()
    }
    return {kind: count for kind, count in counts.items() if count}


def _label_words(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answer = answer_of(row)
        if answer is not None and row.label is not None:
            try:
                words[row.label][target_label(answer)] += 1
            except ValueError:  # the label came from elsewhere, so the target says nothing of it
                continue
    return dict(words)


def _uses(inputs: AuditInputs) -> Iterator[_Use]:
    """Yield each training file with each prompt once, with the worst way in which it is used."""
    found: dict[tuple[str, str], _Use] = {}
    for phase in inputs.phases:
        if phase.prompt is None:
            continue
        for train in inputs.trained_on(phase):
            key = (train.name, phase.prompt.sha256)
            before = found.get(key)
            if before is None or (before.verbatim is False and phase.verbatim is not False):
                found[key] = _Use(train, phase.prompt, phase.verbatim)
    yield from found.values()
