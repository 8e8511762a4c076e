"""What is for the owner of the gateway alone: its page, and whatever changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.server.gateway.key_ring import check_scope
from synaptic.server.gateway.refusal import FORBIDDEN, Refusal
from synaptic.server.gateway.same_user import is_of_same_user

if TYPE_CHECKING:
    from aiohttp import web

_KEY_CURE: Final = "synaptic keys add NAME --scope admin"
_OWN_SITES: Final = {"same-origin", "none"}
"""What browsers say of a page's requests to its own origin, and of an address that a person typed (Fetch Metadata)."""


def check_owner(request: web.Request, *, keys: bool) -> None:
    """Let the owner through: a key for it, or without keys the user of this process; of pages the gateway's own.

    A page of another origin is refused even where that may use the models.

    Args:
        request: What is asked.
        keys: Whether clients must bring keys.

    Raises:
        Refusal: If it is another's.
    """
    check_scope("admin")
    origin = request.headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    # A script or a picture of a page has no origin, and where the page is at another port of this machine it is not
    # "cross-site", which the guard refuses. From the time that a search takes, the page would see what was found.
    if foreign or request.headers.get("sec-fetch-site", "same-origin") not in _OWN_SITES:
        raise Refusal(FORBIDDEN, "of pages, this is for the gateway's own page alone")
    if not keys and not _is_own_user(request):
        raise Refusal(FORBIDDEN, f"this is for the user who runs the gateway; for others: {_KEY_CURE}")


def _is_own_user(request: web.Request) -> bool:
    transport = request.transport
    if transport is None:
        return False  # it has gone
    return is_of_same_user(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
