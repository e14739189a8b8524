"""The summary as one self-contained HTML page: the same Markdown, with the plots inside it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from evenhand.report.decided import STATUSES
from evenhand.report.figures import Picture
from evenhand.report.summary import heading_slug

_FIGURE = re.compile(r"figures/([A-Za-z0-9_-]+)\.svg")
_OPEN = re.compile(r"<details><summary>([^<]*)</summary>")
_CLOSE = "</details>"
_LONG = 60
"""Characters of a cell that is a sentence rather than a name."""

_NUMBER = re.compile(r"(?:[-+\[]?\d|below \d).{0,45}(?<!\.)$|-$")


def render_html(markdown: str, *, title: str, pictures: Sequence[Picture] = ()) -> str:
    """Return a page that needs no other file and asks no server for anything.

    Markup in the text is shown as text; of HTML only the ``details`` of our own template counts,
    which no value can contain, since every ``<`` in a value is an entity.
    """
    body = _parser().render(markdown, {"pictures": {one.name: one for one in pictures}})
    environment = Environment(
        loader=PackageLoader("evenhand.report"), undefined=StrictUndefined, autoescape=True
    )
    return environment.get_template("summary.html.j2").render(title=title, body=body)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.block.ruler.before(
        "paragraph", "details", _details, {"alt": ["paragraph", "list", "blockquote"]}
    )
    parser.add_render_rule("image", _image)
    parser.add_render_rule("heading_open", _heading_open)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    parser.add_render_rule("td_open", _cell_open)
    parser.add_render_rule("th_open", _header_open)
    return parser


def _details(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: ARG001
    """Take a line that opens or closes a folded part as what it is."""
    line = state.getLines(start, start + 1, 0, keepLastLF=False).strip()
    opened = _OPEN.fullmatch(line)
    if opened is None and line != _CLOSE:
        return False
    if not silent:
        state.line = start + 1
        token = state.push("html_block", "", 0)
        words = "" if opened is None else html.escape(html.unescape(opened[1]).replace("\\", ""))
        token.content = (
            f"{_CLOSE}\n" if opened is None else f"<details><summary>{words}</summary>\n"
        )
    return True


def _image(
    self: RendererHTML,  # noqa: ARG001 - the signature is markdown-it's
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,  # noqa: ARG001
    env: EnvType,
) -> str:
    """Return the plot itself in place of a reference to it, with its text alternative."""
    token = tokens[index]
    found = _FIGURE.fullmatch(str(token.attrs.get("src", "")))
    pictures: Mapping[str, Picture] = env["pictures"]
    if found is None or found[1] not in pictures:
        return html.escape(token.content)
    return _inline(pictures[found[1]])


def _inline(picture: Picture) -> str:
    label, text = html.escape(picture.title), html.escape(picture.description)
    ids = f"{picture.name}-title {picture.name}-desc"
    named = f'<svg role="img" aria-labelledby="{ids}" '
    words = (
        f'<title id="{picture.name}-title">{label}</title>'
        f'<desc id="{picture.name}-desc">{text}</desc>'
    )
    svg = (
        re.sub(r' (width|height)="[^"]*"', "", picture.svg[: picture.svg.index(">")])
        + (picture.svg[picture.svg.index(">") :])
    )
    svg = svg.replace("<svg ", named, 1)
    end = svg.index(">") + 1
    return f'<span class="figure">{svg[:end]}{words}{svg[end:]}</span>'


def _heading_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Give a heading the anchor that the contents link to."""
    seen: dict[str, int] = env.setdefault("slugs", {})
    slug = heading_slug(tokens[index + 1].content)
    again = seen.get(slug, 0)
    seen[slug] = again + 1
    tokens[index].attrSet("id", f"{slug}-{again}" if again else slug)
    return self.renderToken(tokens, index, options, env)


def _table_open(*_: Any) -> str:
    """Let a wide table scroll inside its own box."""
    return '<div class="scroll" tabindex="0"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"


def _cell_open(
    self: RendererHTML,  # noqa: ARG001
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,  # noqa: ARG001
    env: EnvType,  # noqa: ARG001
) -> str:
    """Set figures to the right, and give long texts room; Markdown can only say it of a column."""
    text = tokens[index + 1].content
    if text in STATUSES:
        return '<td class="status">'
    if _NUMBER.match(text) is not None:
        return '<td class="number">'
    return '<td class="long">' if len(text) > _LONG else "<td>"


def _header_open(*_: Any) -> str:
    return "<th>"
