"""Who may ask: programs of this machine, and no web page from elsewhere that a browser here has opened.

A page can make a browser send requests to 127.0.0.1, under a name of its own (DNS rebinding) or from its own origin.
Both show in headers, so every name that a request is for, and every origin that it is from, must be one of this machine
or one that the person allowed. What says two things at once is refused: a proxy may have believed the other one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from synaptic.errors import UsageError
from synaptic.server.gateway.refusal import BAD_REQUEST, FORBIDDEN, Refusal, quoted
from synaptic.text import excerpt

if TYPE_CHECKING:
    from multidict import MultiMapping

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?)(?::[0-9]{1,5})?")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/\s@?#]*)")
_TARGET: Final = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
_FORWARDED_HOST: Final = re.compile(r"host\s*=\s*\"?([^\";,\s]*)", re.IGNORECASE)
_ONCE: Final = {"origin": "Origin", "authorization": "Authorization", "x-api-key": "x-api-key"}
_LOOKED_AT: Final = (*_ONCE, "host", "x-forwarded-host", "forwarded", "sec-fetch-site")
_WEB: Final = {"http", "https"}
_APPS: Final = {"app", "file", "tauri", "vscode-webview", "vscode-file"}
"""Of programs with a window of their own (``AllowedOrigins`` of Ollama); no page of the web has such an origin."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides by the headers of a request whether it is answered.

    Attributes:
        hosts: Names and addresses that this server may be called by besides those of loopback.
        origins: Origins whose pages may use it and read its answers, besides those of this machine.
        any_host: Whether it may be called by any name: a key is demanded, which no page of the web has.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    any_host: bool = False

    def check(self, version: tuple[int, int], target: str, headers: MultiMapping[str]) -> None:
        """Let a request through.

        Args:
            version: Of HTTP.
            target: As it stands in the first line.
            headers: All of them, whatever their case.

        Raises:
            Refusal: If it is for another host, from another origin, or not clear in that.
        """
        if version not in {(1, 0), (1, 1)}:
            raise Refusal(BAD_REQUEST, f"this is HTTP/{version[0]}.{version[1]}: use HTTP/1.1")
        named = {name: headers.getall(name, ()) for name in _LOOKED_AT}
        hosts = named["host"]
        if len(hosts) > 1 or (not hosts and version >= (1, 1)):
            raise Refusal(BAD_REQUEST, f"a request has one Host header, and this has {len(hosts) or 'none'}")
        absolute = None if target.startswith("/") else _TARGET.match(target)
        if absolute and hosts and absolute[1].lower() != hosts[0].lower():
            raise Refusal(BAD_REQUEST, "the target of the request names another host than its Host header")
        forwarded = [part.strip() for value in named["x-forwarded-host"] for part in value.split(",")]
        forwarded += [part for value in named["forwarded"] for part in _FORWARDED_HOST.findall(value)]
        for host in (*hosts, *([absolute[1]] if absolute else []), *forwarded):
            if not self.any_host and not self._may_be_called(host):
                raise Refusal(FORBIDDEN, f"this server is not {quoted(excerpt(host))}: {_HOST_CURE}")
        for name, shown in _ONCE.items():
            if (count := len(named[name])) > 1:
                raise Refusal(BAD_REQUEST, f"a request has one {shown} header, and this has {count}")
        origins = named["origin"]
        for origin in origins:
            if origin not in self.origins and not is_of_this_machine(origin):
                raise Refusal(FORBIDDEN, f"pages of {quoted(excerpt(origin))} are not answered: {_ORIGIN_CURE}")
        if not origins and "cross-site" in named["sec-fetch-site"]:
            # A picture or a script of a page: the browser names no origin, but says that it is another one (W3C Fetch
            # Metadata).
            raise Refusal(FORBIDDEN, f"pages of other sites are not answered: {_ORIGIN_CURE}")

    def may_read(self, origin: str | None) -> bool:
        """Tell whether pages of ``origin`` may see the answer: only those that were allowed by name."""
        return origin in self.origins

    def _may_be_called(self, host: str) -> bool:
        name = _name_of(host)
        return name is not None and (is_loopback(name.strip("[]")) or name in self.hosts)


@lru_cache(maxsize=64)
def _name_of(host: str) -> str | None:
    """Return the name or the address in a Host header, without its port; ``None`` where there is none."""
    found = _HOST.fullmatch(host.lower())
    return None if found is None else found[1]


_HOST_CURE: Final = "use 127.0.0.1, [::1] or localhost, or allow the name: synaptic serve --allow-host NAME"
_ORIGIN_CURE: Final = "to allow them, synaptic serve --allow-origin ORIGIN"


@lru_cache(maxsize=64)
def is_loopback(name: str) -> bool:
    """Tell whether a host's name or address never means another machine (RFC 6761 for ``.localhost``)."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_of_this_machine(origin: str) -> bool:
    """Tell whether a page came from this machine, or from a program with a window of its own."""
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return False
    host = _HOST.fullmatch(found[2])
    return found[1] in _APPS or (found[1] in _WEB and host is not None and is_loopback(host[1].strip("[]")))


def check_allowed_host(text: str) -> str:
    """Return a host's name as :class:`Guard` compares it.

    Raises:
        UsageError: If it is none.
    """
    found = _HOST.fullmatch(text.lower())
    if found is None or found[1] != text.lower():
        raise UsageError(
            f"--allow-host {excerpt(text)}: this is no name or address of a host",
            hint="write it without port and scheme, as in --allow-host host.docker.internal; [::2] for an IPv6 address",
        )
    return found[1]


def check_allowed_origin(text: str, said_by: str = "--allow-origin") -> str:
    """Return an origin as a browser sends it.

    Raises:
        UsageError: If it is none.
    """
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or "*" in text or (found[1] in _WEB and _HOST.fullmatch(found[2]) is None):
        raise UsageError(
            f"{said_by} {excerpt(text)}: this is no origin",
            hint="write each whole, without a path and without *, as in https://chat.example.org or http://10.0.0.4:3000",
        )
    return text.lower()
