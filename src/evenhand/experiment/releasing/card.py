"""The card of an exported model: what it is, how to score with it, its data, metrics and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.core.evaluation import Evaluation
from evenhand.core.seeding import rng_for
from evenhand.experiment.deciding import DEFAULT_THRESHOLD
from evenhand.experiment.judged import SEED
from evenhand.experiment.releasing.verify import Verified
from evenhand.finetune.embedded import EMBEDDED
from evenhand.finetune.export import ExportedModel, base_name
from evenhand.measure.classification import evaluate
from evenhand.report.decided import deployment_facts, gate_table, outcome_words, threshold_facts
from evenhand.report.tables import groups_table, performance_table
from evenhand.report.wording import cell, counted, decimal, listed, table


@dataclass(frozen=True)
class Card:
    """What a card is written from."""

    verified: Verified
    model: ExportedModel
    tolerance: float


def render_card(card: Card) -> str:
    """Return the card in Markdown, with the front matter of model cards."""
    name = cell(card.verified.results.name)
    sections = [
        f"{_front_matter(card)}\n# {name}",
        _what(card),
        f"## How to score a post\n\n{_procedure(card)}",
        f"## Data\n\n{_data(card.verified)}",
        f"## Metrics\n\n{_metrics(card.verified)}",
        f"## Threshold and gate\n\n{_decisions(card.verified)}",
        f"## Limits\n\n{_limits(card)}",
        f"## Licences\n\n{_licences(card.verified)}",
        f"## Origin\n\n{_origin(card)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(card: Card) -> str:
    config = card.verified.run.config
    is_adapter = card.model.form == "adapter"
    entries: dict[str, Any] = {
        "base_model": base_name(config),
        "base_model_relation": "adapter" if is_adapter else "finetune",
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["hate-speech-detection", "evenhand"],
    }
    licence = _base_licence(card.verified)
    if licence is not None:
        entries = {"license": licence.lower(), **entries}
    # JSON's strings and lists are YAML's as well.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---", ""])


def _what(card: Card) -> str:
    config, model = card.verified.run.config, card.model
    base = _code(base_name(config))
    tuned = {
        "lora": f"a LoRA adapter on {base}",
        "full": f"{base}, fully fine-tuned",
        "none": f"{base} with a prompt, not fine-tuned",
    }[config.tuning]
    form = (
        "The adapter is here as PEFT stores it; the base model is not."
        if model.form == "adapter"
        else f"The weights are whole, in {model.dtype}: no adapter is needed beside them."
    )
    return (
        f"A classifier that gives p(hate) for a post: {tuned}, trained and judged with Evenhand. "
        f"{form}\n\n{counted(model.rows, 'post')} were scored with these files, loaded anew, and "
        f"with the model as it was judged, both in float32: p(hate) differs by at most "
        f"{model.max_difference:.1e} (allowed: {card.tolerance:g})."
    )


def _procedure(card: Card) -> str:
    threshold = card.verified.threshold_that_holds
    at = DEFAULT_THRESHOLD if threshold is None else threshold.value
    decide = f"Decide *hate* where p(hate) is at least {at!r}."
    if threshold is not None and threshold.calibration is not None:
        temperature = threshold.calibration.temperature
        decide += (
            f" The calibrated probability is sigmoid(logit(p) / {temperature!r}); decisions are "
            "taken on p itself."
        )
    procedure = card.model.procedure
    if procedure["kind"] == "classifier head":
        steps = [
            "Tokenise the post as plain text, without special tokens; strings in it that look like "
            "special tokens stay text.",
            f"Keep the first {procedure['room']} tokens, and put `begin` before and `end` after "
            "them (ids in `export.json`, under `scoring`).",
            f"p(hate) is the softmax of the head's logits, which stand for "
            f"{listed(procedure['labels'])} in this order.",
            decide,
        ]
        return _numbered(steps)
    labels = listed(_code(text) for text in procedure["label_texts"].values())
    steps = [
        "Tokenise the post as plain text, without special tokens; strings in it that look like "
        f"special tokens stay text. Keep the first {procedure['room']} tokens.",
        "The input is `prefix`, then the post, then `tail` (ids in `export.json`, under "
        "`scoring`). They are the prompt of `prompt.json` in the chat template, with dates and "
        "reasoning effort pinned.",
        f"For each label, add the log-probabilities of **all** its tokens, end of turn included, "
        f"after that input: {labels}. First tokens alone are not enough: labels may share them.",
        "p(hate) = exp(hate) / (exp(hate) + exp(normal)) of the two sums.",
        decide,
    ]
    return _numbered(steps) + "\n\nNothing is generated, so there is nothing to parse."


def _data(verified: Verified) -> str:
    rows = []
    for name, one in (verified.results.manifest.get("data") or {}).items():
        if one is not None:
            used = f"{one['rows_used']:,} of {one['rows']:,}"
            rows.append([f"{name} (training)", used, str(one["skipped"]), one["sha256"] or "-"])
    for name in verified.results.evaluation_names:
        made = verified.results.inputs(name).get("data") or {}
        evaluation = verified.results.evaluation(name)
        hashed = made.get("sha256") or evaluation.dataset_sha256 or "-"
        count = f"{evaluation.n_scored:,} of {evaluation.n:,}"
        rows.append([f"{name} (evaluation)", count, str(made.get("skipped", 0)), hashed])
    return (
        f"{table(['Set', 'Rows used', 'Skipped', 'sha256 of the file'], rows)}\n\n"
        "The posts themselves are not part of this folder."
    )


def _metrics(verified: Verified) -> str:
    threshold = verified.threshold_that_holds
    parts = []
    for name in verified.results.evaluation_names:
        found = _evaluation(verified, name)
        at = "as decided" if found.threshold is None else f"at {decimal(found.threshold, digits=4)}"
        note = ""
        if threshold is not None and threshold.fitted_on.set == name:
            note = " The threshold was fitted on these rows: these figures flatter it."
        parts.append(
            f"### {cell(name)}: {counted(found.n, 'row')}, {at}\n\n"
            f"Intervals are 95%.{note}\n\n{performance_table(found, None)}"
        )
        if found.groups:
            parts.append(groups_table(found, None))
    return "\n\n".join(parts) or "The model was not evaluated."


def _evaluation(verified: Verified, name: str) -> Evaluation:
    """The evaluation at the threshold that the model is exported with."""
    stored, threshold = verified.results.evaluation(name), verified.threshold_that_holds
    if threshold is None or stored.method != "score":
        return stored
    return evaluate(
        verified.results.predictions(name),
        name=name,
        # The gate's stream, so that the two print one interval.
        rng=rng_for(SEED, f"gate {name}"),
        threshold=threshold.value,
        n_bootstrap=stored.n_bootstrap,
    )


def _decisions(verified: Verified) -> str:
    decisions = verified.decisions
    parts = []
    if decisions.threshold is not None:
        parts.append(_facts(dict(threshold_facts(decisions.threshold))))
    else:
        parts.append(f"No threshold was tuned: the default of {DEFAULT_THRESHOLD:g} counts.")
    if decisions.verdict is None:
        parts.append("No gate has judged this model as it is here: it is not approved for use.")
    else:
        verdict = cell(outcome_words(decisions.verdict))
        parts.append(f"Verdict: **{verdict}** by {cell(decisions.verdict.criteria_name)}.")
        parts.append(gate_table(decisions.verdict))
    if decisions.deployment is not None:
        facts = deployment_facts(decisions.deployment, decisions.verdict)
        parts.append("\n".join(f"- {name}: {value}" for name, value in facts))
    stale = [one.text for one in verified.problems if one.code.endswith("_stale")]
    parts += [f"Left out, since it does not hold: {cell(text)}." for text in stale]
    return "\n\n".join(parts)


def _limits(card: Card) -> str:
    config = card.verified.run.config
    lines = [
        "It judges hate speech alone; it is no replacement for a full moderation service, and it "
        "does not know context, threads or images.",
        "The metrics hold for posts like those of the sets above. Groups, dialects and languages "
        "that they lack are unknown territory; where an interval is wide, so is the doubt.",
        "A verdict holds for these very weights, this prompt and this threshold. Another number "
        "format, quantisation or prompt is another model: judge it again.",
        f"Posts are cut at {card.model.procedure['room']} tokens.",
    ]
    if card.model.dtype != "float32" and card.model.form == "merged":
        lines.append(
            f"Merging rounded the weights to {card.model.dtype}, which the figure above includes."
        )
    if config.load_in_4bit:
        lines.append(
            "It was trained on a base in 4 bits; these files are compared on the base as stored."
        )
    return "\n".join(f"- {line}" for line in lines)


def _licences(verified: Verified) -> str:
    config = verified.run.config
    licence = _base_licence(verified)
    base = _code(base_name(config))
    known = (
        f"Base model {base}: {licence}."
        if licence is not None
        else f"Base model {base}: its licence is not recorded; see where it came from."
    )
    return (
        f"- {known}\n- Data: the licences of the files above are not recorded by Evenhand; the "
        "terms of each corpus apply to what is made from it.\n- This card, the prompt and the "
        "records: as you decide."
    )


def _base_licence(verified: Verified) -> str | None:
    known = EMBEDDED.get(verified.run.config.model_name_or_path)
    return None if known is None else known.licence


def _origin(card: Card) -> str:
    results, run = card.verified.results, card.verified.run
    manifest: Mapping[str, Any] = results.manifest
    binding = results.binding
    rows = [
        ["run", results.name],
        ["trained", str(manifest.get("created", "not recorded"))],
        ["inputs", binding.run],
        ["adapter", binding.adapter or "-"],
        ["weights", card.verified.weights or "-"],
        ["prompt", binding.prompt or "-"],
        ["base model", binding.base or "-"],
        ["task, tuning", f"{run.config.task}, {run.config.tuning}"],
        ["seed", str(run.config.seed)],
    ]
    versions = manifest.get("machine") or {}
    rows += [
        [name, str(versions[name])]
        for name in ("evenhand", "torch", "transformers", "peft")
        if name in versions
    ]
    return table(["What", "Value"], rows)


def _code(text: str) -> str:
    return f"``{text}``" if "`" in text else f"`{text}`"


def _numbered(steps: list[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
