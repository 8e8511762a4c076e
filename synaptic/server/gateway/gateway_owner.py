"""What is for the owner of the gateway alone: its page, and whatever changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.server.gateway.key_ring import check_scope
from synaptic.server.gateway.refusal import FORBIDDEN, Refusal
from synaptic.server.gateway.same_user import is_of_same_user

if TYPE_CHECKING:
    from aiohttp import web

_KEY_CURE: Final = "synaptic keys add NAME --scope admin"


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
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Refusal(FORBIDDEN, "of pages, this is for the gateway's own page alone")
    if not keys and not _is_own_user(request):
        raise Refusal(FORBIDDEN, f"this is for the user who runs the gateway; for others: {_KEY_CURE}")


def _is_own_user(request: web.Request) -> bool:
    transport = request.transport
    if transport is None:
        return False  # it has gone
    return is_of_same_user(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
