"""What systemd is told of a service: one datagram to the socket that it names (``sd_notify(3)``)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["READY=1", "STOPPING=1", "RELOADING=1"]


def tell_service_manager(state: State, environ: Mapping[str, str] = os.environ) -> None:
    """Tell how the service stands; nothing happens where none listens."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace of Linux
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
