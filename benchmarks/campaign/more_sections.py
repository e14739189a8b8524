"""Questions 6 to 8, the learning curve and the label noise, and what was run, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.campaign.catalogue import GROUP, HELD_OUT, PRODUCTION, RECALL_FLOOR, VALIDATION
from benchmarks.campaign.facts import BASELINE_NAME
from benchmarks.campaign.words import (
    NOT_THERE,
    Record,
    count,
    difference,
    find_test,
    listed,
    model_name,
    number,
    points,
    seeds_behind,
    set_name,
    share,
    shown_sets,
    specificity,
    table,
    turned,
    with_one_baseline,
)


def recall_floor(record: Record) -> tuple[str, str]:
    """Question 6: the lowest LGBTQ+ FPR at a recall of 75%, and what the gap is made of."""
    found = with_one_baseline(record["recall_floor"])
    if not found:
        return "Not run yet.", ""
    rows: list[list[str]] = []
    for name, one in found.items():
        for on, facts in shown_sets(name, one["sets"]).items():
            made = facts["composition"] or {}
            labels = facts["by_fine_label"]
            offensive = labels.get("offensive", {})
            kinds = ("offensive", "normal", "benign_implicit")
            rows.append(
                [
                    model_name(name),
                    set_name(on),
                    share(facts["recall"]),
                    share(facts["groups"][GROUP]["fpr"]),
                    share({**facts["groups"][GROUP]["fnr"]})
                    if "fnr" in facts["groups"][GROUP]
                    else NOT_THERE,
                    number(made.get("crude"), digits=2),
                    number(made.get("adjusted"), digits=2),
                    *[share(labels.get(kind, {}).get("fpr")) for kind in kinds],
                    share({"value": offensive.get("share_of_false_positives")}),
                ]
            )
    header = ["model", "judged on", "recall", "LGBTQ+ FPR", "LGBTQ+ FNR", "ratio to other rows"]
    header += ["ratio, like for like (same source and original label)"]
    header += ["FPR, HateXplain offensive", "FPR, HateXplain normal", "FPR, ToxiGen benign"]
    header += ["share of its false positives that are offensive"]
    judged = PRODUCTION if any(PRODUCTION in one["sets"] for one in found.values()) else HELD_OUT
    best = _lowest(found, judged)
    if best is None:
        return "Not enough is finished to say.", table(header, rows)
    name, facts = best
    made_of = _composition(name, facts, on=judged)
    body = "\n\n".join(filter(None, [made_of, table(header, rows)]))
    return _verdict_floor(name, facts, on=judged), body


def _lowest(found: Record, on: str) -> tuple[str, Record] | None:
    known = {
        name: one["sets"][on]
        for name, one in found.items()
        if on in one["sets"] and one["sets"][on]["groups"][GROUP]["fpr"]["value"] is not None
    }
    if not known:
        return None
    name = min(known, key=lambda key: known[key]["groups"][GROUP]["fpr"]["value"])
    return name, known[name]


def _verdict_floor(name: str, facts: Record, *, on: str) -> str:
    said = (
        f"At the threshold that finds {RECALL_FLOOR:.0%} of validation's hate, {model_name(name)} "
        f"has the lowest LGBTQ+ FPR seen on {set_name(on)} rows (not tested against the others'): "
        f"{share(facts['groups'][GROUP]['fpr'])}, with a recall of {share(facts['recall'])} and "
        f"{share(facts['groups'][GROUP].get('fnr'))} LGBTQ+ FNR."
    )
    adjusted = (facts["composition"] or {}).get("adjusted", {})
    if adjusted.get("value") is None:
        return said
    return (
        f"{said} Among rows of the same source and original label it is "
        f"{number(adjusted, digits=2)} times that of the other rows."
    )


def _composition(name: str, facts: Record, *, on: str) -> str:
    """Say how much of a model's gap between groups is which kinds of rows they have."""
    said = []
    made = facts["composition"]
    if made is not None and made["crude"]["value"] is not None:
        ratio = (
            f"On {set_name(on)} rows {model_name(name)}'s LGBTQ+ FPR is "
            f"{number(made['crude'], digits=2)} times that of the other rows, and "
            f"{number(made['adjusted'], digits=2)} times among rows of the same source and "
            "original label"
        )
        explained = made["explained"]
        gap = made["crude"]["value"] > 1.0 and explained is not None
        said.append(f"{ratio}: {explained:.0%} of the gap is composition." if gap else f"{ratio}.")
    offensive = facts["by_fine_label"].get("offensive")
    if offensive is not None and offensive["share_of_false_positives"] is not None:
        said.append(
            f"{offensive['share_of_false_positives']:.0%} of its LGBTQ+ false positives are rows "
            "that HateXplain's annotators called offensive and the corpus counts as normal."
        )
    return " ".join(said)


def small_models(record: Record) -> tuple[str, str]:
    """Question 7: the small models on quality, speed and memory."""
    facts = record["experiments"]["small_models"]
    if not facts.get("entries"):
        return "Not run yet.", ""
    speed: Record = record["speed"] or {}
    rows = [_model_row(entry, found, speed) for entry, found in facts["entries"].items()]
    baseline = facts["baselines"]
    held, hatecheck = baseline.get(HELD_OUT, {}), baseline.get("hatecheck", {})
    fpr = share(held.get("groups", {}).get(GROUP, {}).get("fpr"))
    filler = [NOT_THERE] * 4
    rows.append(
        [
            "TF-IDF",
            "1",
            NOT_THERE,
            number(held.get("f1")),
            number(held.get("roc_auc")),
            fpr,
            share(hatecheck.get("accuracy")),
            specificity(hatecheck),
            *filler,
        ]
    )
    header = ["model", "seeds", "trainable of all parameters", "F1", "ROC AUC", "LGBTQ+ FPR"]
    header += ["HateCheck right", "HateCheck: normal right", "training rows/s"]
    header += ["training peak memory", "scoring rows/s", "scoring peak memory"]
    said = "F1, ROC AUC and FPR on held-out rows.\n\n"
    return _verdict_models(facts), said + table(header, rows)


def _model_row(entry: str, found: Record, speed: Record) -> list[str]:
    training, held = found["training"], found["sets"].get(HELD_OUT, {})
    measured: Record = speed.get(f"small_models/{entry}", {})
    pair = [count(training.get(f"{kind}_parameters")) for kind in ("trainable", "total")]
    return [
        entry,
        str(len(found["seeds"])),
        " of ".join(pair),
        number(held.get("f1")),
        number(held.get("roc_auc")),
        share(held.get("groups", {}).get(GROUP, {}).get("fpr")),
        share(found["sets"].get("hatecheck", {}).get("accuracy")),
        specificity(found["sets"].get("hatecheck", {})),
        _digit(measured.get("training_rows_per_second")),
        _gib(measured.get("training_peak_bytes")),
        _digit(measured.get("scoring_rows_per_second")),
        _gib(measured.get("scoring_peak_bytes")),
    ]


def _verdict_models(facts: Record) -> str:
    known = {
        entry: found["sets"][HELD_OUT]["f1"]
        for entry, found in facts["entries"].items()
        if found["sets"].get(HELD_OUT, {}).get("f1", {}).get("value") is not None
    }
    if not known:
        return "Not enough is finished to say."
    best = max(known, key=lambda entry: known[entry]["value"])
    said = f"{best} has the highest F1 on held-out rows: {number(known[best])}"
    baseline = facts["baselines"].get(HELD_OUT)
    said += "." if baseline is None else f" (TF-IDF: {number(baseline.get('f1'))})."
    pairs = (facts["comparisons"].get(HELD_OUT) or {"pairs": []})["pairs"]
    over = {
        pair["second"]: find_test(pair, "f1") for pair in pairs if pair["first"] == BASELINE_NAME
    }
    better = {
        entry: test
        for entry, test in over.items()
        if test is not None and test["verdict"] == "better"
    }
    if over:
        shown = [f"{entry} ({difference(test)})" for entry, test in better.items()]
        named = {entry: facts["entries"][entry] for entry in better or over}
        behind = seeds_behind({"entries": named})
        said += f" Better than TF-IDF in F1, after Holm: {listed(shown)}; {behind}."
    control = facts["compared_with"]
    apart = [
        f"{pair['second']} is {test['verdict']} ({difference(test)})"
        for pair in pairs
        if pair["first"] == control
        and (test := find_test(pair, "f1")) is not None
        and test["verdict"] in ("better", "worse")
    ]
    if control is not None and len(facts["entries"]) > 1:
        same = [
            entry
            for entry in known
            if entry != control and not any(words.startswith(f"{entry} ") for words in apart)
        ]
        what = "; ".join(filter(None, [listed(apart, none=""), _not_apart(same)]))
        said += f" Against {control}, the best on validation rows: {what}."
    return said


def _not_apart(names: Sequence[str]) -> str:
    return f"{listed(names)} not shown to differ" if names else ""


def break_even(record: Record) -> tuple[str, str]:
    """Question 8: which threshold balances precision and recall, and how well it carries."""
    found = record["break_even"]
    if not found:
        return "Not run yet.", ""
    rows = []
    for name, one in found.items():
        for on, facts in shown_sets(name, one["sets"]).items():
            rows.append(
                [
                    model_name(name),
                    number(one),
                    set_name(on),
                    share(facts["precision"]),
                    share(facts["recall"]),
                    difference({**facts["difference"], "difference": facts["difference"]["value"]}),
                    f"{facts['own_threshold']:.3f}",
                    f"{100 * facts['hate_share']:.0f}%",
                ]
            )
    header = ["model", "threshold", "judged on", "precision", "recall", "recall - precision"]
    header += ["threshold that balances these rows", "share of hate"]
    judged = PRODUCTION if any(PRODUCTION in one["sets"] for one in found.values()) else HELD_OUT
    on = {name: one for name, one in found.items() if judged in one["sets"]}
    gaps = {
        name: gap
        for name, one in on.items()
        if (gap := one["sets"][judged]["difference"])["value"] is not None
    }
    off = [
        name
        for name, gap in gaps.items()
        if gap["low"] is not None and not gap["low"] <= 0.0 <= gap["high"]
    ]
    kept, lost = ([name for name in gaps if (name in off) is kind] for kind in (False, True))
    parts = {
        f"not shown to differ on {set_name(judged)} rows": kept,
        f"apart on {set_name(judged)} rows": lost,
    }
    said = [
        f"they are {what} with {listed([_balanced(name, on[name], gaps[name]) for name in names])}"
        for what, names in parts.items()
        if names
    ]
    verdict = (
        f"Where precision and recall are equal on validation rows, {'; '.join(said)}."
        if said
        else "Not enough is finished to say."
    )
    return verdict, table(header, rows)


def _balanced(name: str, one: Record, gap: Record) -> str:
    value = points(gap["value"])
    return f"{model_name(name)}'s {one['value']:.3f} (recall - precision {value})"


def learning_curve(record: Record) -> tuple[str, str]:
    """What more rows are worth."""
    facts = record["experiments"]["learning_curve"]
    if not facts.get("entries"):
        return "Not run yet.", ""
    by_rows = sorted(
        facts["entries"].values(), key=lambda found: found["training"].get("rows") or 0
    )
    rows = [
        [
            count(found["training"].get("rows")),
            str(len(found["seeds"])),
            number(found["sets"].get(VALIDATION, {}).get("f1")),
            number(found["sets"].get(VALIDATION, {}).get("roc_auc")),
            share(found["sets"].get("hatecheck", {}).get("accuracy")),
            specificity(found["sets"].get("hatecheck", {})),
        ]
        for found in by_rows
    ]
    header = ["training rows", "seeds", "F1, validation", "ROC AUC, validation", "HateCheck right"]
    header += ["HateCheck: normal right"]
    known = [one for one in by_rows if one["sets"].get(VALIDATION)]
    if len(known) < 2:
        return "Not enough is finished to say.", table(header, rows)
    before, last = known[-2], known[-1]
    gain = {
        key: last["sets"][VALIDATION][key]["value"] - before["sets"][VALIDATION][key]["value"]
        for key in ("f1", "roc_auc")
    }
    # The record's pairs are an entry minus the control, which has the most rows.
    name = next(name for name, found in facts["entries"].items() if found is before)
    pairs = (facts["comparisons"].get(VALIDATION) or {"pairs": []})["pairs"]
    wanted = (facts["control"], name)
    pair = next((one for one in pairs if (one["first"], one["second"]) == wanted), None)
    test = turned(find_test(pair, "f1"))
    verdict = (
        f"From {count(before['training'].get('rows'))} to {count(last['training'].get('rows'))} "
        f"rows F1 on validation rows changes by "
        f"{points(gain['f1']) if test is None else difference(test)} and ROC AUC by "
        f"{points(gain['roc_auc'])} ({seeds_behind(facts)})."
    )
    return verdict, table(header, rows)


def label_noise(record: Record) -> tuple[str, str]:
    """What can be said of the labels' own limit."""
    found = record["ceiling"]
    if not found:
        return "Not run yet.", ""
    rows = []
    for name, sets in found.items():
        for on, views in shown_sets(name, sets).items():
            rows.append(
                [model_name(name), set_name(on), str(views["n_offensive"])]
                + [
                    number(views[view][metric])
                    for view in ("as_read", "without_offensive", "offensive_as_hate")
                    for metric in ("f1", "roc_auc")
                ]
            )
    header = ["model", "judged on", "offensive rows", "F1", "ROC AUC", "F1 without them"]
    header += ["ROC AUC without them", "F1, them as hate", "ROC AUC, them as hate"]
    said = []
    twice = record["conflicts"]
    if twice is not None:
        said.append(
            f"Of {count(twice['texts'])} different texts {twice['repeated']} stand in the corpus "
            f"more than once, {twice['with_both_labels']} of them with both labels: repeated texts "
            "say little about the noise."
        )
    gains = [
        (views["without_offensive"]["roc_auc"]["value"] or 0.0)
        - (views["as_read"]["roc_auc"]["value"] or 0.0)
        for sets in found.values()
        for on, views in sets.items()
        if on == HELD_OUT
    ]
    if gains:
        most = f" to {points(max(gains))}" if len(gains) > 1 else ""
        said.append(
            "Without HateXplain's offensive rows ROC AUC on held-out rows changes by "
            f"{points(min(gains))}{most}, by model."
        )
    return " ".join(said), table(header, rows)


def status(record: Record) -> str:
    """Return the table of what was run, and with which command."""
    rows = []
    for name, facts in record["experiments"].items():
        wanted = facts["finished"] + len(facts["missing"]) + len(facts["other_configuration"])
        machine: dict[str, Any] = facts.get("machine") or {}
        when = ""
        if machine:
            days = dict.fromkeys((machine["first"], machine["last"]))
            when = f"{' to '.join(days)}; {', '.join(machine['devices'])}"
            when += f", torch {', '.join(machine['torch'])}"
        state = f"{facts['finished']} of {wanted} runs" if facts["finished"] else "not run yet"
        rows.append([name, state, when, f"`{facts['command']}`"])
    return table(["experiment", "finished", "when, where", "command"], rows)


def missing(record: Record) -> str:
    """Return what is not finished, by experiment; empty where nothing is missing."""
    lines: list[str] = []
    for name, facts in record["experiments"].items():
        if facts["finished"] and facts["missing"]:
            lines.append(f"- {name}: {_by_entry(facts['missing'])}.")
        if facts["other_configuration"]:
            runs = ", ".join(facts["other_configuration"])
            lines.append(f"- {name}: {runs} made from another configuration, and left out.")
    return "\n".join(["Not run yet, with their seeds:", "", *lines]) if lines else ""


def _by_entry(runs: Sequence[str]) -> str:
    """Return runs as entries with their seeds.

    >>> _by_entry(["a-seed1", "b-seed1", "a-seed2", "c"])
    'a (1, 2), b (1), c'
    """
    seeds: dict[str, list[str]] = {}
    for run in runs:
        entry, _, seed = run.partition("-seed")
        seeds.setdefault(entry, []).extend([seed] if seed else [])
    return ", ".join(f"{name} ({', '.join(own)})" if own else name for name, own in seeds.items())


def _digit(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value:.1f}"


def _gib(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value / 2**30:.2f} GiB"
