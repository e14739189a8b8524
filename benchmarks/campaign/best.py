"""The recommended model: its candidates, and what it reaches of its aims, as Markdown."""

from __future__ import annotations

from benchmarks.campaign.catalogue import AIMS, GROUP, PRODUCTION, RECOMMENDED, VALIDATION
from benchmarks.campaign.words import (
    NOT_THERE,
    Record,
    as_test,
    count,
    difference,
    find_test,
    listed,
    model_name,
    number,
    share,
    specificity,
    table,
)

_SHARES = ("fpr", "fnr", "accuracy", "specificity")


def candidates(record: Record) -> tuple[str, str]:
    """Return which candidate is the best on validation rows, and all of them."""
    facts = record["experiments"]["recommended"]
    if not facts.get("entries"):
        return "Not run yet.", ""
    rows = []
    best = facts["compared_with"]
    pairs = (facts["comparisons"].get(VALIDATION) or {"pairs": []})["pairs"]
    for entry, found in facts["entries"].items():
        sets = found["sets"]
        own = sets.get(VALIDATION, {})
        pair = next((one for one in pairs if (one["first"], one["second"]) == (best, entry)), None)
        rows.append(
            [
                entry,
                count(found["training"].get("rows")),
                number(own.get("f1")),
                "" if pair is None else difference(find_test(pair, "f1")),
                number(own.get("roc_auc")),
                share(sets.get("functional", {}).get("accuracy")),
                share(sets.get("hatecheck", {}).get("accuracy")),
                specificity(sets.get("hatecheck", {})),
            ]
        )
    header = ["candidate", "training rows", "F1, validation", f"F1 minus that of {best}"]
    header += ["ROC AUC, validation"]
    header += ["functional right", "HateCheck right", "HateCheck: normal right"]
    if best is None:
        return "Not enough is finished to say.", table(header, rows)
    value = number(facts["entries"][best]["sets"][VALIDATION]["f1"])
    rivals = [
        f"{pair['second']} ({difference(test)})"
        for pair in pairs
        if pair["first"] == best
        and pair["second"] in facts["entries"]
        and (test := find_test(pair, "f1")) is not None
        and test["verdict"] not in ("better", "worse")
    ]
    said = f"{best} has the highest F1 on validation rows: {value}"
    rest = f"; not shown to differ from it: {listed(rivals)}" if rivals else ""
    return f"{said}{rest}.", table(header, rows)


def aims(record: Record) -> tuple[str, str]:
    """Return which aims the recommended model reaches, and by how much it misses the others."""
    found = record["recommended"]
    if not found:
        return "Not run yet.", ""
    model = next(iter(found.values()))
    rows = []
    outcomes: dict[str, dict[str, list[str]]] = {"tuned": {}, "default": {}}
    for on, metric, group, words, sign, aim in AIMS:
        views = model["sets"].get(on, {"tuned": {}, "default": {}})
        values = {view: _figure(views[view], metric, group) for view in outcomes}
        if any(value is None or value["value"] is None for value in values.values()):
            continue
        write = share if metric in _SHARES else number
        goal = f"{100 * aim:.0f}%" if metric in _SHARES else f"{aim:.2f}"
        row = [words, f"{sign} {goal}"]
        for view, value in values.items():
            outcome = _outcome(value or {}, sign, aim)
            outcomes[view].setdefault(outcome, []).append(words)
            row += [write(value), outcome]
        rows.append(row)
    tuned = f"at the tuned threshold ({model['thresholds'][0]:.3f})"
    header = ["what", "aim", tuned, "outcome there", "at 0.5", "outcome at 0.5"]
    said = [
        f"{where} {_in_words(outcomes[view])}"
        for view, where in (("default", "At 0.5"), ("tuned", f"{tuned[0].upper()}{tuned[1:]}"))
    ]
    return " ".join(said), table(header, rows)


def _in_words(outcomes: Record) -> str:
    parts = [
        f"{what}: {', '.join(outcomes.get(what, ())) or 'none'}"
        for what in ("reached", "missed", "open")
    ]
    return f"{'; '.join(parts)}."


def finals(record: Record) -> tuple[str, str]:
    """Return every final model on the production rows, and which has the highest F1."""
    known = {
        f"{name}/{entry}": found
        for name, facts in record["experiments"].items()
        for entry, found in facts.get("entries", {}).items()
        if PRODUCTION in found["sets"]
    }
    if not known:
        return "Not run yet.", ""
    rows = []
    for name, found in known.items():
        own, hatecheck = found["sets"][PRODUCTION], found["sets"].get("hatecheck", {})
        less = record["finals"].get(name)
        rows.append(
            [
                model_name(name),
                count(found["training"].get("rows")),
                number(found["sets"].get(VALIDATION, {}).get("f1")),
                number(own["f1"]),
                _less(name, less),
                number(own["roc_auc"]),
                share(own["fpr"]),
                share(_figure(own, "fpr", GROUP)),
                share(_figure(own, "fnr", GROUP)),
                share(hatecheck.get("accuracy")),
                specificity(hatecheck),
                _minutes(found["training"].get("runtime_seconds")),
            ]
        )
    best = max(known, key=lambda name: known[name]["sets"][PRODUCTION]["f1"]["value"] or 0.0)
    header = ["model", "training rows", "F1, validation", "F1", "F1 minus the recommended's"]
    header += ["ROC AUC", "FPR", "LGBTQ+ FPR", "LGBTQ+ FNR", "HateCheck right"]
    header += ["HateCheck: normal right", "training minutes"]
    value = number(known[best]["sets"][PRODUCTION]["f1"])
    said = f"{model_name(best)} has the highest F1 on production rows: {value}"
    less = record["finals"].get(best)
    apart = (
        ""
        if less is None or _is_recommended(best)
        else f" ({_less(best, less)} from the recommended one's)"
    )
    return f"{said}{apart}.", table(header, rows)


def _minutes(seconds: float | None) -> str:
    return NOT_THERE if seconds is None else f"{seconds / 60:.0f}"


def _is_recommended(name: str) -> bool:
    return name.startswith(f"{RECOMMENDED}/")


def _less(name: str, value: Record | None) -> str:
    return NOT_THERE if _is_recommended(name) else difference(as_test(value))


def _outcome(value: Record, sign: str, aim: float) -> str:
    """Return on which side of the aim the whole interval lies; ``open`` where on neither."""
    if value.get("low") is None or value.get("high") is None:
        return "open"
    above, below = value["low"] >= aim, value["high"] <= aim
    if sign == "<=":
        above, below = below, above
    return "reached" if above else "missed" if below else "open"


def _figure(facts: Record, metric: str, group: str | None) -> Record | None:
    if metric == "specificity":
        fpr = facts.get("fpr")
        if fpr is None or fpr["value"] is None:
            return None
        low, high = (None if fpr[end] is None else 1 - fpr[end] for end in ("high", "low"))
        return {"value": 1 - fpr["value"], "low": low, "high": high}
    if group is None:
        return facts.get(metric)
    return facts["groups"].get(group, {}).get(metric)
