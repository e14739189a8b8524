"""Checks of the data files: rows that sets share, and texts with two labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from evenhand.core.decisions import Finding
from evenhand.core.records import Row
from evenhand.data.overlap import NEAR, Match, exact_matches, overlaps
from evenhand.decide.audit.inputs import AuditInputs, AuditSet
from evenhand.decide.audit.wording import percent, rows, verb


def exact_overlap(inputs: AuditInputs) -> Iterator[Finding]:
    """Find evaluation rows that stand in a training set word for word."""
    for train, other in itertools.product(inputs.training_sets, inputs.evaluation_sets):
        shared = exact_matches(train.texts, other.texts)
        found = [row for match in shared for row in match.evaluation]
        if found:
            yield Finding(
                check="exact_overlap",
                subject=f"{train.name} / {other.name}",
                severity="error",
                message=(
                    f"{_share(found, other)} {verb(found, 'stands', 'stand')} word for word in "
                    f"{train.name}: a model that remembers them looks better than it is."
                ),
                evidence=_evidence(train, other, shared, len(found)),
                remedy=(
                    f"Take these rows out of {train.name} or out of {other.name}; what is measured "
                    "on them says nothing about new posts."
                ),
            )


def near_overlap(inputs: AuditInputs) -> Iterator[Finding]:
    """Find evaluation rows that differ little from a training row."""
    for train, other in itertools.product(inputs.training_sets, inputs.evaluation_sets):
        shared = overlaps(train.texts, other.texts)
        found = shared.near_rows
        if found:
            kept = [match for match in shared.near if set(match.evaluation) & set(found)]
            yield Finding(
                check="near_overlap",
                subject=f"{train.name} / {other.name}",
                severity="warning",
                message=(
                    f"{_share(found, other)} {verb(found, 'is', 'are')} nearly the same as a row "
                    f"of {train.name} (at least {percent(NEAR)} of their character 5-shingles)."
                ),
                evidence={**_evidence(train, other, kept, len(found)), "threshold": NEAR},
                remedy=f"Look at the pairs, and take the copies out of {train.name}.",
            )


def evaluation_overlap(inputs: AuditInputs) -> Iterator[Finding]:
    """Find rows that two evaluation sets of different roles share, word for word or nearly."""
    for first, second in itertools.combinations(inputs.evaluation_sets, 2):
        if first.role == second.role:
            continue
        shared = overlaps(first.texts, second.texts)
        exact, near = shared.exact_rows, shared.near_rows
        if exact or near:
            yield Finding(
                check="evaluation_overlap",
                subject=f"{first.name} / {second.name}",
                severity="warning",
                message=(
                    f"{rows(len(exact))} of {second.name} ({second.role}) "
                    f"{verb(exact, 'stands', 'stand')} word for word in "
                    f"{first.name} ({first.role}), and {len(near):,} nearly: what is chosen or "
                    "tuned on the one is not tested afresh on the other."
                ),
                evidence={
                    "rows": len(exact) + len(near),
                    "of": len(second.data),
                    "matches": [
                        _match(one, (first.name, second.name))
                        for one in (*shared.exact, *shared.near)
                    ],
                },
                remedy="Give each row one role.",
            )


def conflicting_labels(inputs: AuditInputs) -> Iterator[Finding]:
    """Find texts that carry both labels, within a set or in two of them."""
    for one in inputs.sets:
        texts = [(members, members) for members in one.texts.members.values()]
        yield from _conflicts(one, one, [pair for pair in texts if _labels(pair[0]) > 1])
    for first, second in itertools.combinations(inputs.sets, 2):
        ours, theirs = first.texts.members, second.texts.members
        both = [(ours[text], theirs[text]) for text in theirs if text in ours]
        # Texts that conflict within one set are told there.
        across = [
            pair
            for pair in both
            if _labels(pair[0]) == _labels(pair[1]) == 1 and _labels((*pair[0], *pair[1])) > 1
        ]
        yield from _conflicts(first, second, across)


def _conflicts(
    first: AuditSet, second: AuditSet, pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]
) -> Iterator[Finding]:
    if not pairs:
        return
    within = first is second
    place = f"within {first.name}" if within else f"in {first.name} and {second.name}"
    texts = "1 text has" if len(pairs) == 1 else f"{len(pairs):,} texts have"
    yield Finding(
        check="conflicting_labels",
        subject=first.name if within else f"{first.name} / {second.name}",
        severity="warning",
        message=f"{texts} both labels {place}: on such rows no model can be right every time.",
        evidence={
            "texts": len(pairs),
            "conflicts": [
                {"rows": {first.name: _labelled(ours), second.name: _labelled(theirs)}}
                for ours, theirs in pairs
            ],
        },
        remedy="Decide each text's label once, with the label policy at hand, or leave it out.",
    )


def _share(found: Sequence[str], other: AuditSet) -> str:
    n = len(other.data)
    return f"{len(found):,} of the {rows(n)} of {other.name} ({percent(len(found) / n)})"


def _labels(members: Sequence[Row]) -> int:
    return len({row.label for row in members} - {None})


def _labelled(members: Sequence[Row]) -> dict[str, str | None]:
    return {row.id: row.label for row in members}


def _evidence(
    train: AuditSet, other: AuditSet, matches: Sequence[Match], found: int
) -> dict[str, Any]:
    return {
        "rows": found,
        "of": len(other.data),
        "share": found / len(other.data),
        "matches": [_match(one, (train.name, other.name)) for one in matches],
    }


def _match(match: Match, names: tuple[str, str]) -> dict[str, Any]:
    return {
        "similarity": match.similarity,
        "rows": {names[0]: list(match.train), names[1]: list(match.evaluation)},
    }
