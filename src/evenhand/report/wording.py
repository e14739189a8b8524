"""Numbers and tables as text: the only place where anything is rounded."""

from __future__ import annotations

import itertools
import math
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from evenhand.core.evaluation import MetricValue

METRIC_NAMES = {
    "f1": "F1",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "roc_auc": "ROC AUC",
    "fpr": "FPR",
    "fnr": "FNR",
    "ece": "ECE",
    "brier": "Brier score",
}
UNKNOWN = "not recorded"
_ENTITY = re.compile(r"&(?=#?\w+;)")
_ESCAPES = (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`"), ("](", "]\\("))
_ESCAPED = re.compile(r"\\([\\|*`(])|&(lt|amp);")
_COLUMNS = re.compile(r"(?<!\\)(?:\\\\)*\|")
_MARKUP = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def metric_name(metric: str) -> str:
    """Return a metric's name as it is printed.

    >>> metric_name("roc_auc"), metric_name("eval_loss")
    ('ROC AUC', 'eval_loss')
    """
    return METRIC_NAMES.get(metric, metric)


def decimal(value: float | None, *, digits: int = 3) -> str:
    """Return a number with fixed decimals.

    >>> decimal(0.66923), decimal(float("nan"))
    ('0.669', 'not recorded')
    """
    return f"{value:.{digits}f}" if is_number(value) else UNKNOWN


def percent(value: float | None, *, digits: int = 1) -> str:
    """Return a fraction as a percentage.

    >>> percent(0.6)
    '60.0%'
    """
    return f"{100 * value:.{digits}f}%" if is_number(value) else UNKNOWN


def rate(value: float | None) -> str:
    """Return a rate as a percentage with two decimals, or one where the second is a zero.

    >>> rate(28 / 30), rate(0.6)
    ('93.33%', '60.0%')
    """
    if not is_number(value):
        return UNKNOWN
    text = f"{100 * value:.2f}"
    return f"{text[:-1] if text.endswith('0') else text}%"


def points(value: float | None, *, digits: int = 1) -> str:
    """Return a difference of fractions in percentage points.

    >>> points(0.0211), points(-0.0004), points(-0.0207, digits=2)
    ('+2.1 pp', '0.0 pp', '-2.07 pp')
    """
    if not is_number(value):
        return UNKNOWN
    text = f"{100 * value:+.{digits}f}"
    return f"{text if text.strip('+-0.') else text[1:]} pp"


def change(before: float | None, after: float | None) -> str:
    """Return a difference of fractions in percentage points and relative to the first.

    >>> change(0.6852, 0.6692), change(0.0, 0.1)
    ('-1.60 pp (-2.3% relative)', '+10.00 pp')
    """
    if not is_number(before) or not is_number(after):
        return UNKNOWN
    text = points(after - before, digits=2)
    if before == 0:
        return text
    share = f"{(after - before) / abs(before):+.1%}"
    return f"{text} ({share if share.strip('+-0.%') else '0.0%'} relative)"


def relative(previous: float | None, current: float | None) -> str:
    """Return how far a loss moved from the previous one, as a relative percentage.

    >>> relative(1.3383, 0.5454), relative(0.5, 0.55)
    ('down 59.2% relative', 'up 10.0% relative')
    """
    if not is_number(previous) or not is_number(current) or previous == 0:
        return UNKNOWN
    change = (previous - current) / previous
    return f"{'down' if change >= 0 else 'up'} {abs(change):.1%} relative"


def count(value: Any) -> str:
    """Return a whole number with separators.

    >>> count(7962624)
    '7,962,624'
    """
    return f"{int(value):,}" if is_number(value) else UNKNOWN


def counted(number: int, noun: str) -> str:
    """Return a number of things, with the noun in the singular for one.

    >>> counted(1, "row"), counted(2686, "row")
    ('1 row', '2,686 rows')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def these_rows(number: int) -> str:
    """Return the rows at hand as the subject of a sentence.

    >>> these_rows(1), these_rows(120)
    ('This 1 row', 'These 120 rows')
    """
    return f"{'This' if number == 1 else 'These'} {counted(number, 'row')}"


def duration(seconds: float | None) -> str:
    """Return a run time in seconds and minutes.

    >>> duration(825.39)
    '825.4 s (13.8 min)'
    """
    if not is_number(seconds):
        return UNKNOWN
    return f"{seconds:,.1f} s" + (f" ({seconds / 60:.1f} min)" if seconds >= 60 else "")


def about_time(seconds: float) -> str:
    """Return an expected run time.

    >>> about_time(40), about_time(825.39), about_time(20_000)
    ('about 40 s', 'about 14 min', 'about 5.6 h')
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def estimate(metric: MetricValue, *, as_percent: bool = False) -> str:
    """Return a value alone, or why there is none.

    >>> estimate(MetricValue(reason="no_negatives"))
    'undefined (no negatives)'
    """
    if metric.value is None:
        return f"undefined ({reason_words(metric.reason)})"
    return rate(metric.value) if as_percent else decimal(metric.value, digits=4)


def interval(metric: MetricValue, *, as_percent: bool = False) -> str:
    """Return the interval alone, or why there is none."""
    if metric.low is None or metric.high is None:
        return "-" if metric.value is None else f"none ({reason_words(metric.reason)})"
    if as_percent:
        return f"[{percent(metric.low)}, {percent(metric.high)}]"
    return f"[{decimal(metric.low)}, {decimal(metric.high)}]"


def with_interval(metric: MetricValue, *, as_percent: bool = False) -> str:
    """Return a value with its interval.

    >>> with_interval(MetricValue(value=0.3, low=0.108, high=0.603), as_percent=True)
    '30.0% [10.8%, 60.3%]'
    """
    text = estimate(metric, as_percent=as_percent)
    return text if metric.low is None else f"{text} {interval(metric, as_percent=as_percent)}"


def ratio(metric: MetricValue) -> str:
    """Return a ratio of rates with its interval.

    >>> ratio(MetricValue(value=1.093, low=0.921, high=1.299))
    '1.09 [0.92, 1.30]'
    """
    if metric.value is None or metric.low is None or metric.high is None:
        return estimate(metric)
    shown = (decimal(value, digits=2) for value in (metric.value, metric.low, metric.high))
    return "{} [{}, {}]".format(*shown)


def points_with_interval(metric: MetricValue) -> str:
    """Return a difference in percentage points, with its interval where there is one.

    >>> points_with_interval(MetricValue(value=-0.016, reason="stated_not_verified"))
    '-1.6 pp'
    """
    if metric.value is None:
        return estimate(metric)
    if metric.low is None or metric.high is None:
        return points(metric.value)
    return f"{points(metric.value)} [{points(metric.low)[:-3]}, {points(metric.high)[:-3]}]"


def about(number: int) -> str:
    """Return an estimated number of rows, rounded up to three digits.

    >>> about(184858), about(2300), about(51)
    ('about 185,000', 'about 2,300', 'about 51')
    """
    unit = 10 ** max(len(str(number)) - 3, 0)
    return f"about {count(math.ceil(number / unit) * unit)}"


def signs(text: str) -> str:
    """Return a text with the signs for "at least" and "at most" as they are printed.

    >>> signs("F1 >= 0.70")
    'F1 \u2265 0.70'
    """
    return text.replace(">=", "\N{GREATER-THAN OR EQUAL TO}").replace(
        "<=", "\N{LESS-THAN OR EQUAL TO}"
    )


def capitalised(sentence: str) -> str:
    """Return a sentence with a capital at its beginning."""
    return sentence[:1].upper() + sentence[1:]


def reason_words(reason: str | None) -> str:
    """Return a reason in words.

    >>> reason_words("no_negatives")
    'no negatives'
    """
    return (reason or "unknown reason").replace("_", " ")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number (a bool is not)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def one_line(text: str) -> str:
    r"""Return a text without line breaks and hidden characters, for where nothing is markup.

    >>> one_line("a\nb")
    'a b'
    """
    return "".join(
        " " if one.isspace() else _REPLACEMENT if _is_hidden(one) else one for one in text
    )


def ended(text: str) -> str:
    """Return a text with one full stop at its end.

    >>> ended("The highest F1."), ended("named by the user")
    ('The highest F1.', 'named by the user.')
    """
    return f"{text.rstrip('. ')}."


def cell(value: Any) -> str:
    r"""Return a text that cannot break out of a table cell or a line, nor become markup.

    >>> cell("a|b"), cell("middle_east"), cell("<b>![x](y)")
    ('a\\|b', 'middle_east', '&lt;b>![x]\\(y)')
    """
    shown = "".join(_REPLACEMENT if _is_hidden(one) else one for one in str(value))
    text = _ENTITY.sub("&amp;", shown).replace("\\", "\\\\")
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return " ".join(text.split())


def literal(text: str) -> str:
    r"""Return somebody else's text so that Markdown shows it character by character.

    Every ASCII punctuation character is escaped, and characters that control the direction or the
    terminal are replaced, so that no post can become markup, a link or a command.

    >>> literal("*a* <script>")
    '\\*a\\* &lt;script&gt;'
    """
    shown = "".join(_shown(character) for character in text)
    return " ".join(shown.split())


def _shown(character: str) -> str:
    if character in _MARKUP:
        return _MARKUP[character]
    if character in string.punctuation:
        return f"\\{character}"
    if character.isspace():
        return " "
    return _REPLACEMENT if _is_hidden(character) else character


def _is_hidden(character: str) -> bool:
    """Whether a character controls the terminal or the direction, or has no shape."""
    if character.isspace():
        return False
    return unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co") or character in _BIDI


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, the first column to the left and the others to the right.

    >>> print(table(["Metric", "Value"], [["F1", "0.669"]]))
    | Metric | Value |
    |:--|--:|
    | F1 | 0.669 |
    """
    body = [[cell(value) or "-" for value in row] for row in rows]
    return plain_table([cell(value) or "-" for value in header], body)


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are escaped already."""
    body = [list(row) for row in rows]
    assert all(len(row) == len(header) for row in body), "a table row of another width"
    rule = "|:--|" + "--:|" * (len(header) - 1)
    printed = ["| " + " | ".join(line) + " |" for line in [header, *body]]
    return "\n".join([printed[0], rule, *printed[1:]])


def terminal(markdown: str) -> str:
    """Return Markdown of this module as plain text: no escapes, columns under one another.

    >>> print(terminal(table(["Metric", "Value"], [["p <b>", "0.669"], ["F1", "1"]])))
    | Metric | Value |
    | ------ | ----- |
    | p <b>  | 0.669 |
    | F1     | 1     |
    """
    lines: list[str] = []
    block: list[list[str]] = []
    for line in [*markdown.split("\n"), None]:
        if line is not None and line.startswith("|"):
            ends = [found.end() for found in _COLUMNS.finditer(line)]
            pairs = itertools.pairwise(ends)
            block.append([_unescaped(line[start : end - 1].strip()) for start, end in pairs])
            continue
        lines += _padded(block)
        block = []
        if line is not None:
            lines.append(_unescaped(line))
    return "\n".join(lines)


def _padded(block: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its second being the rule under the header."""
    if not block:
        return []
    widths = [max(map(len, column)) for column in zip(block[0], *block[2:], strict=True)]
    widths[-1] = len(block[0][-1])  # the last column holds the notes, which may be long
    rows = [block[0], ["-" * width for width in widths], *block[2:]]
    return [
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or {"lt": "<", "amp": "&"}[found[2]], text)


def listed(items: Iterable[str]) -> str:
    """Return items as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    names = list(items)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
