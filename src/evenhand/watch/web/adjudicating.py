"""Disputes: two reviewers differ, an admin decides with a reason."""

from __future__ import annotations

from starlette.responses import Response

from evenhand.watch.reviewing.acts import MAX_WORDS_CHARS, ReviewError
from evenhand.watch.reviewing.queue import adjudicate, disputed
from evenhand.watch.web.labelling import Choice, read_choice, sentences
from evenhand.watch.web.site import Visit, go_to


def show(visit: Visit) -> Response:
    """Show one disputed post with both labels; ``place`` chooses which."""
    asked = visit.request.query_params
    place = asked.get("place", "")
    return _dispute(
        visit,
        place=int(place) if place.isascii() and place.isdigit() and len(place) < 7 else 0,
        is_shown=asked.get("show") == "1",
    )


def decide(visit: Visit) -> Response:
    """Record the decision."""
    choice = read_choice(visit, "reason")
    problems = choice.problems(visit.site.settings.watch.groups)
    if not choice.words:
        problems.append("Give a reason.")
    if not problems:
        try:
            adjudicate(
                visit.session,
                visit.who.user,
                visit.number("item"),
                label=choice.label,
                groups=choice.groups,
                reason=choice.words,
                now=visit.now,
            )
        except ReviewError as error:
            problems = sentences(error)
        else:
            return go_to("/adjudicate")
    return _dispute(visit, is_shown=True, choice=choice, problems=problems)


def _dispute(
    visit: Visit,
    *,
    place: int = 0,
    is_shown: bool = False,
    choice: Choice | None = None,
    problems: list[str] | None = None,
) -> Response:
    waiting = disputed(visit.session)
    if choice is not None:
        sent = visit.text("item")
        same = [index for index, one in enumerate(waiting) if str(one.item.id) == sent]
        place, choice = (same[0], choice) if same else (0, None)
    found = waiting[place % len(waiting)] if waiting else None
    return visit.page(
        "adjudicate.html",
        dispute=found,
        place=place % len(waiting) if waiting else 0,
        waiting=len(waiting),
        is_shown=is_shown,
        choice=choice or Choice(),
        problems=problems or [],
        groups=visit.site.settings.watch.groups,
        longest=MAX_WORDS_CHARS,
        status=422 if problems else 200,
    )
