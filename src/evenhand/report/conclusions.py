"""What was learned, which practices it supports, and what stays open."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.report.analysis import composition_words
from evenhand.report.comparison import (
    evaluated,
    judging_set,
    learned_nothing_phases,
    main_set,
    set_baselines,
    worst_group_fpr,
)
from evenhand.report.configuration import changed_keys, reference_phase, warmup_share
from evenhand.report.findings import HIGH_WARMUP_SHARE
from evenhand.report.paired import pair_sentence
from evenhand.report.records import Summary
from evenhand.report.wording import (
    count,
    decimal,
    listed,
    percent,
    points,
    points_with_interval,
    with_interval,
)

_MANY_ROWS = 1_000_000
"""Beyond this many rows a difference is called too small to be settled by labelling."""


def lessons(summary: Summary) -> tuple[str, ...]:
    """Return what the tests show, one sentence each."""
    sources = (_pairs, _confounding, _composition, _tuning, _gate)
    return tuple(sentence for source in sources for sentence in source(summary))


def practices(summary: Summary) -> tuple[str, ...]:
    """Return the practices that this experiment's own evidence speaks for."""
    return tuple(_practices(summary))


def open_questions(summary: Summary) -> tuple[str, ...]:
    """Return what the evidence leaves open, with the labels that would settle it."""
    sources = (_undecided_pairs, _undecided_criteria, _small_groups, _reachable, _seeds)
    return tuple(sentence for source in sources for sentence in source(summary))


def _pairs(summary: Summary) -> Iterator[str]:
    for comparison in summary.comparisons:
        for pair in comparison.pairs:
            yield pair_sentence(pair, comparison)


def _confounding(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        other = reference_phase(summary, phase)
        changed = [] if other is None else changed_keys(other, phase)
        if other is not None and len(changed) > 1:
            yield (
                f"{phase.name} and {other.name} differ in {listed(changed)} at once: nothing is "
                "learned about any one of them."
            )


def _composition(summary: Summary) -> Iterator[str]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    item = phase.evaluations[set_name]
    for group in item.composition:
        yield f"FPR of {group} on {set_name}, as a ratio: {composition_words(item, group)}."


def _tuning(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        report = phase.threshold_report
        if report is None:
            continue
        for pair in report.comparison.pairs:
            test = pair.test("f1")
            if test is None:
                continue
            verdict = {
                "better": "F1 is better",
                "worse": "F1 is worse",
                "no_evidence": "no evidence of a difference in F1",
            }.get(test.verdict, "F1 was not tested")
            yield (
                f"Threshold {decimal(report.value, digits=4)} against {report.default:g} for "
                f"{phase.name} on {report.set}: {verdict}, {points_with_interval(test.difference)}."
            )


def _gate(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        verdict = phase.verdict
        if verdict is None:
            continue
        passed = sum(one.status == "pass" for one in verdict.results)
        yield (
            f"{phase.name} meets {passed} of {len(verdict.results)} criteria of "
            f"{verdict.criteria_name} on {verdict.set}: {verdict.outcome}."
        )
        if verdict.vacuous:
            yield f"The required criteria are also met by {listed(verdict.vacuous)}."


def _practices(summary: Summary) -> Iterator[str]:
    tests = [pair.verdict for one in summary.comparisons for pair in one.pairs]
    names = {phase.name for phase in summary.phases}
    between = [
        pair.verdict
        for one in summary.comparisons
        for pair in one.pairs
        if {pair.first, pair.second} <= names
    ]
    if between and all(verdict == "no_evidence" for verdict in between):
        sizes = {
            phase.name: phase.training["trainable_parameters"]
            for phase in summary.phases
            if phase.training and phase.training.get("trainable_parameters")
        }
        yield "Do not rank configurations by their point values: none is shown to differ in F1."
        if len(set(sizes.values())) > 1:
            least = min(sizes, key=lambda name: sizes[name])
            yield (
                f"Start with the smallest: {least} ({count(sizes[least])} trainable parameters) is "
                "not shown to be worse."
            )
    if not tests and len(summary.phases) > 1:
        yield "Compare configurations on the same rows with a paired test before preferring one."
    if _changed_at_once(summary) > 1:
        yield "Change one factor at a time, or the cause of a difference stays unknown."
    audit = summary.audit
    if audit is not None and any("overlap" in one.check for one in audit.findings):
        yield "Look for training rows among the evaluation rows before anything is evaluated."
    if any((warmup_share(phase) or 0.0) > HIGH_WARMUP_SHARE for phase in summary.phases):
        yield "Give warm-up as a share of the steps: here it takes most of a schedule."
    chosen = summary.chosen
    set_name = None if chosen is None else main_set(summary, chosen)
    if chosen is not None and set_name is not None:
        item = chosen.evaluations[set_name]
        if item.composition:
            yield "Stratify a group's gap by source and original label before it is called bias."
        if item.n_scored < item.n:
            yield "Count the rows without a decision per group; dropped rows change the rates."
        f1 = item.metrics.f1.value
        beaten = [
            name
            for name, other in set_baselines(summary, set_name).items()
            if f1 is not None and (other.metrics.f1.value or 0.0) >= f1
        ]
        if beaten:
            yield (
                "Keep the baselines beside the model: its F1 is not shown to be above that of "
                f"{listed(beaten)}."
            )
    if any(phase.verdict is not None and phase.verdict.vacuous for phase in summary.phases):
        yield "Try criteria on constant classifiers first: a bar that one of them meets is no bar."
    if learned_nothing_phases(summary):
        yield "Check that a phase ranks better than chance before its rates are read."


def _changed_at_once(summary: Summary) -> int:
    """Return the most keys in which a phase differs from the one it is compared with."""
    pairs = ((reference_phase(summary, phase), phase) for phase in summary.phases)
    return max((len(changed_keys(other, one)) for other, one in pairs if other), default=0)


def _undecided_pairs(summary: Summary) -> Iterator[str]:
    judged, names = judging_set(summary), {phase.name for phase in summary.phases}
    for comparison in summary.comparisons:
        for pair in comparison.pairs:
            test = pair.test("f1")
            if comparison.set != judged or not {pair.first, pair.second} <= names:
                continue
            if test is None or test.verdict != "no_evidence" or test.difference.value is None:
                continue
            question = f"Does F1 of {pair.second} differ from that of {pair.first}?"
            smallest, seen = test.minimum_detectable, abs(test.difference.value)
            if smallest is None or seen == 0:
                yield f"{question} Not shown on {comparison.set}."
                continue
            # The detectable difference shrinks with the square root of the rows.
            needed = test.n * (smallest / seen) ** 2
            labels = (
                f"about {count(round(needed, -2))} rows like those of {comparison.set} would show "
                f"a difference as large as the one seen ({points(seen)[1:]})"
                if needed < _MANY_ROWS
                else "the one seen is too small to be settled by labelling"
            )
            yield f"{question} {labels[0].upper()}{labels[1:]}."


def _undecided_criteria(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        for one in () if phase.verdict is None else phase.verdict.results:
            if one.status != "undecided":
                continue
            labels = (
                "more labels would not help"
                if one.labels_needed is None
                else f"about {count(one.labels_needed)} labels would settle it"
            )
            yield f"Does {phase.name} meet {one.name} ({one.required})? Undecided; {labels}."


def _small_groups(summary: Summary) -> Iterator[str]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    for group, item in phase.evaluations[set_name].groups.items():
        for rate, size, word in (
            ("FPR", item.negatives, "normal"),
            ("FNR", item.positives, "hate"),
        ):
            if size.too_small:
                yield (
                    f"What is the {rate} of {group}? {count(size.labels)} {word} rows are too few; "
                    f"{count(size.needed)} would give about 10 points either way."
                )


def _reachable(summary: Summary) -> Iterator[str]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    item = phase.evaluations[set_name]
    worst, found = worst_group_fpr(item), item.reachable
    if worst is None or found is None or found.threshold is None or worst[0] not in found.groups:
        return
    group, value = worst
    lowest = found.groups[worst[0]]
    floor = percent(found.floor, digits=0)
    yield (
        f"Is {with_interval(value, as_percent=True)} the lowest FPR for {group} that these data "
        f"allow? With one threshold at recall of at least {floor} the model reaches "
        f"{with_interval(lowest, as_percent=True)} (read off the same rows, so optimistic)."
    )


def _seeds(summary: Summary) -> Iterator[str]:
    trained = [phase for phase in summary.phases if phase.training is not None]
    if trained and not any(one.replicates for one in summary.comparisons):
        judged = judging_set(summary)
        where = f" on {judged}" if judged and evaluated(summary, judged) else ""
        yield (
            f"Would another seed give the same figures{where}? Each phase was trained once; the "
            "intervals are over rows, not over trainings."
        )
