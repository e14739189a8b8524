"""Checks of the bars and of how the test rows were used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from evenhand.core.decisions import Finding, GateVerdict
from evenhand.core.records import HATE, NORMAL
from evenhand.decide.audit.inputs import AuditInputs, Target
from evenhand.decide.audit.wording import decimal, listed
from evenhand.decide.figures import ClassCounts, Constant, constant_value

_ANSWERS: Mapping[Constant, str] = {"always_hate": HATE, "always_normal": NORMAL}


def constant_passes(inputs: AuditInputs) -> Iterator[Finding]:
    """Find criteria, and bars on whole sets, that a constant answer reaches."""
    for verdict in inputs.verdicts:
        yield from _criteria_findings(verdict)
    for name, counts in _label_counts(inputs).items():
        targets = [one for one in inputs.targets if one.set in (None, name)]
        for constant in _ANSWERS:
            yield from _target_finding(
                name, counts, targets, constant, alone=not inputs.more_required
            )


def test_reuse(inputs: AuditInputs) -> Iterator[Finding]:
    """Find production rows that more than one model was evaluated on."""
    by_rows: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for use in inputs.uses:
        by_rows[use["set"], use["rows"]][use["run"]] = use["phase"]
    for (name, _), runs in by_rows.items():
        if len(runs) > 1:
            yield Finding(
                check="test_reuse",
                subject=name,
                severity="warning",
                message=(
                    f"{name} was used for {len(runs)} models ({listed(list(runs.values()))}): its "
                    "figures are no longer those of rows that nothing was chosen on."
                ),
                evidence={"runs": runs},
                remedy="Report the chosen model on production rows that have not been looked at.",
            )


def _criteria_findings(verdict: GateVerdict) -> Iterator[Finding]:
    required = {
        one.name: dict(one.constants)
        for one in verdict.results
        if one.role == "required" and one.constants
    }
    met = {name: by for name, by in required.items() if any(map(_is_telling, by.values()))}
    if verdict.vacuous:
        who = listed([_always(name) for name in verdict.vacuous])
        yield Finding(
            check="constant_passes",
            subject=verdict.criteria_name,
            severity="error",
            message=(
                f"{who} meets every required criterion of {verdict.criteria_name} on "
                f"{verdict.set}: passing this gate shows nothing."
            ),
            evidence={"constants": list(verdict.vacuous), "criteria": required},
            remedy=(
                "Require what no constant reaches: a bound on both recall and FPR, a lower bound "
                "above the constant's F1, or more than a baseline."
            ),
        )
    elif met:
        words = [
            f'"{name}" by {listed([f"{_always(who)} ({decimal(at)})" for who, at in by.items()])}'
            for name, by in met.items()
        ]
        yield Finding(
            check="constant_passes",
            subject=verdict.criteria_name,
            severity="warning",
            message=(
                f"Of the required criteria of {verdict.criteria_name}, some are met on "
                f"{verdict.set} by a constant answer: {listed(words)}. None meets all."
            ),
            evidence={"constants": [], "criteria": met},
            remedy="Read such a criterion only together with the others.",
        )


def _target_finding(
    name: str,
    counts: tuple[int, int],
    targets: Sequence[Target],
    constant: Constant,
    *,
    alone: bool,
) -> Iterator[Finding]:
    hate, normal = counts
    labels = ClassCounts(positives=hate, negatives=normal)
    reached = {}
    for target in targets:
        value = constant_value(constant, target.metric, labels)
        if value is not None and value >= target.at_least:
            reached[f"{target.metric} >= {target.at_least}"] = value
    vacuous = alone and len(reached) == len(targets)
    if reached and (vacuous or any(map(_is_telling, reached.values()))):
        words = [f"{bar} ({decimal(value)})" for bar, value in reached.items()]
        yield Finding(
            check="constant_passes",
            subject=f"{name} / {constant}",
            severity="error" if vacuous else "warning",
            message=f"{_always(constant)} on {name} reaches {listed(words)}.",
            evidence={"constant": constant, "hate": hate, "normal": normal, "values": reached},
            remedy="Set the bar above what a constant reaches, or bound recall and FPR both.",
        )


def _is_telling(value: float) -> bool:
    """Whether a constant's value depends on the rows: recall 1 of always-hate does not."""
    return value not in (0.0, 1.0)


def _label_counts(inputs: AuditInputs) -> dict[str, tuple[int, int]]:
    """Return (hate, normal) rows of each evaluation set that is known, from its file if it is."""
    found: dict[str, tuple[int, int]] = {}
    for one in inputs.evaluations:
        # Unscored rows have labels too, but only the scored ones' are counted in a confusion.
        found[one.set] = (one.evaluation.confusion.positives, one.evaluation.confusion.negatives)
    for each in inputs.evaluation_sets:
        labels = [row.label for row in each.data.rows]
        found[each.name] = (labels.count(HATE), labels.count(NORMAL))
    return {name: counts for name, counts in found.items() if sum(counts)}


def _always(constant: str) -> str:
    words: Mapping[str, str] = {name: f'Answering "{one}" always' for name, one in _ANSWERS.items()}
    return words.get(constant, constant)
