"""From the record to docs/results.md, and the table of answers in README.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.campaign import best, more_sections, sections
from benchmarks.campaign.plots import Plot, draw
from benchmarks.campaign.words import Record, command

from evenhand.core.paths import write_text

TEMPLATE = "results_template.md"
_ANSWERS = re.compile(r"(<!-- answers -->\n).*?(\n<!-- end of answers -->)", re.DOTALL)
_PLACE = re.compile(r"^\{\{ *(\w+) *\}\}$", re.MULTILINE)

# Each question: its place in the template, the experiment that answers it, and who writes it.
_QUESTIONS: tuple[tuple[str, str, str, Callable[[Record], tuple[str, str]]], ...] = (
    ("option_a", "1. Threshold", "final_smollm2", sections.option_a),
    ("option_b", "2. Mitigation", "mitigation", sections.option_b),
    ("option_c", "3. Layers", "modules", sections.option_c),
    ("option_d", "4. More epochs", "continued", sections.option_d),
    ("ranks", "5. Rank", "ranks", sections.ranks),
    ("recall_floor", "6. Recall of 75%", "small_models", more_sections.recall_floor),
    ("small_models", "7. Small models", "small_models", more_sections.small_models),
    ("break_even", "8. Balance", "final_smollm2", more_sections.break_even),
)
_FURTHER: tuple[tuple[str, str, Callable[[Record], tuple[str, str]]], ...] = (
    ("candidates", "recommended", best.candidates),
    ("aims", "final_recommended", best.aims),
    ("finals", "final_mpnet", best.finals),
    ("learning_curve", "learning_curve", more_sections.learning_curve),
    ("label_noise", "final_smollm2", more_sections.label_noise),
)
_PLOT_OF = {"option_b": "mitigation", "option_c": "modules"}


def render(record: Record) -> tuple[str, dict[str, Plot]]:
    """Return the page and its plots; the same record gives the same page."""
    plots = draw(record)
    parts: dict[str, str] = {}
    for name, _, experiment, write in _QUESTIONS:
        verdict, body = write(record)
        parts[name] = _section(record, name, experiment, verdict, body, plots)
    for name, experiment, write in _FURTHER:
        verdict, body = write(record)
        parts[name] = _section(record, name, experiment, verdict, body, plots)
    parts["verdicts"] = verdicts(record)
    parts["status"] = more_sections.status(record)
    parts["missing"] = more_sections.missing(record)
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    page = _PLACE.sub(lambda place: parts[place[1]], template)
    return re.sub(r"\n{3,}", "\n\n", page), plots


def verdicts(record: Record) -> str:
    """Return the table of the eight answers."""
    rows = [f"| {title} | {write(record)[0]} |" for _, title, _, write in _QUESTIONS]
    return "\n".join(["| question | answer |", "| :-- | :-- |", *rows])


def with_answers(readme: str, record: Record) -> str:
    """Return README.md with the table of answers in its place."""
    return _ANSWERS.sub(lambda place: f"{place[1]}\n{verdicts(record)}\n{place[2]}", readme)


def write_page(record: Record, page: Path, readme: Path) -> None:
    """Write the page, its plots into the folder of its name beside it, and README's table."""
    text, plots = render(record)
    write_text(readme, with_answers(readme.read_text(encoding="utf-8"), record))
    for plot in plots.values():
        write_text(page.with_suffix("") / f"{plot.name}.svg", plot.svg)
    write_text(page, text)


def _section(
    record: Record, name: str, experiment: str, verdict: str, body: str, plots: dict[str, Plot]
) -> str:
    facts: dict[str, Any] = record["experiments"][experiment]
    plot = plots.get(_PLOT_OF.get(name, name))
    shown = "" if plot is None else f"![{plot.description}](results/{plot.name}.svg)"
    said = f"**{verdict}**" if verdict else ""
    return "\n\n".join(filter(None, [command(facts["command"]), said, body, shown]))
