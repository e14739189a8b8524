"""A simulated reviewer: a real user of the review pages, without a browser.

It logs in, reads one post after the other from the page, answers by the truth file of
`send_traffic.py`, now and then wrongly, and sends the page's own forms. Its password comes from the
environment variable EVENHAND_REVIEWER_PASSWORD. People need breaks and may skip; this one does not.
    python examples/production/review_posts.py --name alice --truth live/truth.jsonl
    python examples/production/review_posts.py --name alice --truth live/truth.jsonl --adjudicate
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from pathlib import Path

import numpy as np
from truth import hash_of, read_truth

from evenhand.core.records import HATE, NORMAL
from evenhand.data.starter import generate

Answer = tuple[str, tuple[str, ...]]
Fields = Sequence[tuple[str, str]]


@dataclass
class Form:
    """A form of a page: where it goes, its hidden fields, and the groups that it offers."""

    action: str
    hidden: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What a reviewer takes from a page: the forms, the post, and what the page announces."""

    def __init__(self, text: str, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.url = url
        self.forms: dict[str, Form] = {}
        self.post: str | None = None
        self.said: list[str] = []
        self._form: Form | None = None
        self._inside: list[str] = []
        self.feed(text)

    def form(self, action: str) -> Form | None:
        """Return the form that goes to an address ending so, or None."""
        return next((one for url, one in self.forms.items() if url.endswith(action)), None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note forms and their fields, and where a post or an announcement begins."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(given.get("action", ""))
            self.forms[self._form.action] = self._form
        elif tag == "input" and self._form is not None:
            if given.get("type") == "hidden":
                self._form.hidden[given["name"]] = given.get("value", "")
            elif given.get("name") == "group" and given.get("value"):
                self._form.groups.append(given["value"])
        elif tag == "div" and "post-text" in given.get("class", "").split():
            self._inside.append("post")
        elif tag == "bdi" and self._inside[-1:] == ["post"]:
            self._inside.append("text")
            self.post = ""
        elif "data-announce" in given or given.get("role") == "alert":
            self._inside.append("said")

    def handle_endtag(self, tag: str) -> None:
        """Note where a form, the post or an announcement ends."""
        if tag == "form":
            self._form = None
        elif self._inside and tag in {"text": ("bdi",), "post": ("div",)}.get(
            self._inside[-1], ("p", "div", "section")
        ):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Collect the text of the post and of announcements."""
        if self._inside[-1:] == ["text"]:
            self.post = (self.post or "") + data
        elif self._inside[-1:] == ["said"] and data.strip():
            self.said.append(" ".join(data.split()))


class Client:
    """A browser without a screen: it keeps cookies, and goes where it is sent."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> Page:
        """Open a page."""
        return self._open(urllib.request.Request(self._url + path))

    def send(self, form: Form, fields: Fields) -> Page:
        """Send a form with its hidden fields, and return the page that follows."""
        data = urllib.parse.urlencode([*form.hidden.items(), *fields]).encode()
        headers = {"Origin": self._url, "Content-Type": "application/x-www-form-urlencoded"}
        address = urllib.parse.urljoin(self._url, form.action)
        return self._open(urllib.request.Request(address, data=data, headers=headers))

    def _open(self, request: urllib.request.Request) -> Page:
        try:
            with self._opener.open(request, timeout=60) as response:
                return Page(response.read().decode(), response.url)
        except urllib.error.HTTPError as error:
            said = " ".join(Page(error.read().decode("utf-8", "replace"), request.full_url).said)
            raise SystemExit(f"{request.full_url} answered {error.code}: {said}") from error
        except urllib.error.URLError as error:
            raise SystemExit(f"{self._url} cannot be reached: {error.reason}") from error


def known_answers(truth: Path) -> dict[str, Answer]:
    """Return label and groups by the text's hash: of posts sent, and of the starter corpus."""
    golden = (row for rows in generate().values() for row in rows)
    known = {hash_of(row.text): (str(row.label), tuple(row.groups)) for row in golden}
    return known | {one.text_sha256: (one.label, one.groups) for one in read_truth(truth)}


def log_in(client: Client, name: str, password: str) -> None:
    """Log in through the form, or end with what the page says."""
    form = client.get("/review/login").form("/login")
    if form is None:
        raise SystemExit("the login page has no form")
    page = client.send(form, [("name", name), ("password", password)])
    if page.form("/login") is not None:
        raise SystemExit(" ".join(page.said) or "the login failed")


def work(
    client: Client,
    known: Mapping[str, Answer],
    *,
    adjudicates: bool,
    error_rate: float,
    limit: int,
    rng: np.random.Generator,
) -> tuple[int, int, str]:
    """Answer posts until there are none; return answered, skipped, and the page's last words."""
    place, action, words = (
        ("/review/adjudicate", "/adjudicate", "reason")
        if adjudicates
        else ("/review/", "/label", "rationale")
    )
    answered = skipped = 0
    page = client.get(place)
    while answered < limit and page.post is not None:
        form, skip = page.form(action), page.form("/skip")
        if form is None or "item" not in form.hidden:
            break
        found = known.get(hash_of(page.post))
        if found is None:
            if skip is None:
                break
            page = client.send(skip, [])
            skipped += 1
            continue
        label, groups = found
        if rng.random() < error_rate:
            label = NORMAL if label == HATE else HATE
        offered = [group for group in groups if group in form.groups]
        chosen = [("group", group) for group in offered] or [("group", "")]
        said = "as the simulation knows" if adjudicates else ""
        page = client.send(form, [("label", label), *chosen, (words, said)])
        answered += 1
        if answered % 20 == 0 and sys.stderr.isatty():
            print(f"\r{answered} posts", end="", file=sys.stderr, flush=True)
    return answered, skipped, " ".join(page.said)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--name", required=True, help="of the reviewer")
    parser.add_argument("--truth", type=Path, required=True, help="written by send_traffic.py")
    parser.add_argument("--error-rate", type=float, default=0.02, help="share of wrong labels")
    parser.add_argument("--limit", type=int, default=100_000, help="posts at most")
    parser.add_argument("--adjudicate", action="store_true", help="settle disputes; admins only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    password = os.environ.get("EVENHAND_REVIEWER_PASSWORD")
    if not password:
        raise SystemExit("EVENHAND_REVIEWER_PASSWORD is not set")
    client = Client(options.url)
    log_in(client, options.name, password)
    answered, skipped, said = work(
        client,
        known_answers(options.truth),
        adjudicates=options.adjudicate,
        error_rate=0.0 if options.adjudicate else options.error_rate,
        limit=options.limit,
        rng=np.random.default_rng([options.seed, *options.name.encode()]),
    )
    verb = "decided" if options.adjudicate else "labelled"
    print(f"{options.name} {verb} {answered} posts and skipped {skipped}. {said}".rstrip())


if __name__ == "__main__":
    main()
