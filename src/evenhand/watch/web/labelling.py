"""The queue: one post at a time, its label, groups and rationale; skip, undo, breaks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import Response

from evenhand.core.records import LABELS
from evenhand.watch.reviewing.acts import MAX_WORDS_CHARS, ReviewError, last_act
from evenhand.watch.reviewing.queue import QueueItem, next_item, open_item, skip, submit, undo
from evenhand.watch.reviewing.sittings import Pause
from evenhand.watch.web.display import minutes_until
from evenhand.watch.web.security import is_same
from evenhand.watch.web.site import Refusal, Visit, go_to

NONE = ""
"""The value of "none of these" among the groups of a form."""

_SUBJECTS = {
    "item": "the post ",
    "undo": "",
    "reason": "the reason ",
    "rationale": "the rationale ",
}


@dataclass(frozen=True)
class Choice:
    """What a form says of a post, as far as it was filled in."""

    label: str = ""
    groups: tuple[str, ...] = ()
    is_none: bool = False
    words: str = ""

    def problems(self, watched: tuple[str, ...]) -> list[str]:
        """Return what is missing or does not go together, as sentences."""
        found = []
        if self.label not in LABELS:
            found.append("Choose hate or normal.")
        if self.is_none and self.groups:
            found.append('Choose groups or "none of these", not both.')
        elif not self.is_none and not self.groups:
            found.append('Choose whom the post speaks of, or "none of these".')
        if any(group not in watched for group in self.groups):
            found.append("One of the groups is not on the list.")
        return found


def read_choice(visit: Visit, words: str) -> Choice:
    """Return what a form says; ``words`` names the field with the rationale or the reason."""
    chosen = visit.texts("group")
    return Choice(
        label=visit.text("label"),
        groups=tuple(group for group in chosen if group != NONE),
        is_none=NONE in chosen,
        words=visit.text(words, longest=MAX_WORDS_CHARS),
    )


def sentences(error: ReviewError) -> list[str]:
    """Return an error's problems as sentences for a page."""
    told = (f"{_SUBJECTS.get(one.place, f'{one.place}: ')}{one.message}" for one in error.problems)
    return [f"{text[:1].upper()}{text[1:]}." for text in told]


def show(visit: Visit) -> Response:
    """Show the post that the reviewer has open, or the next one, or why there is none."""
    shown = visit.request.query_params.get("show") == "1"
    return _queue(visit, is_shown=shown)


def label(visit: Visit) -> Response:
    """Record the reviewer's label."""
    choice = read_choice(visit, "rationale")
    problems = choice.problems(visit.site.settings.watch.groups)
    if not problems:
        try:
            submit(
                visit.session,
                visit.who.user,
                _named_item(visit),
                label=choice.label,
                groups=choice.groups,
                rationale=choice.words or None,
                now=visit.now,
            )
        except ReviewError as error:
            problems = sentences(error)
        else:
            return go_to("/")
    return _queue(visit, is_shown=True, choice=choice, problems=problems)


def skip_item(visit: Visit) -> Response:
    """Pass on the post."""
    try:
        skip(visit.session, visit.who.user, _named_item(visit), now=visit.now)
    except ReviewError as error:
        return _queue(visit, problems=sentences(error))
    return go_to("/")


def undo_last(visit: Visit) -> Response:
    """Take back the reviewer's last answer."""
    reason = visit.text("reason", longest=MAX_WORDS_CHARS)
    try:
        undo(visit.session, visit.who.user, now=visit.now, reason=reason)
    except ReviewError as error:
        return _queue(visit, problems=sentences(error))
    return go_to("/")


def _named_item(visit: Visit) -> int:
    """Return the post that a form names; raises :class:`ReviewError` unless it is open."""
    named = visit.text("item")
    if not named:
        raise Refusal(422, "Incomplete form", "The form does not say which post it is about.")
    return open_item(
        visit.session, visit.who.user, lambda item_id: is_same(named, visit.sealed(item_id))
    )


def _queue(
    visit: Visit,
    *,
    is_shown: bool = False,
    choice: Choice | None = None,
    problems: list[str] | None = None,
) -> Response:
    who, site, told = visit.who, visit.site, problems or []
    found = next_item(
        visit.session,
        who.user,
        who,
        site.settings.review,
        now=visit.now,
        rng=site.draw_rng(),
    )
    status = 422 if told else 200
    if isinstance(found, Pause):
        return visit.page("pause.html", pause=found, problems=told, status=status)
    return visit.page(
        "queue.html",
        item=found,
        named="" if found is None else visit.sealed(found.id),
        is_shown=is_shown,
        choice=_kept(visit, found, choice),
        problems=told,
        groups=site.settings.watch.groups,
        can_undo=last_act(visit.session, who.user, ("label", "skip")) is not None,
        break_in=_minutes_to_break(visit),
        longest=MAX_WORDS_CHARS,
        status=status,
    )


def _kept(visit: Visit, found: QueueItem | None, choice: Choice | None) -> Choice:
    """Return what was filled in, if it was about the post that is shown now."""
    if choice is None or found is None or not is_same(visit.text("item"), visit.sealed(found.id)):
        return Choice()
    return choice


def _minutes_to_break(visit: Visit) -> int:
    minutes = visit.site.settings.review.session_minutes
    end = visit.who.row.sitting_started + timedelta(minutes=minutes)
    return minutes_until(end, now=visit.now)
