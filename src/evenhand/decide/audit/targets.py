"""Whether the form of a training target, the label word taken away, gives the label away."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from evenhand.core.decisions import Finding
from evenhand.core.records import Row
from evenhand.data.chat import LABEL_KEYS, target_label
from evenhand.decide.audit.inputs import AuditInputs, AuditSet
from evenhand.decide.audit.wording import percent, rows

SIGNIFICANT = 0.001
LEAST_GAIN = 0.05
"""A form must beat the base rate by this much: with thousands of rows a trifle is significant."""

_OPENINGS = (1, 2, 4, 8, 16)
_KEY = re.compile(rf'"(?:{"|".join(LABEL_KEYS)})"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class Form:
    """How well one feature of the form predicts the label.

    Attributes:
        feature: what is looked at: ``opening:2`` is the two first characters.
        before_label: whether it stands before the label word, where it decides the answer.
        accuracy: share of rows whose label follows from it, each row left out in turn.
        p_value: one-sided binomial test against the base rate, times the number of features.
        values: the commonest values with their labels.
    """

    feature: str
    before_label: bool
    accuracy: float
    p_value: float
    values: Mapping[str, Mapping[str, int]]


def format_predicts_label(inputs: AuditInputs) -> Iterator[Finding]:
    """Find training files whose targets tell the label by their form."""
    for one in inputs.training_sets:
        targets = chat_targets(one.data.rows)
        base, forms = telling_forms(targets)
        if forms:
            yield _finding(one, len(targets), base, forms, verbatim=is_verbatim(inputs, one))


def chat_targets(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return (assistant turn, label) of the rows that were read from chats and have a label."""
    found = []
    for row in rows:
        answer = answer_of(row)
        if answer is not None and row.label is not None:
            found.append((answer, row.label))
    return found


def answer_of(row: Row) -> str | None:
    """Return the assistant turn that answers a chat's last user turn; None where there is none."""
    turns = row.messages or ()
    asked = [place for place, (role, _) in enumerate(turns) if role == "user"]
    after = turns[asked[-1] + 1 :] if asked else ()
    return next((said for role, said in after if role == "assistant"), None)


def telling_forms(targets: Sequence[tuple[str, str]]) -> tuple[float, list[Form]]:
    """Return the base rate and the forms that predict the label better, the best first.

    >>> targets = [('{{"label": "normal"}}', "normal"), ('{"label": "hate"}', "hate")] * 20
    >>> base, forms = telling_forms(targets)
    >>> base, forms[0].feature, forms[0].accuracy
    (0.5, 'opening:2', 1.0)
    """
    labels = Counter(label for _, label in targets)
    if len(labels) < 2:
        return 1.0, []
    base = max(labels.values()) / len(targets)
    features = [_features(target) for target, _ in targets]
    names = list(dict.fromkeys(name for one in features for name in one))
    forms = []
    for name in names:
        pairs = [
            (one.get(name, ""), label) for one, (_, label) in zip(features, targets, strict=True)
        ]
        right = _right_left_out(pairs, labels)
        test = binomtest(right, len(pairs), base, alternative="greater")
        accuracy, p_value = right / len(pairs), min(float(test.pvalue) * len(names), 1.0)
        if accuracy - base >= LEAST_GAIN and p_value < SIGNIFICANT:
            before = name.startswith("opening")
            forms.append(Form(name, before, accuracy, p_value, _commonest(pairs)))
    forms.sort(key=lambda form: (not form.before_label, -form.accuracy))
    return base, forms


def is_verbatim(inputs: AuditInputs, train: AuditSet) -> bool | None:
    """Return whether any phase trains on a chat file as it stands; None where nobody knows."""
    users = [phase.verbatim for phase in inputs.phases if train in inputs.trained_on(phase)]
    if not users or None in users:
        return None
    return any(users)


def _finding(
    train: AuditSet, n: int, base: float, forms: Sequence[Form], *, verbatim: bool | None
) -> Finding:
    best = forms[0]
    where = "before the label word" if best.before_label else "around the label word"
    values = "; ".join(
        f"{value!r}: {', '.join(f'{count:,} {label}' for label, count in labels.items())}"
        for value, labels in list(best.values.items())[:2]
    )
    consequence = {
        True: "training on the file as it stands teaches the form, which no new post has",
        None: "training on the file as it stands would teach the form, which no new post has",
        False: "the texts are rendered anew here, so the model does not see it",
    }[verbatim]
    severity = "note" if verbatim is False else "error" if best.before_label else "warning"
    return Finding(
        check="format_predicts_label",
        subject=train.name,
        severity=severity,
        message=(
            f"The form of the targets of {train.name} {where} ({best.feature}) gives the label of "
            f"{percent(best.accuracy)} of its {rows(n)} (base rate {percent(base)}): {values}; "
            f"{consequence}."
        ),
        evidence={
            "rows": n,
            "base_rate": base,
            "trained_verbatim": verbatim,
            "forms": [_form_json(form) for form in forms],
        },
        remedy=(
            "Write every target in one form, the label word apart, or train with an objective "
            'that renders the texts anew ("label" or "completion").'
        ),
    )


def _form_json(form: Form) -> dict[str, Any]:
    return {
        "feature": form.feature,
        "before_label": form.before_label,
        "accuracy": form.accuracy,
        "p_value": form.p_value,
        "values": {value: dict(labels) for value, labels in form.values.items()},
    }


def _features(target: str) -> dict[str, str]:
    """Return the parts of a target that are neither its label word nor free text."""
    head, tail = _around_label(target)
    found = {f"opening:{k}": head[:k] for k in _OPENINGS}
    found["closing:1"], found["closing:2"] = tail[-1:], tail[-2:]
    found["shape"] = _shape(target)
    return found


def _around_label(target: str) -> tuple[str, str]:
    """Split a target at its label word."""
    try:
        word = target_label(target)
    except ValueError:  # data of another reader; the whole target is what precedes nothing
        return target, ""
    key = _KEY.search(target)
    start = target.find(word, 0 if key is None else key.end())
    return target[:start], target[start + len(word) :]


def _shape(target: str) -> str:
    """Return the keys of a JSON target, each with the type of its value; "" of any other."""
    answer = target.strip()
    if answer.startswith("{{") and answer.endswith("}}"):
        answer = answer[1:-1]
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    return ", ".join(f"{key}: {type(item).__name__}" for key, item in value.items())


def _right_left_out(pairs: Sequence[tuple[str, str]], labels: Counter[str]) -> int:
    """Count the rows whose label is the commonest among the other rows of the same value."""
    usual = labels.most_common(1)[0][0]
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for value, label in pairs:
        seen[value][label] += 1
    right = 0
    for counts in seen.values():
        for label, count in counts.items():
            most = max((other for name, other in counts.items() if name != label), default=0)
            wins = count - 1 > most or (count - 1 == most and label == usual)
            right += count if wins else 0
    return right


def _commonest(pairs: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    common = [value for value, _ in Counter(value for value, _ in pairs).most_common(5)]
    return {value: dict(Counter(label for one, label in pairs if one == value)) for value in common}
