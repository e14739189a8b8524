"""Checks of imported results against what else the import's files say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.core.decisions import Finding
from evenhand.decide.audit.inputs import AuditInputs
from evenhand.decide.audit.wording import listed, rows

_COUNTED_ELSEWHERE = ("trainable_parameters", "total_parameters")


def contradicted_responses(inputs: AuditInputs) -> Iterator[Finding]:
    """Find imported labels that the raw responses do not give, and failures of the parser."""
    for model, facts in inputs.imported.items():
        for name, one in facts.get("evaluations", {}).items():
            responses: Mapping[str, Any] = one.get("responses") or {}
            differ = responses.get("differ", 0)
            invented = responses.get("label_without_reading", 0)
            failures = one.get("parser_failures") or 0
            said = []
            if differ or invented:
                said.append(
                    f"of {responses['responses']:,} raw responses that are there, {differ:,} say "
                    f"the opposite of the stored label, and {invented:,} give no label where one "
                    "is stored"
                )
            if failures:
                said.append(
                    f"the parser failed on {failures:,} of {rows(one['rows'])} by its own record, "
                    "so a rule of last resort decided them"
                )
            if said:
                yield Finding(
                    check="contradicted_responses",
                    subject=f"{model} / {name}",
                    severity="warning",
                    message=f"Stored labels of {model} on {name}: {listed(said)}.",
                    evidence={
                        "rows": one.get("rows"),
                        "parser_failures": failures,
                        "responses": dict(responses),
                    },
                    remedy=(
                        "Import with --labels-from reparsed and all responses, or score the label "
                        "strings instead of parsing answers."
                    ),
                )


def contradicted_figures(inputs: AuditInputs) -> Iterator[Finding]:
    """Find figures that were stated of an imported run and that its files contradict."""
    for model, facts in inputs.imported.items():
        wrong = {
            key: one
            for key, one in facts.get("stated", {}).items()
            if one["status"] == "contradicted" and key not in _COUNTED_ELSEWHERE
        }
        if wrong:
            words = [f"{key} {one['value']} (found {one['found']})" for key, one in wrong.items()]
            yield Finding(
                check="contradicted_figures",
                subject=model,
                severity="warning",
                message=f"The files of {model} contradict what is stated: {listed(words)}.",
                evidence={"figures": wrong},
                remedy="Correct the figures, or name the files that they come from.",
            )
