"""What to do next, and why: an immediate action and options A to D, each from evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evenhand.core.evaluation import Evaluation
from evenhand.report.analysis import composition_words
from evenhand.report.comparison import judging_set, main_set, worst_group_fpr
from evenhand.report.configuration import main_configuration, still_improving
from evenhand.report.decided import DEPLOYMENT_WORDS, mapping_words
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import (
    UNKNOWN,
    decimal,
    duration,
    is_number,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    rate,
    with_interval,
)

_NO_RETRAINING = "minutes: the scores that are there are enough, nothing is trained"


@dataclass(frozen=True)
class Recommendation:
    """One option, in plain sentences; ``expected`` names what it rests on."""

    title: str
    purpose: str
    method: str
    current: str
    expected: str
    time: str
    status: str


def recommendations(summary: Summary) -> tuple[Recommendation, ...]:
    """Return options A to D for the chosen phase; nothing where no phase was chosen."""
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return ()
    item = phase.evaluations[set_name]
    return (
        _threshold(phase, set_name),
        _data(item, set_name),
        _modules(summary, phase),
        _continued(phase),
    )


def immediate_action(summary: Summary) -> tuple[str, ...]:
    """Return what the deployment record, else the gate, says is to be done now."""
    phase = summary.chosen
    if phase is None:
        return ("Choose a phase: nothing was chosen, so there is nothing to deploy.",)
    record, verdict = phase.deployment, phase.verdict
    if record is not None:
        lines = [f"{DEPLOYMENT_WORDS[record.status]}: {record.model} on {record.set}."]
        lines += [f"Condition: {mapping_words(one)}." for one in record.conditions]
        if record.next_action is not None:
            due = "" if record.due is None else f", due {record.due}"
            lines.append(f"Next action: {record.next_action}{due}.")
        return tuple(lines)
    if verdict is not None:
        return (f"The gate's verdict on {verdict.set} is {verdict.outcome}.",)
    return (
        f"Do not deploy {phase.name} on this evidence: no gate was run "
        "(evenhand gate RUN --on SET --criteria FILE.json).",
    )


def _threshold(phase: PhaseReport, set_name: str) -> Recommendation:
    item = phase.evaluations[set_name]
    report, fitted = phase.threshold_report, phase.threshold
    purpose, method = (
        "A better balance between recall and false positives, above all in the groups.",
        "Tune one global decision threshold on validation rows and report once on the others: "
        f"evenhand threshold RUN --fit-on NAME --report-on {set_name}.",
    )
    time = _NO_RETRAINING
    if report is not None:
        tests = [test for pair in report.comparison.pairs for test in pair.tests]
        shown = [test for test in tests if test.verdict in ("better", "worse")]
        measured = [
            f"{metric_name(test.metric)}{f' of {test.group}' if test.group else ''} "
            f"{points_with_interval(test.difference)} ({test.verdict})"
            for test in shown
        ]
        expected = (
            f"{listed(measured)}: measured on {report.set}, paired, with 95% intervals."
            if measured
            else f"No difference is shown on {report.set}, paired, after Holm's correction."
        )
        status = f"Done: {decimal(report.value, digits=4)} in place of {report.default:g}."
    elif fitted is not None:
        expected = "Not known: the threshold was not reported on rows it was not fitted on."
        status = "Fitted, not reported."
    elif item.reachable is not None and item.reachable.threshold is not None:
        found = item.reachable
        groups = listed(
            f"{group} {with_interval(one, as_percent=True)}" for group, one in found.groups.items()
        )
        expected = (
            f"At recall of at least {percent(found.floor, digits=0)} the lowest FPR on {set_name} "
            f"is {with_interval(found.fpr, as_percent=True)}{f' ({groups})' if groups else ''}, "
            f"at {found.threshold:.3f}. This threshold was read off the same rows: optimistic."
        )
        status = "Not done."
    else:
        expected = "Not possible with these predictions: they have decisions but no scores."
        method = "Score the rows first (evenhand evaluate RUN --method score), then tune."
        time = "one pass over the rows"
        status = "Not possible yet."
    return Recommendation(
        "Option A: Threshold Tuning", purpose, method, _rates(item), expected, time, status
    )


def _data(item: Evaluation, set_name: str) -> Recommendation:
    """Label policy for the gaps that composition accounts for, data for those beyond it."""
    higher = [
        group for group, gap in item.gaps.items() if gap.fpr.low is not None and gap.fpr.low > 0
    ]
    beyond = {
        group: ratio.fpr.adjusted.value or 0.0
        for group, ratio in item.composition.items()
        if ratio.fpr.adjusted.low is not None and ratio.fpr.adjusted.low > 1
    }
    composed = [group for group in higher if group in item.composition and group not in beyond]
    unknown = [group for group in higher if group not in item.composition]
    methods, status = [], []
    if composed:
        methods.append(
            f"Review with annotators how labels were mapped{_worst_kind(item)}, before any data "
            f"are added for {listed(composed)}."
        )
        status.append("Review the label policy before augmenting.")
    if beyond:
        group = max(beyond, key=lambda name: beyond[name])
        methods.append(
            f"Add normal posts about {group}, retrain, and compare with the old model on "
            "held-out rows by a paired test."
        )
        status.append(f"Augmentation is indicated for {group}.")
    if unknown:
        methods.append(f"Record source and original label of the posts about {listed(unknown)}.")
        status.append("Blocked on labels: composition and bias cannot be told apart.")
    if not methods:
        return Recommendation(
            "Option B: Data and Label Policy",
            "Fewer false positives in a group that has more of them than the others.",
            "Add normal posts about the group, retrain, compare on held-out rows.",
            _rates(item),
            f"No group's FPR is shown to be higher than the other rows' on {set_name}.",
            "not estimated",
            "Not indicated.",
        )
    named = dict.fromkeys([*higher, *beyond])
    words = "; ".join(
        f"{group}: {composition_words(item, group)}" for group in named if group not in unknown
    )
    caution = (
        " What data would bring is not known, and augmentation has also raised FPR on harmless "
        "mentions (arXiv 2205.04238): accept it only on a paired test."
        if beyond
        else " Data for a group do not change which kinds of posts it has."
    )
    return Recommendation(
        "Option B: Data and Label Policy",
        f"Fewer false positives for {listed(named)}.",
        " ".join(methods),
        _rates(item),
        (f"{words}." if words else "") + caution,
        "labels: days of review or collection; retraining: as long as before",
        " ".join(status),
    )


def _modules(summary: Summary, phase: PhaseReport) -> Recommendation:
    used = {
        one.name: tuple(main_configuration(one.config).get("lora_target_modules") or ())
        for one in summary.phases
        if one.config
    }
    own = used.get(phase.name, ())
    judged = judging_set(summary)
    tried = [
        name for name, modules in used.items() if name != phase.name and modules and modules != own
    ]
    found = []
    for name in tried:
        test = (
            None if judged is None else summary.paired_test(judged, (phase.name, name), metric="f1")
        )
        modules = listed(used[name])
        if test is None:
            found.append(f"{name} ({modules}) was not compared by a paired test")
        elif test.verdict == "no_evidence":
            smallest = (
                ""
                if test.minimum_detectable is None
                else f"; a difference below about {points(test.minimum_detectable)[1:]} would not "
                "have been found"
            )
            found.append(f"{name} ({modules}): no evidence of a difference in F1{smallest}")
        else:
            found.append(
                f"{name} ({modules}): F1 {points_with_interval(test.difference)}, {test.verdict}"
            )
    expected = f"{'; '.join(found)}." if found else "Not known: no phase has other modules."
    runtime = (phase.training or {}).get("runtime_seconds")
    return Recommendation(
        "Option C: Other Target Modules",
        "Find out whether other projections serve the task better.",
        "Train one phase that differs in lora_target_modules alone, with several seeds.",
        f"{phase.name} adapts {listed(own)}." if own else "Not recorded.",
        expected,
        f"about {duration(runtime)} a phase" if is_number(runtime) else UNKNOWN,
        "Exploratory.",
    )


def _continued(phase: PhaseReport) -> Recommendation:
    training = phase.training or {}
    falling = still_improving(phase)
    rate_used = phase.config.get("learning_rate")
    runtime, epochs = training.get("runtime_seconds"), training.get("final_epoch")
    time = UNKNOWN
    if is_number(runtime) and is_number(epochs) and epochs > 0:
        time = f"about {duration(2 * runtime / epochs)}"
    lower = f" ({rate_used / 2:g})" if is_number(rate_used) else ""
    if falling is not None:
        expected = (
            f"The evaluation loss fell by {falling:.1%} to the last checkpoint, which is the best; "
            "what that is worth in F1 is not known until it is tested."
        )
        status = "Indicated: the loss was still improving."
    elif training.get("checkpoints"):
        expected = "None: the last checkpoint is not shown to improve on the one before."
        status = "Not indicated."
    else:
        expected = "Not known: no training history was recorded."
        status = "Not indicated."
    best = next(
        (one.get("eval_loss") for one in training.get("checkpoints") or () if one.get("best")), None
    )
    return Recommendation(
        "Option D: Continued Training",
        "Use what is left in the training data.",
        f"Continue from the adapter with half the learning rate{lower} for two more epochs.",
        f"Best evaluation loss {decimal(best, digits=4)}.",
        expected,
        time,
        status,
    )


def _rates(item: Evaluation) -> str:
    if not item.groups:
        return f"FPR {with_interval(item.metrics.fpr, as_percent=True)}."
    parts: Sequence[str] = [
        f"{group} {rate(part.fpr.value)}"
        for group, part in item.groups.items()
        if part.fpr.value is not None
    ]
    worst = worst_group_fpr(item)
    note = "" if worst is None else f"; highest: {with_interval(worst[1], as_percent=True)}"
    return f"FPR {listed(parts) or 'undefined in every group'} on {item.name}{note}."


def _worst_kind(item: Evaluation) -> str:
    """Name the fine label with the highest FPR, where it is shown to be above the overall rate."""
    overall = item.metrics.fpr.value
    kinds = [
        part
        for part in item.slices
        if set(part.keys) == {"fine_label"} and not part.negatives.too_small
    ]
    shown = [
        part
        for part in kinds
        if overall is not None and part.fpr.low is not None and part.fpr.low > overall
    ]
    if not shown:
        return ""
    worst = max(shown, key=lambda part: part.fpr.value or 0.0)
    value = with_interval(worst.fpr, as_percent=True)
    return f" (posts labelled {worst.keys['fine_label']} and counted as normal: FPR {value})"
