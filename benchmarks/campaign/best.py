"""The recommended model: its candidates, and what it reaches of its aims, as Markdown."""

from __future__ import annotations

from benchmarks.campaign.catalogue import AIMS, GROUP, PRODUCTION, RECOMMENDED, VALIDATION
from benchmarks.campaign.words import (
    NOT_THERE,
    Record,
    count,
    difference,
    find_test,
    model_name,
    number,
    share,
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
        own, sets = found["sets"][VALIDATION], found["sets"]
        pair = next((one for one in pairs if (one["first"], one["second"]) == (best, entry)), None)
        rows.append(
            [
                entry,
                count(found["training"].get("rows")),
                number(own["f1"]),
                "" if pair is None else difference(find_test(pair, "f1")),
                number(own["roc_auc"]),
                share(sets.get("functional", {}).get("accuracy")),
                share(sets.get("hatecheck", {}).get("accuracy")),
                share(_figure(sets.get("hatecheck", {}), "specificity", None)),
            ]
        )
    header = ["candidate", "training rows", "F1, validation", f"less {best}", "ROC AUC, validation"]
    header += ["functional right", "HateCheck right", "HateCheck: normal right"]
    value = number(facts["entries"][best]["sets"][VALIDATION]["f1"])
    return f"{best} has the highest F1 on validation rows: {value}.", table(header, rows)


def aims(record: Record) -> tuple[str, str]:
    """Return which aims the recommended model reaches, and by how much it misses the others."""
    found = record["recommended"]
    if not found:
        return "Not run yet.", ""
    (model,) = found.values()
    rows = []
    outcomes: dict[str, list[str]] = {"reached": [], "missed": [], "open": []}
    for on, metric, group, words, sign, aim in AIMS:
        views = model["sets"].get(on, {"tuned": {}, "default": {}})
        value = _figure(views["tuned"], metric, group)
        if value is None or value["value"] is None:
            continue
        outcome = _outcome(value, sign, aim)
        outcomes[outcome].append(words)
        write = share if metric in _SHARES else number
        goal = f"{100 * aim:.0f}%" if metric in _SHARES else f"{aim:.2f}"
        before = write(_figure(views["default"], metric, group))
        rows.append([words, f"{sign} {goal}", write(value), before, outcome])
    threshold = f"{model['thresholds'][0]:.3f}"
    header = ["what", "aim", f"at the tuned threshold ({threshold})", "at 0.5", "outcome"]
    said = "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in outcomes.items())
    return f"Aims {said}.", table(header, rows)


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
                share(_figure(own, "fpr", GROUP)),
                share(_figure(own, "fnr", GROUP)),
                share(hatecheck.get("accuracy")),
                share(_figure(hatecheck, "specificity", None)),
            ]
        )
    best = max(known, key=lambda name: known[name]["sets"][PRODUCTION]["f1"]["value"])
    header = [
        "model",
        "training rows",
        "F1, validation",
        "F1",
        "less the recommended",
        "ROC AUC",
        "LGBTQ+ FPR",
    ]
    header += ["LGBTQ+ FNR", "HateCheck right", "HateCheck: normal right"]
    value = number(known[best]["sets"][PRODUCTION]["f1"])
    said = f"{model_name(best)} has the highest F1 on production rows: {value}"
    less = record["finals"].get(best)
    apart = (
        ""
        if less is None or _is_recommended(best)
        else f", {_less(best, less)} from the recommended"
    )
    return f"{said}{apart}.", table(header, rows)


def _is_recommended(name: str) -> bool:
    return name.startswith(f"{RECOMMENDED}/")


def _less(name: str, value: Record | None) -> str:
    if value is None or _is_recommended(name):
        return NOT_THERE
    return difference({**value, "difference": value["value"]})


def _outcome(value: Record, sign: str, aim: float) -> str:
    """Return on which side of the aim the whole interval lies; ``open`` where on neither."""
    above, below = value["low"] >= aim, value["high"] <= aim
    if sign == "<=":
        above, below = below, above
    return "reached" if above else "missed" if below else "open"


def _figure(facts: Record, metric: str, group: str | None) -> Record | None:
    if metric == "specificity":
        fpr = facts.get("fpr")
        if fpr is None or fpr["value"] is None:
            return None
        return {"value": 1 - fpr["value"], "low": 1 - fpr["high"], "high": 1 - fpr["low"]}
    if group is None:
        return facts.get(metric)
    return facts["groups"].get(group, {}).get(metric)
