"""Questions 1 to 5 as Markdown, from the record alone; verdicts are computed, never written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.campaign.catalogue import F1_GOAL, GROUP, HELD_OUT, PRODUCTION, VALIDATION
from benchmarks.campaign.words import (
    NOT_THERE,
    Record,
    as_test,
    command,
    count,
    difference,
    enough_seeds,
    find_test,
    listed,
    model_name,
    number,
    p_value,
    points,
    seeds_behind,
    set_name,
    share,
    shown_sets,
    specificity,
    table,
    turned,
)

from evenhand.core.acceptance import Acceptance, ConditionKind
from evenhand.report.mitigations import acceptance_sentence

_F1 = ("f1", None)
_MITIGATIONS = {
    "mitigation": (
        "Against the untreated model",
        "Each treatment alone, on the rows that the reference trained on. The untreated model is "
        "minilm_full; what its seeds alone change is in [question 7](#7-which-small-model).",
    ),
    "mitigation_policy": (
        "Against a model that reads *offensive* as hate",
        "Many read HateXplain's *offensive* as hate. What does the corpus's own reading, as "
        "normal, change? The rows that are judged keep the corpus's own labels throughout. That is "
        "the treated model's reading, and part of what it gains.",
    ),
    "mitigation_corpus": (
        "Against a model without rows about the group",
        "No row about LGBTQ+ people is trained on; the same rows stand in for a further corpus.",
    ),
}


def option_a(record: Record) -> tuple[str, str]:
    """Question 1: the verdict, and the table of F1 before and after tuning the threshold."""
    found = record["tuned"]
    if not found:
        return "Not run yet.", ""
    rows: list[list[str]] = []
    judged = PRODUCTION if any(PRODUCTION in one["sets"] for one in found.values()) else HELD_OUT
    for name, one in found.items():
        for on, facts in shown_sets(name, one["sets"]).items():
            rows.append(
                [
                    model_name(name),
                    set_name(on),
                    ", ".join(f"{value:.3f}" for value in one["thresholds"]),
                    number(facts["default"]["f1"]),
                    number(facts["tuned"]["f1"]),
                    difference(find_test(facts, *_F1)),
                    share(facts["default"]["groups"][GROUP]["fpr"]),
                    share(facts["tuned"]["groups"][GROUP]["fpr"]),
                ]
            )
    header = ["model", "judged on", "thresholds (a seed each)", "F1 at 0.5", "F1 tuned", "change"]
    header += ["LGBTQ+ FPR at 0.5", "LGBTQ+ FPR tuned"]
    on = {name: one["sets"][judged] for name, one in found.items() if judged in one["sets"]}
    return _verdict_a(on, set_name(judged)), table(header, rows)


def _verdict_a(found: Record, on: str) -> str:
    """Say which models reach the goal before and after tuning, and what tuning changes."""
    known = {
        name: facts
        for name, facts in found.items()
        if facts["default"]["f1"]["value"] is not None and facts["tuned"]["f1"]["value"] is not None
    }
    if not known:
        return "Not enough is finished."
    reached = {
        view: [
            facts[view]["f1"] for facts in known.values() if facts[view]["f1"]["value"] >= F1_GOAL
        ]
        for view in ("default", "tuned")
    }
    before, after = (len(values) for values in reached.values())
    sure = [sum(one["low"] >= F1_GOAL for one in values) for values in reached.values()]
    changes = {name: find_test(facts, *_F1) for name, facts in known.items()}
    apart = [
        f"{model_name(name)} ({difference(test)})"
        for name, test in changes.items()
        if test is not None and test["low"] is not None and not test["low"] <= 0 <= test["high"]
    ]
    groups = [
        {view: known[name][view]["groups"][GROUP]["fpr"]["value"] for view in ("default", "tuned")}
        for name in known
    ]
    rises = [each["tuned"] - each["default"] for each in groups if None not in each.values()]
    moved = f" LGBTQ+ FPR moves by {points(min(rises))} to {points(max(rises))}." if rises else ""
    reaching = f"reached by {before} of {len(known)} models at 0.5 and by {after} after tuning"
    return (
        f"F1 of {F1_GOAL:.2f} on {on} rows: {reaching}; with the whole interval by {sure[0]} and "
        f"{sure[1]}. Tuning is shown to change F1 of: {listed(apart)}.{moved}"
    )


def option_b(record: Record) -> tuple[str, str]:
    """Question 2: which mitigations are accepted, and what each does."""
    verdicts, bodies = [], []
    for name, (title, note) in _MITIGATIONS.items():
        facts = record["experiments"][name]
        if not facts.get("entries"):
            continue
        verdicts.append(f"{title} ({seeds_behind(facts)}): {_verdict_b(facts)}")
        bodies.append(f"### {title}\n\n{note}\n\n{command(facts['command'])}")
        parts = [_largest_fall(facts), _mitigation_table(facts), _seed_by_seed(facts)]
        bodies += filter(None, [*parts, _equal_recall_table(facts)])
    return " ".join(verdicts) or "Not run yet.", "\n\n".join(bodies)


def _mitigation_table(facts: Record) -> str:
    accepted = _judged(facts)
    rows = []
    for entry, found in facts["entries"].items():
        held = found["sets"].get(HELD_OUT)
        if held is None:
            continue
        pair = _pair(facts, entry)
        rows.append(
            [
                entry,
                str(len(found["seeds"])),
                count(found["training"].get("rows")),
                share(held["groups"][GROUP]["fpr"]),
                difference(find_test(pair, "fpr", GROUP)),
                difference(find_test(pair, "fnr", GROUP)),
                number(held["groups"][GROUP]["roc_auc"]),
                number(held["f1"]),
                difference(find_test(pair, *_F1)),
                specificity(found["sets"].get("functional", {})),
                specificity(found["sets"].get("hatecheck", {})),
                _state(facts, entry),
            ]
        )
    header = [
        "training",
        "seeds",
        "training rows",
        "LGBTQ+ FPR",
        "its change",
        "change of LGBTQ+ FNR",
    ]
    header += [
        "ROC AUC among LGBTQ+ rows",
        "F1",
        "change of F1",
        "functional: normal right",
        "HateCheck: normal right",
        "outcome",
    ]
    body = table(header, rows)
    if not accepted:
        return body
    return f"{body}\n\n{_reasons(map(Acceptance.model_validate, accepted.values()))}"


def _reasons(judged: Iterable[Acceptance]) -> str:
    """Return the product's own sentences, as `evenhand run` and `evenhand compare` give them."""
    return "Why:\n\n" + "\n".join(f"- {acceptance_sentence(one)}" for one in judged)


def _state(facts: Record, entry: str) -> str:
    if entry == facts["control"]:
        return "control"
    one = _judged(facts).get(entry)
    return "not judged" if one is None else _outcome(accepted=one["accepted"])


def _seed_by_seed(facts: Record) -> str:
    """Say how each seed's runs would be judged alone: about two models, not about the method."""
    said, shown = [], ""
    for entry, by_seed in facts["seed_by_seed"].items():
        yes, no = ([seed for seed, one in by_seed.items() if one is kind] for kind in (True, False))
        if yes:
            others = f", not with {listed(no)}" if no else ""
            said.append(f"{entry} is accepted with seed {listed(yes)}{others}")
            shown = shown or _two_runs(facts, entry, yes[0])
    if not facts["seed_by_seed"]:
        return ""
    return (
        "Judged by one seed of each side, which says something of those two models and nothing of "
        f"the training: {'; '.join(said) or 'nothing is accepted with any seed'}.{shown}"
    )


def _two_runs(facts: Record, entry: str, seed: str) -> str:
    """Return the command that prints the table of conditions of two runs."""
    runs = f"{facts['command'].rpartition('--out ')[2]}/runs"
    control = f"{facts['control']}-seed{seed}"
    text = (
        f"evenhand compare {runs}/{control} {runs}/{entry}-seed{seed} \\\n"
        f"  --on {HELD_OUT} --control {control} --accept --group {GROUP} --functional functional"
    )
    return f" Condition by condition:\n\n{command(text)}"


def _equal_recall_table(facts: Record) -> str:
    judged = _at_equal_recall(facts)
    if not judged:
        return ""
    rows = [
        [
            entry,
            difference(_effect(one, "fpr_falls", GROUP)),
            difference(_effect(one, "fnr_holds", GROUP)),
            difference(_effect(one, "f1_holds")),
            _outcome(accepted=one.accepted),
        ]
        for entry, one in judged.items()
    ]
    header = ["training", "change of LGBTQ+ FPR", "change of LGBTQ+ FNR", "change of F1", "outcome"]
    return (
        "At equal recall: every run at the threshold that finds 75% of validation's hate. The "
        "intervals are those that decide, 95% for a fall of the FPR, 90% for what must not be "
        f"lost.\n\n{table(header, rows)}\n\n{_reasons(judged.values())}"
    )


def _at_equal_recall(facts: Record) -> dict[str, Acceptance]:
    judged = _judged(facts, "at_equal_recall")
    return {entry: Acceptance.model_validate(one) for entry, one in judged.items()}


def _effect(one: Acceptance, kind: ConditionKind, group: str | None = None) -> Record:
    """Return a condition's difference, treated less control, as a test of the record."""
    found = next(part.difference for part in one.of(kind) if part.subject == group)
    return {"difference": found.value, "low": found.low, "high": found.high}


def _judged(facts: Record, key: str = "acceptances") -> dict[str, Any]:
    return {_stem(one["treated"]): one for one in facts[key] or ()}


def _verdict_b(facts: Record) -> str:
    accepted = _judged(facts)
    if not accepted:
        return "acceptance has not been judged yet."
    yes = [name for name, one in accepted.items() if one["accepted"]]
    said = f"{listed(yes)} accepted" if yes else "none accepted"
    said += f" of {len(accepted)} at 0.5"
    level = _at_equal_recall(facts)
    falls = {
        name: effect
        for name, one in level.items()
        if (effect := _effect(one, "fpr_falls", GROUP))["difference"] is not None
    }
    if not falls:
        return f"{said}."
    yes = [name for name, one in level.items() if one.accepted]
    said += f", {listed(yes)} at equal recall. "
    shown = {name: effect for name, effect in falls.items() if effect["high"] < 0}
    if not shown:
        return f"{said}LGBTQ+ FPR at equal recall is not shown to fall with any."
    entry = min(shown, key=lambda name: shown[name]["difference"])
    return (
        f"{said}LGBTQ+ FPR at equal recall falls most with {entry}: {difference(shown[entry])}, "
        f"with {difference(_effect(level[entry], 'f1_holds'))} F1."
    )


def _largest_fall(facts: Record) -> str:
    """Say which training lowers the group's FPR most where every run decides at 0.5."""
    falls = {
        entry: test
        for entry in facts["entries"]
        if (test := find_test(_pair(facts, entry), "fpr", GROUP)) is not None
        and test["difference"] is not None
    }
    if not falls:
        return "Not enough is finished to compare with the control."
    entry, test = min(falls.items(), key=lambda item: item[1]["difference"])
    if test["difference"] >= 0:
        return "At 0.5 LGBTQ+ FPR falls with none of them."
    cost = difference(find_test(_pair(facts, entry), *_F1))
    fnr = difference(find_test(_pair(facts, entry), "fnr", GROUP))
    holm = (
        ""
        if test["verdict"] == "better"
        else f"; p = {p_value(test['p_holm'])} after Holm over all rates of all groups, where the "
        "acceptance tests this fall alone"
    )
    return (
        f"At 0.5 the largest fall of LGBTQ+ FPR is that of {entry}: {difference(test)}, at {cost} "
        f"F1 and {fnr} LGBTQ+ FNR{holm}."
    )


def _outcome(*, accepted: bool) -> str:
    return "accepted" if accepted else "not accepted"


def option_c(record: Record) -> tuple[str, str]:
    """Question 3: which layers to adapt."""
    return _against_control(record["experiments"]["modules"])


def ranks(record: Record) -> tuple[str, str]:
    """Question 5: which rank."""
    return _against_control(record["experiments"]["ranks"])


def _against_control(facts: Record) -> tuple[str, str]:
    """Return the verdict and table of an experiment whose entries are held against a control."""
    if not facts.get("entries"):
        return "Not run yet.", ""
    rows = []
    base = facts["entries"].get(facts["control"], {}).get("training", {})
    for entry, found in facts["entries"].items():
        training, pair = found["training"], _pair(facts, entry)
        test = find_test(pair, *_F1)
        on = _judged_set(facts)
        own = found["sets"].get(on, {})
        rows.append(
            [
                entry,
                str(len(found["seeds"])),
                count(training.get("trainable_parameters")),
                _ratio(training.get("trainable_parameters"), base.get("trainable_parameters")),
                count(training.get("total_steps")),
                number(own.get("f1")),
                "control" if entry == facts["control"] else difference(test),
                NOT_THERE if test is None else p_value(test["p_holm"]),
                number(own.get("roc_auc")),
                difference(_auc_change(facts, entry)),
                share(own.get("groups", {}).get(GROUP, {}).get("fpr")),
                number(found["sets"].get(VALIDATION, {}).get("f1")),
            ]
        )
    header = ["adapter", "seeds", "trainable parameters", "times the control", "steps", "F1"]
    header += ["change of F1", "p (Holm)", "ROC AUC", "change of ROC AUC", "LGBTQ+ FPR"]
    header += ["F1, validation"]
    said = f"F1, ROC AUC and FPR on {set_name(_judged_set(facts))} rows.\n\n"
    return _verdict_against(facts), said + table(header, rows)


def _verdict_against(facts: Record) -> str:
    tests = {
        entry: test
        for entry in facts["entries"]
        if (test := find_test(_pair(facts, entry), *_F1)) is not None
    }
    control, on = facts["control"], set_name(_judged_set(facts))
    if not tests:
        return f"Not enough is finished to compare with {control}."
    better, worse = (
        [
            f"{entry} ({difference(test)})"
            for entry, test in tests.items()
            if test["verdict"] == word
        ]
        for word in ("better", "worse")
    )
    if better or worse:
        return (
            f"Against {control} in F1 on {on} rows ({seeds_behind(facts)}), after Holm, better: "
            f"{listed(better)}; worse: {listed(worse)}; not shown to "
            f"differ: {len(tests) - len(better) - len(worse)} of {len(tests)}.{_auc_apart(facts)}"
        )
    seen = [one["minimum_detectable"] for one in tests.values() if one["minimum_detectable"]]
    alone = all(len(one["seeds"]) == 1 for one in facts["entries"].values())
    limit = (
        f" Differences under about {points(max(seen)).lstrip('+')} could go unnoticed"
        f"{', by the rows alone' if alone else ''}."
        if seen
        else ""
    )
    none = f"None of {len(tests)} is shown to differ from {control} in F1 on {on} rows"
    return f"{none} ({seeds_behind(facts)}), after Holm.{limit}{_auc_apart(facts)}"


def _auc_change(facts: Record, entry: str) -> Record | None:
    pair = _pair(facts, entry)
    return None if pair is None else as_test(pair.get("roc_auc"))


def _auc_apart(facts: Record) -> str:
    """Name the entries whose ROC AUC differs from the control's, where seeds are enough to say."""
    if not enough_seeds(facts):
        return ""
    changes = {entry: _auc_change(facts, entry) for entry in facts["entries"]}
    apart = [
        f"{entry} ({difference(found)})"
        for entry, found in changes.items()
        if found is not None and found["low"] is not None and not found["low"] <= 0 <= found["high"]
    ]
    if not any(changes.values()):
        return ""
    intervals = "by its 95% interval, which no correction widens"
    return f" ROC AUC is apart from the control's, {intervals}, with: {listed(apart)}."


def option_d(record: Record) -> tuple[str, str]:
    """Question 4: two more epochs, against the parent and against one go."""
    facts = record["experiments"]["continued"]
    if not facts.get("entries"):
        return "Not run yet.", ""
    on = _judged_set(facts)
    rows, said = [], []
    for entry, found in facts["entries"].items():
        own = found["sets"].get(on, {})
        # The record's pairs are the other minus the child; what is asked is the child minus it.
        test = turned(find_test(_pair(facts, entry), *_F1))
        group = turned(find_test(_pair(facts, entry), "fpr", GROUP))
        auc = turned(_auc_change(facts, entry))
        rows.append(
            [
                entry,
                str(len(found["seeds"])),
                count(found["training"].get("total_steps")),
                number(own.get("f1")),
                number(own.get("roc_auc")),
                share(own.get("groups", {}).get(GROUP, {}).get("fpr")),
                difference(test),
                difference(auc),
                difference(group),
            ]
        )
        if test is not None:
            words = {"better": "better than", "worse": "worse than"}
            verdict = words.get(test["verdict"], "not shown to differ from")
            said.append(f"{verdict} {entry} in F1 ({difference(test)})")
    header = ["training", "seeds", "steps of its own", "F1", "ROC AUC", "LGBTQ+ FPR"]
    header += ["the continued one's F1 less this", "its ROC AUC less this"]
    header += ["its LGBTQ+ FPR less this"]
    if not said:
        return "Not enough is finished to compare.", table(header, rows)
    where = f"On {set_name(on)} rows ({seeds_behind(facts)})"
    return f"{where} {facts['control']} is {listed(said)}.", table(header, rows)


def _judged_set(facts: Record) -> str:
    """Return held-out rows where every finished entry was scored on them, else validation rows."""
    every = all(HELD_OUT in one["sets"] for one in facts["entries"].values())
    return HELD_OUT if every else VALIDATION


def _pair(facts: Record, entry: str) -> Record | None:
    """Return the comparison of the control (first) with an entry."""
    found = facts["comparisons"].get(_judged_set(facts))
    pairs = [] if found is None else found["pairs"]
    return next(
        (one for one in pairs if (one["first"], one["second"]) == (facts["control"], entry)), None
    )


def _ratio(value: float | None, base: float | None) -> str:
    return NOT_THERE if not value or not base else f"{value / base:.3f}"


def _stem(name: str) -> str:
    """Return an entry's name as several seeds of it are called: ``swaps (3 seeds)``."""
    return name.partition(" (")[0].partition("-seed")[0]
