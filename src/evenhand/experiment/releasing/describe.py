"""What is served, in words and as JSON."""

from __future__ import annotations

import textwrap
from typing import Any

from evenhand.core.production import Release
from evenhand.experiment.releasing.release import PreparedRelease
from evenhand.report.decided import condition_words, next_action_words
from evenhand.report.wording import terminal

# A verdict of REVIEW may name the labels that every group lacks, a screen full of them.
_NEXT_CHARS = 200
_LINE_CHARS = 100
_INDENT = " " * 13


def warnings_of(release: Release) -> tuple[str, ...]:
    """Return a line for each problem that the server starts in spite of."""
    return tuple(f"{one.code}: {one.message} ({one.reason})" for one in release.overrides)


def describe_release(prepared: PreparedRelease, where: str | None) -> dict[str, Any]:
    """Return what ``evenhand serve --json`` prints; ``where`` is None where nothing is served."""
    release, readiness = prepared.release, prepared.readiness
    return {
        "url": where,
        "release": release.sha256,
        **release.model_dump(mode="json"),
        "readiness": {
            "golden_rows": readiness.golden_rows,
            "golden_max_difference": readiness.golden_max_difference,
            "golden_tolerance": readiness.golden_tolerance,
            "adapter_difference": readiness.adapter_difference,
            "adapter_proof": readiness.adapter_proof,
        },
    }


def render_release(prepared: PreparedRelease, where: str | None) -> str:
    """Return the lines that a person reads when a server starts."""
    release, readiness = prepared.release, prepared.readiness
    calibrated = (
        "no calibration"
        if release.temperature is None
        else f"calibrated at temperature {release.temperature:.3f}"
    )
    replayed = (
        f"{readiness.golden_rows} rows, at most {readiness.golden_max_difference:.2g} from their "
        f"offline p(hate) (allowed {readiness.golden_tolerance:g})"
        if readiness.golden_rows
        else "none"
    )
    lines = [
        ("model", f"{release.model}, release {release.sha256[:12]}"),
        ("threshold", f"{release.threshold:.4f}, {calibrated}"),
        ("gate", release.outcome or "no verdict that holds"),
    ]
    if release.deployment is not None:
        conditions = release.deployment.conditions
        lines += [("condition", condition_words(one)) for one in conditions]
        action = next_action_words(release.deployment)
        more = f" ... (`evenhand gate` and {prepared.path / 'deployment.json'} have all of it)"
        lines.append(("next", textwrap.shorten(action, _NEXT_CHARS + len(more), placeholder=more)))
    lines += [("golden rows", replayed), ("proof", readiness.adapter_proof)]
    if where is not None:
        lines += [("serving at", where), ("reviews at", f"{where}/review")]
    return terminal(
        "\n".join(
            textwrap.fill(
                text,
                _LINE_CHARS,
                initial_indent=f"{name:<12} ",
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for name, text in lines
        )
    )
