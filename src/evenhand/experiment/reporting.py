"""The report of one experiment, or of runs put side by side, written to a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evenhand.config.files import shown
from evenhand.core.decisions import Comparison
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import atomic_dir, write_json, write_text
from evenhand.data.matching import content_ids
from evenhand.decide.audit.inputs import Role
from evenhand.experiment.auditing import audit_runs
from evenhand.experiment.comparing import compare_phases
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import Results
from evenhand.experiment.summarise import Context, summary_of
from evenhand.report.comparison import comparison_table
from evenhand.report.figures import draw_pictures
from evenhand.report.html import render_html
from evenhand.report.records import Summary
from evenhand.report.summary import render_summary
from evenhand.report.wording import listed, one_line

_REMEDY = "name the file that has them: evenhand import ... --data FILE"


def write_report(summary: Summary, out: Path) -> Path:
    """Write a report's files to ``out`` and return the path of ``summary.md``.

    They are ``summary.md`` with ``figures/``, ``summary.html`` (one file with everything in it),
    ``comparison.json``, and ``audit.json`` where an audit was made.
    """
    pictures = draw_pictures(summary)
    text = render_summary(summary, figures={one.name: one.description for one in pictures})
    with atomic_dir(out / "figures") as folder:
        for picture in pictures:
            write_text(folder / f"{picture.name}.svg", picture.svg)
    title = one_line(f"{summary.name}: Experiment Summary")
    write_text(out / "summary.html", render_html(text, title=title, pictures=pictures))
    write_json(out / "comparison.json", comparison_table(summary))
    if summary.audit is not None:
        write_json(out / "audit.json", summary.audit.model_dump(mode="json"))
    write_text(out / "summary.md", text)
    return out / "summary.md"


def refuse_file(out: Path) -> None:
    """Refuse a folder to write to that is a file, or lies under one, before anything is computed.

    Raises:
        ConfigError: it is.
    """
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(
                "the command",
                [Problem("--out", f"{shown(path)} is a file; choose another folder")],
                consequence="nothing was written",
            )


def report_on(
    results: Sequence[Results],
    *,
    roles: Mapping[str, Role] | None = None,
    chosen: str | None = None,
    include_posts: bool = False,
    command: str | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Summary:
    """Return the summary of finished runs side by side: paired tests, audit, decisions.

    Args:
        results: the runs, in the order in which they are told of.
        roles: the role of an evaluation set by its name; a set whose name is a role has that one.
        chosen: the run that was chosen.
        include_posts: read the evaluated files again, so that errors show their posts.
        command: the command that this was.
        warn: told of each set whose posts were asked for and cannot be read.
    """
    texts, notes = _texts(results) if include_posts else ({}, [])
    for note in notes:
        warn(note)
    title = listed(one.name for one in results)
    context = Context(
        name=title,
        notes=(*notes, *_unlike_rows(results)),
        command=command,
        commands=tuple(
            dict.fromkeys(
                made for one in results if (made := one.manifest.get("command")) is not None
            )
        ),
        audit=audit_runs(results, roles),
        comparisons=_comparisons(results),
        texts=texts,
    )
    return summary_of(results, context=context, roles=roles, chosen=chosen)


def _comparisons(results: Sequence[Results]) -> tuple[Comparison, ...]:
    return compare_phases(results, sets=_comparable_sets(results))


def _sets(results: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in one.evaluation_names))


def _rows_of(results: Sequence[Results], name: str) -> set[frozenset[tuple[str, str | None]]]:
    """Return the different sets of labelled rows that runs have under one name."""
    frames = [one.predictions(name).frame for one in results if name in one.evaluation_names]
    return {frozenset(zip(frame["id"], frame["label"], strict=True)) for frame in frames}


def _comparable_sets(results: Sequence[Results]) -> list[str]:
    return [name for name in _sets(results) if len(_rows_of(results, name)) == 1]


def _unlike_rows(results: Sequence[Results]) -> list[str]:
    comparable = _comparable_sets(results)
    return [
        f"The runs were not evaluated on the same rows of {name}, so they are not compared on it."
        for name in _sets(results)
        if name not in comparable
    ]


def _texts(results: Sequence[Results]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the posts of each evaluation set by id, and a note on each set without any."""
    texts: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    for name in _sets(results):
        run = next(one for one in results if name in one.evaluation_names)
        file = (run.inputs(name).get("data") or {}).get("file")
        try:
            if file is None:
                raise DataError(name, [Problem(name, "its file is not recorded")])
            rows = DataSource(Path(file), on_bad_row="skip").read(name).rows
        except DataError:
            notes.append(
                f"The posts of {name} are left out: its file cannot be read again as rows with "
                f"posts; {_REMEDY}."
            )
            continue
        known = set(run.predictions(name).frame["id"])
        # An import whose table has no ids made them from the rows' content.
        made = zip(content_ids(rows), rows, strict=True)
        by_id = {**{id_: row.text for id_, row in made}, **{row.id: row.text for row in rows}}
        texts[name] = {id_: text for id_, text in by_id.items() if id_ in known}
        if not texts[name]:
            notes.append(
                f"The posts of {name} are left out: its file has other rows now; {_REMEDY}."
            )
    return texts, notes
