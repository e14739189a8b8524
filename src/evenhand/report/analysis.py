"""What worked and what did not: sentences that paired tests and intervals support."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evenhand.core.decisions import Pair, PairedTest
from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.measure.intervals import newcombe
from evenhand.report.comparison import (
    BASELINE_PREFIX,
    model_words,
    own_baselines,
    unranked_words,
    worst_group_fpr,
)
from evenhand.report.composed import composition_words
from evenhand.report.configuration import changed_keys, reference_phase
from evenhand.report.decided import judged_at, measured_words
from evenhand.report.paired import effect_words, primary_level
from evenhand.report.records import PhaseReport, Summary, seeds_of, turned
from evenhand.report.remarks import generalisation_remark
from evenhand.report.wording import (
    counted,
    duration,
    is_number,
    listed,
    metric_name,
    points,
    points_with_interval,
    rate,
    signs,
    these_rows,
    with_interval,
)


@dataclass(frozen=True)
class Analysis:
    """Plain sentences: what a test shows to be better, what to be worse, what stays open."""

    worked: tuple[str, ...]
    did_not: tuple[str, ...]
    undecided: tuple[str, ...]


def analyse_phase(summary: Summary, phase: PhaseReport) -> Analysis:
    """Return what changed against the phase that this one is compared with."""
    worked: list[str] = []
    did_not: list[str] = []
    undecided: list[str] = []
    other = reference_phase(summary, phase)
    if other is not None:
        tested = False
        for set_name in phase.evaluations:
            pair = _pair_tests(summary, set_name, other, phase)
            tested = tested or bool(pair)
            own, against = (summary.compared_as(set_name, one) for one in (phase, other))
            whose = "" if own == phase.name else f"{own} "
            for test in pair:
                sentence = f"{_test_words(test)} ({whose}against {against} on {set_name})."
                if test.verdict == "better":
                    worked.append(sentence)
                elif test.verdict == "worse":
                    did_not.append(sentence)
            open_tests = [test for test in pair if test.verdict == "no_evidence"]
            if open_tests:
                undecided.append(
                    _no_evidence(
                        against,
                        set_name,
                        open_tests,
                        has_seeds={own, against} != {phase.name, other.name},
                        all_alike=len(open_tests) == len(pair),
                        level=_level(summary, set_name),
                    )
                )
        named = summary.setting(other).name
        if not tested:
            shared = phase.evaluations.keys() & other.evaluations.keys()
            why = "" if shared else ": they have no evaluation set in common"
            undecided.append(f"Not compared with {named} by a paired test{why}.")
        changed = changed_keys(summary, other, phase)
        if len(changed) > 1:
            undecided.append(
                f"{summary.setting(phase).name} differs from {named} in {listed(changed)}: no "
                "difference can be ascribed to one of them."
            )
        worked += _cost(other, phase)
    for set_name, item in phase.evaluations.items():
        for sentence, shown in _against_baselines(summary, set_name, phase, item):
            {"better": worked, "worse": did_not}.get(shown, undecided).append(sentence)
        if summary.role(set_name) != "production":
            did_not += [*_one_sided(set_name, item), *gap_sentences(item)]
    return Analysis(tuple(worked), tuple(did_not), tuple(undecided))


def analyse_production(summary: Summary, phase: PhaseReport, set_name: str) -> Analysis:
    """Return strengths and challenges of a phase on a production set."""
    item = phase.evaluations[set_name]
    strengths: list[str] = []
    challenges: list[str] = []
    undecided: list[str] = []
    before = None if summary.selection is None else summary.selection.set
    if before is not None and before != set_name and before in phase.evaluations:
        moved = generalisation_remark(phase.evaluations[before], item)
        undecided += [] if moved is None else [moved]
        for sentence, shown in _changes(phase.evaluations[before], item, place=before):
            {"better": strengths, "worse": challenges}.get(shown, undecided).append(sentence)
    for sentence, shown in _against_baselines(summary, set_name, phase, item):
        {"better": strengths, "worse": challenges}.get(shown, undecided).append(sentence)
    if phase.verdict is not None and phase.verdict.set == set_name:
        at = "" if phase.verdict.threshold == item.threshold else f"{judged_at(phase.verdict)}, "
        for one in phase.verdict.results:
            kept = {"pass": strengths, "fail": challenges}.get(one.status, undecided)
            figure = f"{at}{measured_words(one)}"
            kept.append(signs(f"{one.name}: {figure}; asked for: {one.required}. {one.note}"))
    challenges += [*_one_sided(set_name, item), *gap_sentences(item)]
    worst = worst_group_fpr(item)
    if worst is not None:
        undecided.append(
            f"The highest group FPR is that of {worst[0]}: "
            f"{with_interval(worst[1], as_percent=True)}{unranked_words(item)}."
        )
    return Analysis(tuple(strengths), tuple(challenges), tuple(undecided))


def gap_sentences(item: Evaluation) -> Iterator[str]:
    """Say of each group whose FPR is shown to be higher what composition leaves of it."""
    for group, gap in item.gaps.items():
        if gap.fpr.low is None or gap.fpr.low <= 0:
            continue
        yield (
            f"On {item.name} the FPR of {group} is higher than that of the other rows by "
            f"{points_with_interval(gap.fpr)}; {composition_words(item, group)}."
        )


def _one_sided(set_name: str, item: Evaluation) -> Iterator[str]:
    """Say which kind of error is shown to be the more frequent one."""
    fpr, fnr = item.metrics.fpr, item.metrics.fnr
    if fpr.low is None or fpr.high is None or fnr.low is None or fnr.high is None:
        return
    kinds = ("normal", "hate") if fpr.low > fnr.high else ("hate", "normal")
    if fpr.low > fnr.high or fnr.low > fpr.high:
        yield (
            f"On {set_name} {kinds[0]} rows are decided wrongly more often than {kinds[1]} ones: "
            f"FPR {with_interval(fpr, as_percent=True)}, "
            f"FNR {with_interval(fnr, as_percent=True)}."
        )


def baseline_pairs(summary: Summary, set_name: str, phase: str) -> Iterator[tuple[str, Pair, int]]:
    """Yield (baseline, pair, the phase's place in it) for a phase's pairs with non-phases.

    Where the phase was compared as one of several seeds, these pairs are of all of them.
    """
    for comparison in summary.comparisons:
        if comparison.set != set_name:
            continue
        name = seeds_of(comparison, phase)
        for pair in comparison.pairs:
            for place, (own, other) in enumerate(
                ((pair.first, pair.second), (pair.second, pair.first))
            ):
                if own == name and other.startswith(BASELINE_PREFIX):
                    yield other, pair, place


def _pair_tests(
    summary: Summary, set_name: str, other: PhaseReport, phase: PhaseReport
) -> list[PairedTest]:
    item = phase.evaluations[set_name]
    wanted = [(metric, None) for metric in ("f1", "accuracy", "fpr", "fnr")]
    wanted += [(metric, group) for group in item.groups for metric in ("fpr", "fnr")]
    found = (
        summary.paired_test(set_name, (other.name, phase.name), metric=metric, group=group)
        for metric, group in wanted
    )
    return [test for test in found if test is not None]


def _test_words(test: PairedTest) -> str:
    subject = metric_name(test.metric) + (f" of {test.group}" if test.group else "")
    if test.first is None or test.second is None:
        return subject
    return f"{subject} went from {rate(test.first)} to {rate(test.second)}, {effect_words(test)}"


def _level(summary: Summary, set_name: str) -> str:
    """Say at which level F1 was tested on a set."""
    found = (one for one in summary.comparisons if one.set == set_name)
    return next((primary_level(one) for one in found), "")


def _no_evidence(
    other: str,
    set_name: str,
    tests: list[PairedTest],
    *,
    has_seeds: bool,
    all_alike: bool,
    level: str,
) -> str:
    named = (
        f"any of the {len(tests)} metrics tested"
        if all_alike
        else listed(
            metric_name(test.metric) + (f" ({test.group})" if test.group else "") for test in tests
        )
    )
    sentence = f"No evidence of a difference from {other} on {set_name} in {named}."
    overall = next((test for test in tests if test.metric == "f1" and test.group is None), None)
    if overall is not None and overall.minimum_detectable is not None:
        rows = f"{these_rows(overall.n)}{' and the seeds' if has_seeds else ''}"
        sentence += (
            f" {rows} would show a true difference in F1 of about "
            f"{points(overall.minimum_detectable)[1:]} in four cases of five, tested {level}; a "
            "smaller one may well be there."
        )
    return sentence


def _cost(other: PhaseReport, phase: PhaseReport) -> Iterator[str]:
    before, after = ((one.training or {}).get("runtime_seconds") for one in (other, phase))
    if is_number(before) and is_number(after) and after < before:
        yield (
            f"Training took {duration(after)} against {duration(before)} of {other.name} "
            "(one run each)."
        )


def _against_baselines(
    summary: Summary, set_name: str, phase: PhaseReport, item: Evaluation
) -> Iterator[tuple[str, str]]:
    """Yield a sentence and ``better``, ``worse`` or ``undecided`` for each baseline."""
    tested = set()
    for baseline, pair, place in baseline_pairs(summary, set_name, phase.name):
        tested.add(baseline)
        for test in pair.tests:
            if test.metric != "f1" or test.group is not None:
                continue
            won = test.verdict == ("better" if place == 1 else "worse")
            lost = test.verdict == ("worse" if place == 1 else "better")
            own, other = (test.second, test.first) if place == 1 else (test.first, test.second)
            words = "above" if won else "below" if lost else "not shown to differ from"
            if own is not None and other is not None:
                gain = effect_words(test if place == 1 else turned(test))
                model = pair.second if place == 1 else pair.first
                whose = "" if model == phase.name else f" of {model}"
                yield (
                    f"On {set_name} F1 {own:.4f}{whose} is {words} {other:.4f} of "
                    f"{model_words(baseline)} (paired test over the "
                    f"{counted(test.n, 'row')} that both answered, {gain}).",
                    "better" if won else "worse" if lost else "undecided",
                )
    f1 = item.metrics.f1.value
    for name, other in own_baselines(summary, phase, set_name).items():
        value = other.metrics.f1.value
        known = any(name in baseline for baseline in tested)
        if known or f1 is None or value is None or value < f1:
            continue
        yield (
            f"On {set_name} F1 {f1:.4f} is no higher than {value:.4f} of the baseline {name}.",
            "undecided",
        )


def _changes(before: Evaluation, after: Evaluation, *, place: str) -> Iterator[tuple[str, str]]:
    """Yield a sentence and ``better``, ``worse`` or ``undecided`` for each change between sets."""
    rates: list[tuple[str, MetricValue, MetricValue, int]] = [
        ("Recall", before.metrics.recall, after.metrics.recall, 1),
        ("Accuracy", before.metrics.accuracy, after.metrics.accuracy, 1),
    ]
    rates += [
        (f"{group} FPR", before.groups[group].fpr, part.fpr, -1)
        for group, part in after.groups.items()
        if group in before.groups
    ]
    for name, old, new, sign in rates:
        if old.value is None or new.value is None:
            continue
        gap = newcombe(new, old)
        if gap.low is None or gap.high is None:
            continue
        moved = "rose" if gap.low > 0 else "fell" if gap.high < 0 else None
        text = f"{name} {rate(old.value)} on {place}, {rate(new.value)} here"
        if moved is None:
            yield f"{text}: {points_with_interval(gap)}, not shown to have changed.", "undecided"
        else:
            good = (gap.low > 0) == (sign > 0)
            yield (
                f"{text}: it {moved} by {points_with_interval(gap)}.",
                ("better" if good else "worse"),
            )
