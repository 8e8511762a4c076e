"""Who may ask: programs of this machine, and no web page from elsewhere that a browser here has opened.

A page can make a browser send requests to 127.0.0.1, under a name of its own (DNS rebinding) or from its own origin;
both show in headers (``allowedHostsMiddleware`` and the CORS rules in ``server/routes.go``).
"""

from __future__ import annotations

import ipaddress
import platform
from urllib.parse import urlsplit

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_APPS = ("app", "file", "tauri", "vscode-webview", "vscode-file")


def is_allowed(host: str, origin: str | None) -> bool:
    """Tell whether a request with these headers is answered."""
    return is_local_name(_name(f"//{host}")) and (origin is None or is_local_origin(origin))


def is_local_name(name: str) -> bool:
    """Tell whether a host's name or address is one that this machine may be called by."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in {"", "localhost", platform.node().lower()} or name.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_unspecified


def is_local_origin(origin: str) -> bool:
    """Tell whether a page is one of this machine, or of a program with a window of its own."""
    scheme = origin.partition("://")[0]
    if scheme in _APPS:
        return True
    return scheme in {"http", "https"} and _name(origin) in {"localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104 - read


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return "?"
