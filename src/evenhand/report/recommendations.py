"""What to do next, and why: an immediate action and options A to D, each from evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evenhand.core.decisions import ThresholdReport
from evenhand.core.evaluation import Evaluation
from evenhand.report.comparison import judging_set, main_set, unranked_words, worst_group_fpr
from evenhand.report.composed import composition_words, missing_words, read_gap
from evenhand.report.configuration import (
    best_loss,
    changed_keys,
    improves_clearly,
    main_configuration,
    of_same_size,
    still_improving,
)
from evenhand.report.decided import (
    DEPLOYMENT_WORDS,
    condition_words,
    judged_at,
    next_action_words,
    outcome_words,
)
from evenhand.report.mitigations import METHODS, tried_words
from evenhand.report.paired import effect_words
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.tables import VERDICT_WORDS
from evenhand.report.wording import (
    UNKNOWN,
    about_time,
    counted,
    decimal,
    is_number,
    listed,
    metric_name,
    percent,
    points,
    rate,
    with_interval,
)

_NO_RETRAINING = "minutes: the scores that are there are enough, nothing is trained"
_WITHOUT_ADAPTER = {"full": "trains every weight, of all modules", "none": "was not trained"}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


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
    return (
        _threshold(phase, set_name),
        _with_tried(summary, _data(summary, phase, set_name)),
        _modules(summary, phase),
        _continued(summary, phase),
    )


def immediate_action(summary: Summary) -> tuple[str, ...]:
    """Return what the deployment record, else the gate, says is to be done now."""
    phase = summary.chosen
    if phase is None:
        return ("Choose a phase: nothing was chosen, so there is nothing to deploy.",)
    record, verdict = phase.deployment, phase.verdict
    if record is None and verdict is None:
        return (
            f"Do not deploy {phase.name} on this evidence: no gate was run "
            "(evenhand gate RUN --on SET --criteria FILE.json).",
        )
    lines = []
    if record is not None:
        lines.append(f"{DEPLOYMENT_WORDS[record.status]}: {record.model} on {record.set}.")
    if verdict is not None:
        required = [one for one in verdict.results if one.role == "required"]
        passed = sum(one.status == "pass" for one in required)
        lines.append(
            f"The gate's verdict on {verdict.set}, {judged_at(verdict)}, is "
            f"{outcome_words(verdict)}. Of the required criteria {passed} of {len(required)} pass."
        )
    told = dict.fromkeys((judging_set(summary), main_set(summary, phase)))
    for name, item in ((name, phase.evaluations.get(name or "")) for name in told):
        if item is not None:
            at = "" if item.threshold is None else f" at the threshold {item.threshold:g}"
            f1 = with_interval(item.metrics.f1)
            lines.append(f"F1 on {name} ({counted(item.n_scored, 'row')}){at}: {f1}.")
    if record is not None:
        lines += [f"Condition: {condition_words(one)}" for one in record.conditions]
        lines.append(f"Next action: {next_action_words(record)}")
    return tuple(lines)


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
        expected = _measured_effect(report)
        status = f"Done: {decimal(report.value, digits=4)} in place of {report.default:g}."
    elif fitted is not None:
        expected = "Not known: the threshold was not reported on rows it was not fitted on."
        status = f"Fitted ({decimal(fitted.value, digits=4)}), not reported."
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
        time = "one pass over the rows; nothing is trained"
        status = "Not possible yet: scores are missing."
    record = phase.deployment
    if report is None and record is not None and "threshold" in (record.next_action or ""):
        status += "" if record.due is None else f" Asked for by {record.due}."
    return Recommendation(
        "Option A: Threshold Tuning", purpose, method, _rates(item), expected, time, status
    )


def _measured_effect(report: ThresholdReport) -> str:
    """Return what a tuned threshold does to F1, recall and each FPR on rows of its own."""
    effects = []
    for test in (test for pair in report.comparison.pairs for test in pair.tests):
        is_told = test.metric == "f1" or test.metric == "fpr" or test.group is None
        if is_told and test.difference.value is not None:
            subject = metric_name(test.metric) + (f" of {test.group}" if test.group else "")
            effects.append(f"{subject} {effect_words(test)}: {VERDICT_WORDS[test.verdict]}")
    if not effects:
        return f"Not known: nothing was tested on {report.set}."
    return (
        f"{'; '.join(effects)}. Measured on {counted(report.n, 'row')} of {report.set} that it was "
        "not fitted on: paired, 95% intervals."
    )


def _data(summary: Summary, phase: PhaseReport, set_name: str) -> Recommendation:
    """Label policy for the gaps that composition accounts for, data for those beyond it."""
    item = phase.evaluations[set_name]
    higher = [
        group for group, gap in item.gaps.items() if gap.fpr.low is not None and gap.fpr.low > 0
    ]
    read = {group: read_gap(item, group) for group in (*higher, *item.composition)}
    beyond = {
        group: item.composition[group].fpr.adjusted.value or 0.0
        for group, reading in read.items()
        if reading.kind == "beyond"
    }
    composed = [group for group in higher if read[group].kind == "composed"]
    open_ones = [group for group in higher if read[group].kind == "undetermined"]
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
        if not summary.acceptances:  # else what was tried says more
            status.append(f"Augmentation is indicated for {group}.")
    for group in open_ones:
        methods.append(missing_words(item, group))
        status.append(
            f"Undetermined for {group}: {read[group].missing} are missing to tell composition from "
            "bias."
        )
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
    words = "; ".join(f"{group}: {composition_words(item, group)}" for group in named)
    caution = (
        " What data would bring is not known, and augmentation has also raised FPR on harmless "
        "mentions (arXiv 2205.04238): accept it only on a paired test."
        if beyond
        else ""
    )
    if composed:
        caution += " Data for a group do not change which kinds of posts it has."
    return Recommendation(
        "Option B: Data and Label Policy",
        f"Fewer false positives for {listed(named)}.",
        " ".join(methods),
        _rates(item),
        (f"{words}." if words else "") + caution,
        "days for review or collection of labels (an estimate); retraining "
        f"{_phase_time(summary, phase)}",
        " ".join(status),
    )


def _with_tried(summary: Summary, option: Recommendation) -> Recommendation:
    """Put what was tried and measured in the place of what can be tried."""
    if not summary.acceptances:
        can_be = f"Can be tried as keys of a phase: {listed(METHODS)}."
        return replace(option, method=f"{option.method} {can_be}")
    status, effects = tried_words(summary.acceptances)
    return replace(
        option,
        expected=f"Measured: {effects}. {option.expected}",
        status=f"{status} {option.status}".removesuffix(" Not indicated."),
    )


def _modules(summary: Summary, phase: PhaseReport) -> Recommendation:
    used = {
        one.name: tuple(main_configuration(one.phases[0].config).get("lora_target_modules") or ())
        for one in summary.settings
    }
    own = used[summary.setting(phase).name]
    tried = [one for one in summary.settings if used[one.name] and used[one.name] != own]
    found = [
        f"{one.name} ({listed(used[one.name])}{_other_changes(summary, phase, one.phases[0])}): "
        f"{_tested_f1(summary, phase, one.phases[0])}"
        for one in tried
    ]
    untried = [name for name in _PROJECTIONS if all(name not in one for one in used.values())]
    named = f" ({listed(untried)} not tried yet)" if own and untried else ""
    method = (
        f"Train one phase that differs in lora_target_modules alone{named}, or in the rank too "
        "where that keeps the trainable parameters equal, with several seeds."
    )
    current = f"{phase.name} adapts {listed(own)}." if own else "Not recorded."
    if phase.config.get("tuning") in _WITHOUT_ADAPTER:
        method = "Train an adapter, with several seeds."
        current = f"{phase.name} {_WITHOUT_ADAPTER[phase.config['tuning']]}."
    return Recommendation(
        "Option C: Other Target Modules",
        "Find out whether other projections serve the task better.",
        method,
        current,
        f"{'; '.join(found)}." if found else "Not known: no phase has other modules.",
        _phase_time(summary, phase),
        "Exploratory." if not tried else f"Tried in {listed(one.name for one in tried)}.",
    )


def _continued(summary: Summary, phase: PhaseReport) -> Recommendation:
    training = phase.training or {}
    falling, is_indicated = still_improving(phase), improves_clearly(phase)
    children = [one for one in summary.phases if one.parent == phase.name]
    rate_used = phase.config.get("learning_rate")
    lower = f" ({rate_used / 2:g})" if is_number(rate_used) else ""
    if children:
        names = [summary.setting(one).name for one in children]
        found = [_tested_f1(summary, phase, one) for one in children]
        expected = f"{'; '.join(map(': '.join, zip(names, found, strict=True)))}."
        status = f"Done in {listed(names)}."
    elif falling is not None:
        expected = (
            f"The evaluation loss fell by {falling:.1%} to the last checkpoint, which is the best; "
            "what that is worth in F1 is not known until it is tested."
        )
        status = (
            "Indicated: the loss was still improving."
            if is_indicated
            else "A hint, untested: over so few checkpoints, or by so little, it may be noise."
        )
    elif training.get("checkpoints"):
        expected = "None: the last checkpoint is not shown to improve on the one before."
        status = "Not indicated."
    else:
        expected = "Not known: no training history was recorded."
        status = "Not indicated."
    runtime, epochs = training.get("runtime_seconds"), training.get("final_epoch")
    anew = phase.config.get("tuning") == "full"
    time = UNKNOWN
    if is_number(runtime) and is_number(epochs) and epochs > 0:
        wanted = about_time((epochs + 2 if anew else 2) * runtime / epochs)
        time = f"{wanted}, since {epochs:g} epochs took {about_time(runtime)}"
    more = {
        "full": "Train anew with two more epochs (only an adapter can be continued)",
        "none": "Train an adapter first (there is none to continue)",
    }.get(
        phase.config.get("tuning", "lora"),
        f"Continue from the adapter with half the learning rate{lower} for two more epochs",
    )
    return Recommendation(
        "Option D: Continued Training",
        "Use what is left in the training data.",
        f"{more}, and compare with the old model by a paired test.",
        f"Best evaluation loss {decimal(best_loss(training), digits=4)}.",
        expected,
        time,
        status,
    )


def _other_changes(summary: Summary, phase: PhaseReport, other: PhaseReport) -> str:
    """Name what else two phases with other modules differ in."""
    changed = [key for key in changed_keys(summary, phase, other) if key != "lora_target_modules"]
    sizes = "; as many trainable parameters" if of_same_size(phase, other) else ""
    rest = f"; {listed(changed)} differ{'s' if len(changed) == 1 else ''} too" if changed else ""
    return sizes + rest


def _tested_f1(summary: Summary, phase: PhaseReport, other: PhaseReport) -> str:
    """Return the paired test of another phase's F1 against a phase's, in words."""
    judged = judging_set(summary)
    test = (
        None
        if judged is None
        else summary.paired_test(judged, (phase.name, other.name), metric="f1")
    )
    if test is None or test.difference.value is None:
        return "not compared by a paired test"
    text = f"{VERDICT_WORDS[test.verdict]} in F1 on {judged}, {effect_words(test)}"
    if test.verdict == "no_evidence" and test.minimum_detectable is not None:
        smallest = points(test.minimum_detectable)[1:]
        text += f" (a difference under about {smallest} may go unnoticed)"
    return text


def _phase_time(summary: Summary, phase: PhaseReport) -> str:
    """Return how long a phase takes: the phase's own time, else that of any other."""
    for one in (phase, *summary.phases):
        runtime = (one.training or {}).get("runtime_seconds")
        if is_number(runtime):
            return f"{about_time(runtime)} a phase, as {one.name} took, and its validation"
    return UNKNOWN


def _rates(item: Evaluation) -> str:
    if not item.groups:
        return f"FPR {with_interval(item.metrics.fpr, as_percent=True)}."
    parts: Sequence[str] = [
        f"{group} {rate(part.fpr.value)}"
        for group, part in item.groups.items()
        if part.fpr.value is not None
    ]
    worst = worst_group_fpr(item)
    note = (
        ""
        if worst is None
        else f"; highest: {worst[0]}, {with_interval(worst[1], as_percent=True)}"
    )
    note += unranked_words(item)
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
