"""Lists in pages: by offset, as all lists of hooks come, and by keyset, which some others have.

lib/gitlab/pagination/offset_pagination.rb, offset_header_builder.rb; *REST API*, "Pagination".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from tests.gitlab.params import Given, integer
from tests.gitlab.replies import Refused, Reply, error, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.gitlab.settings import Settings

DEFAULT_PER_PAGE: Final = 20
MAX_PER_PAGE: Final = 100
"""*REST API*, "Offset-based pagination": at most 100; Kaminari cuts larger numbers down, without a word."""
MAX_COUNT: Final = 10_000
"""*GitLab.com*, "Pagination response headers": beyond it there is no total."""


def window(raw: Given, most: int | None = None) -> tuple[int, int]:
    """Page and size. ``most`` refuses larger sizes, where an endpoint declares its values (lib/api/hooks/events.rb)."""
    page, per_page = integer(raw, "page", 1), integer(raw, "per_page", DEFAULT_PER_PAGE)
    # lib/api/pagination_params.rb, `verify_pagination_params!`
    for name, value in (("page", page), ("per_page", per_page)):
        if value < 1:
            raise Refused(error(400, f"{name} does not have a valid value"))
    if most is not None and per_page > most:
        raise Refused(error(400, "per_page does not have a valid value"))
    return page, min(per_page, MAX_PER_PAGE)


def by_offset(
    items: Sequence[dict[str, object]], raw: Given, path: str, settings: Settings, *, most: int | None = None
) -> Reply:
    """A page of ``items``; links lead to ``path``, which is below `/api/v4`, on the instance's external URL."""
    page, size = window(raw, most)
    total, pages = len(items), max(1, -(-len(items) // size))
    following = page + 1 if page < pages else None
    preceding = page - 1 if 1 < page <= pages + 1 else None
    counted = total <= MAX_COUNT

    def link(number: int, name: str) -> str:
        query = urlencode(sorted({**raw, "page": number, "per_page": size}.items()))
        return f'<{settings.external_url.rstrip("/")}/api/v4{path}?{query}>; rel="{name}"'

    links = [link(number, name) for number, name in ((preceding, "prev"), (following, "next")) if number]
    links += [link(1, "first"), *([link(pages, "last")] if counted else [])]
    headers = [
        ("X-Per-Page", str(size)),
        ("X-Page", str(page)),
        ("X-Next-Page", str(following or "")),
        ("X-Prev-Page", str(preceding or "")),
        ("Link", ", ".join(links)),
    ]
    if counted:
        headers += [("X-Total", str(total)), ("X-Total-Pages", str(pages))]
    return shown(200, items[(page - 1) * size : page * size], tuple(headers))


def by_keyset(items: Sequence[dict[str, object]], raw: Given, path: str, settings: Settings) -> Reply:
    """*REST API*, "Keyset-based pagination": ordered by id, descending unless asked otherwise; only a "next" link.

    lib/gitlab/pagination/keyset/header_builder.rb: neither totals nor page numbers.
    """
    if raw.get("order_by", "id") != "id":
        raise Refused(error(405, "Keyset pagination is not yet available for this type of request"))
    _, size = window(raw)
    ascending = raw.get("sort") == "asc"
    bound = "id_after" if ascending else "id_before"
    beyond = integer(raw, bound, 0 if ascending else 2**63)
    rest = [item for item in items if (_id(item) > beyond if ascending else _id(item) < beyond)]
    rest.sort(key=_id, reverse=not ascending)
    shown_items = rest[:size]
    if len(rest) <= size:
        return shown(200, shown_items)
    query = urlencode(sorted({**raw, bound: _id(shown_items[-1])}.items()))
    base = settings.external_url.rstrip("/")
    return shown(200, shown_items, (("Link", f'<{base}/api/v4{path}?{query}>; rel="next"'),))


def _id(item: dict[str, object]) -> int:
    return int(str(item["id"]))


def relative_root(settings: Settings) -> str:
    """*Install GitLab under a relative URL*: "" or "/gitlab"."""
    return urlsplit(settings.external_url).path.rstrip("/")
