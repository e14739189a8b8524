"""What ``evenhand watch`` prints: the monitor's report, alarms, a retuned threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evenhand.cli.databases import moment
from evenhand.core.evaluation import MetricValue
from evenhand.experiment.retuning import Retuned
from evenhand.report.decided import (
    deployment_facts,
    gate_table,
    gate_warnings,
    outcome_words,
    threshold_facts,
)
from evenhand.report.wording import (
    cell,
    count,
    counted,
    decimal,
    listed,
    metric_name,
    percent,
    points,
    reason_words,
    table,
    terminal,
    with_interval,
)
from evenhand.watch.alarm_book import KeptAlarm
from evenhand.watch.duties import Duty
from evenhand.watch.monitor import MonitorReport
from evenhand.watch.statistics.refitting import ALL, Change, NoRefit

_DAYS_SHOWN = 7


def report_text(report: MonitorReport) -> str:
    """Return a report as the tables of ``evenhand watch status``."""
    watched = [one.group for one in report.estimates if one.metric == "fpr" and one.group]
    blocks = [
        _heading(report),
        *([alarms_markdown(report.alarms)] if report.alarms else ["No alarm is open."]),
        _rates(report),
        "\n".join(cell(sentence) for sentence in (*report.notes, *report.needed)),
        *([_duties(report.duties)] if report.duties else []),
        _traffic(report, watched),
        _work(report),
    ]
    return terminal("\n\n".join(block for block in blocks if block))


def alarms_text(alarms: Sequence[KeptAlarm]) -> str:
    """Return alarms as a table, or that there is none."""
    return terminal(alarms_markdown(alarms) if alarms else "No alarm is open.")


def alarms_markdown(alarms: Sequence[KeptAlarm]) -> str:
    """Return alarms as a table."""
    with_closed = any(one.closed is not None for one in alarms)
    rows = [
        [
            str(one.id),
            one.kind,
            one.subject,
            moment(one.opened),
            *([_closed(one)] if with_closed else []),
            one.message,
        ]
        for one in alarms
    ]
    closed = ["Closed"] if with_closed else []
    return table(["Alarm", "Kind", "Subject", "Opened (UTC)", *closed, "Message"], rows)


def report_document(report: MonitorReport) -> dict[str, Any]:
    """Return a report as a JSON document."""
    return {
        "release": report.release_id,
        "model": report.release.model,
        "threshold": report.release.threshold,
        "outcome": report.release.outcome,
        "status": None if report.release.deployment is None else report.release.deployment.status,
        "overrides": [one.model_dump(mode="json") for one in report.release.overrides],
        "time": report.time.isoformat(),
        "first_started": report.first_started.isoformat(),
        "estimates": [
            {
                **asdict(one),
                "offline": report.offline.get((one.metric, one.group)),
                "bound": report.bounds.get(one.group or "") if one.metric == "fpr" else None,
            }
            for one in report.estimates
        ],
        "offline_set": report.offline_set,
        "alarms": [alarm_document(one) for one in report.alarms],
        "needed": list(report.needed),
        "notes": list(report.notes),
        "posts": report.traffic.posts,
        "errors": report.traffic.errors,
        "error_rate": report.error_rate,
        "days": [{**asdict(one), "day": one.day.isoformat()} for one in report.traffic.days],
        "budget": asdict(report.budget),
        "queue": asdict(report.queue),
        "duties": [
            {**asdict(one), "due": None if one.due is None else one.due.isoformat()}
            for one in report.duties
        ],
    }


def alarm_document(alarm: KeptAlarm) -> dict[str, Any]:
    """Return an alarm as a JSON document."""
    return {
        "id": alarm.id,
        "kind": alarm.kind,
        "subject": alarm.subject,
        "opened": alarm.opened.isoformat(),
        "message": alarm.message,
        "evidence": dict(alarm.evidence),
        "closed": None if alarm.closed is None else alarm.closed.isoformat(),
        "reason": alarm.reason,
    }


def retuned_text(retuned: Retuned, run: Path) -> str:
    """Return what came of retuning as tables and sentences."""
    if isinstance(retuned.fitted, NoRefit):
        return terminal("\n\n".join(_no_refit(retuned.fitted)))
    assert retuned.change is not None
    assert retuned.threshold is not None
    assert retuned.verdict is not None
    assert retuned.deployment is not None
    facts = [*threshold_facts(retuned.threshold), *deployment_facts(retuned.deployment)]
    changed = retuned.change
    split = len(threshold_facts(retuned.threshold))
    sure = percent(changed.confidence, digits=0)
    blocks = [
        _facts(facts[:split]),
        f"On {counted(changed.n, 'reviewed post')} that it was not fitted on, weighted to all "
        f"posts ({count(changed.pending)} more without a label), with {sure} intervals: "
        "time-uniform for FPR and FNR, a weighted bootstrap for F1, precision, recall and "
        "differences:",
        _change(changed),
        f"Gate on {cell(retuned.verdict.set)} ({counted(retuned.verdict.n, 'row')}) by the "
        f"criteria {cell(retuned.verdict.criteria_name)}:",
        gate_table(retuned.verdict),
        f"Verdict: {cell(outcome_words(retuned.verdict))}",
        *gate_warnings(retuned.verdict),
        *_outcome(retuned, facts[split:], run),
    ]
    return terminal("\n\n".join(blocks))


def _outcome(retuned: Retuned, facts: list[tuple[str, str]], run: Path) -> list[str]:
    if retuned.status != "replaced":
        also = " --accept-review takes it all the same." * (
            retuned.verdict is not None
            and retuned.verdict.outcome == "REVIEW"
            and not retuned.verdict.vacuous
        )
        return [f"Nothing was replaced; the candidate is in {cell(run / 'retune.json')}.{also}"]
    done = [
        f"Duty done: {cell(one.get('criterion', 'condition'))}: "
        f"{cell(one.get('action', ''))} (was due {cell(one.get('due', '-'))})"
        for one in retuned.done
    ]
    return [
        _facts(facts),
        *(["\n".join(done)] if done else []),
        f"The new threshold is in place; the old decisions are in {cell(retuned.history)}. A "
        "running server goes on with the old one: restart `evenhand serve` to serve the new.",
    ]


def _no_refit(missing: NoRefit) -> list[str]:
    rule = missing.rule
    limits = [
        *(
            [f"each group's FPR at most {percent(rule.max_group_fpr)}"]
            if rule.max_group_fpr
            else []
        ),
        *(
            [f"each group's FPR at most {points(rule.max_fpr_gap)[1:]} above that of the others"]
            if rule.max_fpr_gap
            else []
        ),
    ]
    what = {
        "not_certified": "No threshold keeps the limits",
        "no_hate_found": "The thresholds that keep the limits find no hateful post at all",
    }[missing.reason]
    rows = [
        [
            name,
            count(one.labels),
            _percent(one.fpr),
            percent(one.fpr_upper),
            "yes" if one.meets else "no",
        ]
        for name, one in missing.groups.items()
    ]
    return [
        f"{what}: {listed(limits) or 'none'}, with {percent(rule.confidence, digits=0)} "
        f"confidence, on {counted(missing.n, 'reviewed post')}. Nothing was replaced.",
        f"At {missing.stopped_at:g}, where the search stopped:",
        table(["Group", "Normal posts", "FPR", "FPR, at most", "Keeps the limits"], rows),
        "More reviews narrow the bounds; `evenhand watch status` says about how many.",
    ]


def _change(changed: Change) -> str:
    before, after = changed.before, changed.after
    rows = [
        [
            metric_name(name),
            *(
                with_interval(one.f1) if name == "f1" else _shown(getattr(one, name))
                for one in (before, after)
            ),
            _difference(changed.difference.get(name)),
        ]
        for name in ("f1", "precision", "recall")
    ]
    for metric in ("fpr", "fnr"):
        rates = [getattr(point, metric) for point in (before, after)]
        rows += [
            [
                f"{metric.upper()} {'all posts' if group == ALL else group}",
                *(_shown(one[group]) for one in rates),
                _difference(changed.difference.get(f"{metric} {group}")),
            ]
            for group in rates[0]
        ]
    header = [
        "Metric",
        f"Before, at {decimal(before.threshold, digits=4)}",
        f"After, at {decimal(after.threshold, digits=4)}",
        "Difference",
    ]
    return table(header, rows)


def _heading(report: MonitorReport) -> str:
    release = report.release
    deployment = release.deployment
    facts = [
        ("Release", f"{report.release_id[:12]} ({cell(release.model)})"),
        ("Threshold", decimal(release.threshold, digits=4)),
        ("Gate", cell(release.outcome or "no verdict")),
        *([("Status", cell(deployment.status.replace("_", " ")))] if deployment else []),
        *(("Accepted", cell(f"{one.code}: {one.reason}")) for one in release.overrides),
        ("Served since", f"{moment(report.first_started)} UTC"),
        ("Posts", f"{count(report.traffic.posts)}, {percent(report.error_rate)} not scored"),
    ]
    return _facts(facts)


def _rates(report: MonitorReport) -> str:
    offline = "Offline" if report.offline_set is None else f"Offline ({report.offline_set})"
    rows = [
        [
            f"{one.metric.upper()} {one.group or 'all posts'}",
            _percent(one.value),
            f"{percent(one.low)} to {percent(one.high)}",
            _percent(report.offline.get((one.metric, one.group))),
            _percent(report.bounds.get(one.group or "") if one.metric == "fpr" else None),
            count(one.labels),
            count(one.pending),
        ]
        for one in report.estimates
    ]
    header = ["Rate", "Production", "Time-uniform interval", offline, "Bound", "Labels", "Pending"]
    return table(header, rows)


def _duties(duties: Sequence[Duty]) -> str:
    rows = [
        [
            one.name,
            "-"
            if one.due is None
            else one.due.isoformat() + (" OVERDUE" if one.is_overdue else ""),
            one.owner,
            one.action,
        ]
        for one in duties
    ]
    return table(["Duty", "Due", "Owner", "Action"], rows)


def _traffic(report: MonitorReport, groups: Sequence[str]) -> str:
    names = [*groups, "none"]
    days = [one for one in report.traffic.days if one.posts][-_DAYS_SHOWN:]
    rows = [
        [
            one.day.isoformat(),
            count(one.posts),
            *(count(one.decisions.get(name, 0)) for name in ("hate", "normal", "error")),
            *(count(one.groups.get(name, 0)) for name in names),
            count(one.sampled),
            count(one.labels),
        ]
        for one in days
    ]
    header = ["Day (UTC)", "Posts", "Hate", "Normal", "Not scored"]
    proposed = [f"Proposed {name}" for name in names]
    return table([*header, *proposed, "Sampled", "Labelled"], rows) if rows else ""


def _work(report: MonitorReport) -> str:
    queue, budget = report.queue, report.budget
    return "\n".join(
        [
            f"Budget: {count(budget.used_today)} of {budget.per_day:g} labels today; "
            f"{count(budget.sampled_today)} posts sampled today.",
            f"Queue: {count(queue.open)} open ({count(queue.second)} wait for a second reviewer), "
            f"{count(queue.disputed)} disputed, {count(queue.done)} settled, "
            f"{count(queue.erased)} erased unlabelled.",
        ]
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts)


def _shown(value: MetricValue) -> str:
    if value.value is None:
        return reason_words(value.reason)
    if value.low is None:
        return percent(value.value)
    return f"{percent(value.value)} [{percent(value.low)}, {percent(value.high)}]"


def _difference(value: MetricValue | None) -> str:
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return points(value.value)
    return f"{points(value.value)} [{points(value.low)[:-3]}, {points(value.high)[:-3]}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _closed(alarm: KeptAlarm) -> str:
    return "" if alarm.closed is None else f"{moment(alarm.closed)}: {alarm.reason}"
