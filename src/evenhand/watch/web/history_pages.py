"""What was done to the queue: one's own acts, for admins everybody's."""

from __future__ import annotations

from starlette.responses import Response

from evenhand.watch.reviewing.acts import history
from evenhand.watch.web.site import Visit

_SHOWN = 200


def show(visit: Visit) -> Response:
    """Show the latest acts; an admin may ask for all with ``?of=all``."""
    asked = visit.request.query_params
    of_all = visit.is_admin and asked.get("of") == "all"
    item = asked.get("item", "")
    item_id = int(item) if item.isascii() and item.isdigit() and len(item) < 10 else None
    acts = history(
        visit.session,
        # Which item it was tells a golden one from the others: admins may know, reviewers not.
        item_id=item_id if of_all else None,
        user=None if of_all else visit.who.user,
        limit=_SHOWN,
    )
    return visit.page(
        "history.html", acts=acts, of_all=of_all, item_id=item_id if of_all else None, shown=_SHOWN
    )
