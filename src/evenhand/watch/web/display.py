"""How posts, times and rates are shown: the only place of the pages where anything is rounded."""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime

from markupsafe import Markup, escape

_HIDDEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f])\\1*"
)
"""A run of one character that shows nothing by itself or changes the order of what follows."""

_CONTROLS = {0: "NULL", 8: "BACKSPACE", 0x1B: "ESCAPE", 0x7F: "DELETE"}


def visible(text: str) -> Markup:
    r"""Return a post as markup: everything escaped, and what would be invisible named.

    Line ends and tabs stay; so do the joiners that emoji and several scripts need.

    >>> str(visible("<b>a\u202eb"))
    '&lt;b&gt;a<span class="mark">[U+202E RIGHT-TO-LEFT OVERRIDE]</span>b'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    parts: list[Markup] = []
    end = 0
    for run in _HIDDEN.finditer(text):
        parts.append(escape(text[end : run.start()]))
        parts.append(_marker(run[1], run.end() - run.start()))
        end = run.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def _marker(character: str, count: int) -> Markup:
    code = ord(character)
    name = unicodedata.name(character, _CONTROLS.get(code, "CONTROL CHARACTER"))
    times = f" \N{MULTIPLICATION SIGN}{count}" if count > 1 else ""
    return Markup('<span class="mark">[U+{} {}{}]</span>').format(f"{code:04X}", name, times)


def clock_time(time: datetime) -> str:
    """Return a time to the minute, in UTC.

    >>> from datetime import UTC
    >>> clock_time(datetime(2026, 11, 23, 9, 5, tzinfo=UTC))
    '2026-11-23 09:05 UTC'
    """
    return f"{time:%Y-%m-%d %H:%M} UTC"


def day(value: date | None) -> str:
    """Return a date in ISO form.

    >>> day(date(2026, 12, 7)), day(None)
    ('2026-12-07', 'no date')
    """
    return "no date" if value is None else value.isoformat()


def minutes_until(time: datetime, *, now: datetime) -> int:
    """Return how many minutes there are left, rounded up; never less than 1.

    >>> from datetime import UTC, timedelta
    >>> start = datetime(2026, 11, 23, tzinfo=UTC)
    >>> minutes_until(start + timedelta(seconds=61), now=start)
    2
    """
    return max(1, -int((now - time).total_seconds() // 60))


def group_name(group: str | None) -> str:
    """Return a group's name as it is shown.

    >>> group_name("middle_east"), group_name(None)
    ('middle east', 'all posts')
    """
    return "all posts" if group is None else group.replace("_", " ")


def share(value: float | None) -> str:
    """Return a fraction as a percentage.

    >>> share(0.2134), share(None)
    ('21.3%', 'not known yet')
    """
    return "not known yet" if value is None or value != value else f"{100 * value:.1f}%"


def interval(low: float, high: float) -> str:
    """Return an interval of fractions as percentages.

    >>> interval(0.1, 0.345)
    '10.0% to 34.5%'
    """
    return f"{100 * low:.1f}% to {100 * high:.1f}%"
