"""Where the parts of a curve with its band lie in a drawing; the template puts them into SVG."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WIDTH, HEIGHT = 360, 176
LEFT, RIGHT, TOP, BOTTOM = 40, 352, 10, 150
_POINTS_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Point:
    """A rate as it was known at a time; ``value`` is None where there was no label yet."""

    time: datetime
    value: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A word at a place of the drawing."""

    at: float
    text: str
    anchor: str = "end"


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line with its name, ``bound`` or ``offline``, and where that is written."""

    kind: str
    y: float
    mark: Mark
    text_y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing in a box of 360 by 176 units.

    Attributes:
        band: the corners of the band, for a polygon.
        lines: the corners of each unbroken part of the curve.
        dots: places of single points, and of the latest one.
        rates: marks of the vertical axis, in percent from 0 to 100.
        times: marks of the horizontal axis.
        levels: the bound and the offline rate, where there are any.
    """

    band: str
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    rates: tuple[Mark, ...]
    times: tuple[Mark, ...]
    levels: tuple[Level, ...]


def draw_curve(
    points: Sequence[Point], *, bound: float | None = None, offline: float | None = None
) -> Curve | None:
    """Return the drawing of a rate over time, earliest point first; None without points."""
    if not points:
        return None
    shown = _thinned(points)
    start, end = shown[0].time, shown[-1].time
    across = [_x(one.time, start, end) for one in shown]
    top = [f"{x:.1f},{_y(one.high):.1f}" for x, one in zip(across, shown, strict=True)]
    low = [f"{x:.1f},{_y(one.low):.1f}" for x, one in zip(across, shown, strict=True)]
    if len(shown) == 1:
        # A single look has no width of its own.
        top = [f"{across[0] + side:.1f},{_y(shown[0].high):.1f}" for side in (-4, 4)]
        low = [f"{across[0] + side:.1f},{_y(shown[0].low):.1f}" for side in (-4, 4)]
    parts = [
        [(x, _y(one.value)) for x, one in part if one.value is not None]
        for known, part in itertools.groupby(
            zip(across, shown, strict=True), key=lambda pair: pair[1].value is not None
        )
        if known
    ]
    return Curve(
        band=" ".join([*top, *reversed(low)]),
        lines=tuple(
            " ".join(f"{x:.1f},{y:.1f}" for x, y in part) for part in parts if len(part) > 1
        ),
        dots=tuple(part[-1] for part in parts if len(part) == 1 or part is parts[-1]),
        rates=tuple(Mark(_y(rate / 100), f"{rate}%") for rate in (0, 25, 50, 75, 100)),
        times=_times(start, end),
        levels=_levels(bound, offline),
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most so many points as can be told apart, the first and the last among them."""
    last = len(points) - 1
    if last < _POINTS_SHOWN:
        return list(points)
    places = {round(index * last / (_POINTS_SHOWN - 1)) for index in range(_POINTS_SHOWN)}
    return [points[place] for place in sorted(places)]


def _x(time: datetime, start: datetime, end: datetime) -> float:
    whole = (end - start).total_seconds()
    part = (time - start).total_seconds() / whole if whole else 0.5
    return LEFT + part * (RIGHT - LEFT)


def _y(rate: float) -> float:
    return BOTTOM - min(max(rate, 0.0), 1.0) * (BOTTOM - TOP)


def _times(start: datetime, end: datetime) -> tuple[Mark, ...]:
    if start == end:
        return (Mark((LEFT + RIGHT) / 2, f"{start:%d %b %H:%M}", "middle"),)
    form = "%d %b %H:%M" if end - start < timedelta(days=3) else "%d %b %Y"
    return (
        Mark(LEFT, start.strftime(form), "start"),
        Mark(RIGHT, end.strftime(form), "end"),
    )


def _levels(bound: float | None, offline: float | None) -> tuple[Level, ...]:
    """Return the horizontal lines; their names stand on opposite sides, so they never meet."""
    wanted = (("bound", bound, RIGHT, "end"), ("offline", offline, LEFT + 4, "start"))
    return tuple(
        Level(name, _y(rate), Mark(x, f"{name} {100 * rate:.0f}%", anchor), _text_y(_y(rate)))
        for name, rate, x, anchor in wanted
        if rate is not None
    )


def _text_y(y: float) -> float:
    return y - 4 if y > TOP + 12 else y + 11
