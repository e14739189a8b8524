"""What was learned, which practices it supports, what stays open, what was not done."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evenhand.core.decisions import Comparison, Pair, PairedTest
from evenhand.report.comparison import (
    chance_phases,
    evaluated,
    group_names,
    judging_set,
    main_set,
    own_baselines,
    set_baselines,
    unranked_words,
    worst_group_fpr,
)
from evenhand.report.composed import composition_words
from evenhand.report.configuration import (
    HIGH_WARMUP_SHARE,
    changed_keys,
    reference_phase,
    warmup_share,
)
from evenhand.report.decided import outcome_words
from evenhand.report.paired import effect_words, pair_sentence, primary_level
from evenhand.report.records import Summary
from evenhand.report.wording import (
    about,
    count,
    counted,
    decimal,
    ended,
    listed,
    percent,
    points,
    signs,
    these_rows,
    with_interval,
)

_PAIRS_SHOWN = 3
_MANY_ROWS = 1_000_000
"""Beyond this many rows a difference is called too small to be settled by labelling."""


def lessons(summary: Summary) -> tuple[str, ...]:
    """Return what the tests show, one sentence each."""
    sources = (_pairs, _confounding, _composition, _tuning, _gate)
    return tuple(sentence for source in sources for sentence in source(summary))


def main_lessons(summary: Summary) -> tuple[str, ...]:
    """Return a few of the lessons, of each kind at least one; the gate's are left out."""
    pairs = list(_pairs(summary))
    others = [list(source(summary))[:1] for source in (_confounding, _tuning, _composition)]
    return (*pairs[:_PAIRS_SHOWN], *(sentence for found in others for sentence in found))


def practices(summary: Summary) -> tuple[str, ...]:
    """Return the practices that this experiment's own evidence speaks for."""
    return tuple(_practices(summary))


def open_questions(summary: Summary) -> tuple[str, ...]:
    """Return what the evidence leaves open, with the labels that would settle it."""
    sources = (_undecided_pairs, _undecided_criteria, _small_groups, _reachable, _seeds)
    return tuple(sentence for source in sources for sentence in source(summary))


def not_done(summary: Summary) -> tuple[str, ...]:
    """Return which steps of the reference's procedure are missing."""
    return tuple(_open_points(summary))


def _pairs(summary: Summary) -> Iterator[str]:
    """Tell of the pairs of phases, and of the chosen phase against baselines, where it counts."""
    judged, chosen = judging_set(summary), summary.chosen
    names, settings = summary.own_models, summary.settings
    leading = {name for one in settings if chosen in one.phases for name in (one.name, chosen.name)}
    for comparison in sorted(summary.comparisons, key=lambda one: one.set != judged):
        if comparison.set != judged and summary.role(comparison.set) != "production":
            continue
        for pair in comparison.pairs:
            models = {pair.first, pair.second}
            if models <= names or chosen is None or models & leading or len(settings) < 3:
                yield pair_sentence(pair, comparison)


def _confounding(summary: Summary) -> Iterator[str]:
    told: list[set[str]] = []
    for setting in summary.settings:
        phase = setting.phases[0]
        other = reference_phase(summary, phase)
        if other is None:
            continue
        changed = changed_keys(summary, other, phase)
        against = summary.setting(other).name
        if len(changed) > 1 and {setting.name, against} not in told:
            told.append({setting.name, against})
            yield (
                f"{setting.name} and {against} differ in {listed(changed)} at once: nothing is "
                "learned about any one of them."
            )


def _composition(summary: Summary) -> Iterator[str]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    item = phase.evaluations[set_name]
    for group in item.composition:
        yield f"FPR of {group} on {set_name}: {composition_words(item, group)}."


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
                f"{phase.name} on {report.set}: {verdict}, {effect_words(test)}."
            )


def _gate(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        verdict = phase.verdict
        if verdict is None:
            continue
        passed = sum(one.status == "pass" for one in verdict.results)
        yield (
            f"{phase.name} meets {passed} of {len(verdict.results)} criteria of "
            f"{verdict.criteria_name} on {verdict.set}: {outcome_words(verdict)}."
        )


def _practices(summary: Summary) -> Iterator[str]:
    tests = [pair.verdict for one in summary.comparisons for pair in one.pairs]
    names = summary.own_models
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
            for name, other in own_baselines(summary, chosen, set_name).items()
            if f1 is not None and (other.metrics.f1.value or 0.0) >= f1
        ]
        if beaten:
            yield (
                "Keep the baselines beside the model: its F1 is not shown to be above that of "
                f"{listed(beaten)}."
            )
    if any(phase.verdict is not None and phase.verdict.vacuous for phase in summary.phases):
        yield "Try criteria on constant classifiers first: a bar that one of them meets is no bar."
    if chance_phases(summary):
        yield "Check that a phase ranks better than chance before its rates are read."


def _changed_at_once(summary: Summary) -> int:
    """Return the most keys in which a phase differs from the one it is compared with."""
    leading = (setting.phases[0] for setting in summary.settings)
    pairs = ((reference_phase(summary, phase), phase) for phase in leading)
    return max((len(changed_keys(summary, other, one)) for other, one in pairs if other), default=0)


def _undecided_pairs(summary: Summary) -> Iterator[str]:
    judged, names = judging_set(summary), summary.own_models
    for comparison in summary.comparisons:
        for pair in comparison.pairs:
            test = pair.test("f1")
            if comparison.set != judged or not {pair.first, pair.second} <= names:
                continue
            if test is None or test.verdict != "no_evidence" or test.difference.value is None:
                continue
            question = f"Does F1 of {pair.second} differ from that of {pair.first}?"
            yield f"{question} {_what_would_tell(test, comparison, pair)}"


def _what_would_tell(test: PairedTest, comparison: Comparison, pair: Pair) -> str:
    """Say how many rows would show a difference in F1 as large as the one seen."""
    smallest, seen = test.minimum_detectable, abs(test.difference.value or 0.0)
    if test.depends_on_unanswered:
        return (
            f"It depends on the {counted(comparison.n_left_out, 'row')} of {comparison.set} that "
            "not every model answered."
        )
    if smallest is None or seen == 0:
        return f"Not shown on {comparison.set}."
    if {pair.first, pair.second} & comparison.replicates.keys():
        return f"Not shown on {comparison.set}: more seeds may be missing as well as more rows."
    # The detectable difference shrinks with the square root of the rows.
    needed = math.ceil(test.n * (smallest / seen) ** 2)
    if needed >= _MANY_ROWS:
        return "The difference seen is too small to be settled by labelling."
    if needed <= test.n:
        return (
            f"{these_rows(test.n)} of {comparison.set} would have shown a true difference as large "
            f"as the one seen ({points(seen)[1:]}) in four cases of five, and did not show it."
        )
    return (
        f"If it is as large as the one seen ({points(seen)[1:]}), {about(needed)} rows like those "
        f"of {comparison.set} would show it in four cases of five, tested "
        f"{primary_level(comparison)}; there are {count(test.n)}."
    )


def _undecided_criteria(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        for one in () if phase.verdict is None else phase.verdict.results:
            if one.status != "undecided":
                continue
            more = f"; {one.settling}" if one.settling else ""
            yield ended(
                f"Does {phase.name} meet {signs(one.name)} ({signs(one.required)})? Undecided{more}"
            )


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
                    f"What is the {rate} of {group}? {counted(size.labels, f'{word} row')} "
                    f"{'is' if size.labels == 1 else 'are'} too few; {count(size.needed)} would "
                    "give about 10 points either way."
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
        f"allow{unranked_words(item)}? With one threshold at recall of at least {floor} the model "
        f"reaches {with_interval(lowest, as_percent=True)} (read off the same rows, so optimistic)."
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


def _open_points(summary: Summary) -> Iterator[str]:
    if not any(phase.evaluations for phase in summary.phases):
        yield "No phase was evaluated."
    if summary.selection is None:
        yield "No phase was chosen."
    production = [name for name in summary.set_names() if summary.role(name) == "production"]
    if not any(evaluated(summary, name) for name in production):
        yield "No production validation was run."
    for phase in summary.phases:
        if phase.training is None:
            yield (
                f"{phase.name} was not trained: its model is evaluated as it came."
                if phase.imported is None
                else f"Nothing is recorded of the training of {phase.name}."
            )
    for name in summary.set_names():
        models = evaluated(summary, name)
        if not models:
            yield f"No phase was evaluated on {name}."
            continue
        missing = [phase.name for phase in summary.phases if phase.name not in models]
        if missing and name not in production:
            yield f"Not evaluated on {name}: {listed(missing)}."
        if not set_baselines(summary, name):
            yield f"No baseline was evaluated on {name}."
        if not group_names(models):
            yield f"{name} names no target group: nothing is known of its groups' rates."
    for phase in summary.phases:
        used = {item.threshold for item in phase.evaluations.values()}
        if 0.5 in used and phase.threshold is None and phase is summary.chosen:
            yield f"The decision threshold of {phase.name} is the default, 0.5: it was not tuned."
        if phase.verdict is None and phase is summary.chosen:
            yield f"No gate was run for {phase.name}."
    if summary.audit is None:
        yield "No audit was made."
    if len(summary.phases) > 1 and not summary.comparisons:
        yield "Differences between phases were not tested on paired rows."
