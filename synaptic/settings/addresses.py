"""Addresses that people write: the URL of a node, the host of a worker. Pure functions, no look-up is made."""

from __future__ import annotations

import ipaddress
import re
from typing import NoReturn

from synaptic.errors import ConfigError
from synaptic.text import excerpt

OLLAMA_PORT = 11434
COORDINATOR_PORT = 18080
WORKER_PORT = 50052
MAX_PORT = 65535

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_HOST_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_API_PATH = re.compile(r"/(?:api|v1)(?:/.*)?\Z")


def normal_url(text: str, *, default_port: int) -> str:
    """Return ``text`` in the one form in which equal addresses are equal strings.

    The host is in lower case, the port is written out (but for 443 of https), and no slash ends it. A path is kept:
    a reverse proxy may serve an API below one.

    Args:
        text: What a person wrote.
        default_port: The port of an ``http`` address that names none.

    Raises:
        ConfigError: If it is not such an address. The message continues "the address ..."; a user name or a password
            in it is never repeated.

    """
    address = text.strip()
    example = f"http://127.0.0.1:{default_port}"
    if not address:
        _refuse("is empty", example)
    if "@" in address:
        raise ConfigError(
            "holds a user name or a password, and settings are no place for those", hint=f'write "{example}"'
        )
    if re.search(r"[\s\x00-\x1f\\]", address):
        _refuse("has a blank or a backslash in it", example)
    scheme, separator, rest = address.partition("://")
    if not separator:
        _refuse("has no scheme", "http://" + re.sub(r"^(?:https?:)?/*", "", address, flags=re.IGNORECASE))
    scheme = scheme.lower()
    if scheme not in {"http", "https"}:
        _refuse(f"has the scheme {excerpt(scheme)!r}, but it must be http or https", f"http://{rest}")
    if "?" in rest or "#" in rest:
        _refuse("has a query or a fragment", f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}")
    authority, slash, tail = rest.partition("/")
    host, port = _host_and_port(authority, example)
    if scheme == "http" and port is None:
        port = default_port
    if scheme == "https" and port == 443:  # noqa: PLR2004 - the port of https
        port = None
    base = f"{scheme}://{host}" + ("" if port is None else f":{port}")
    path = (slash + tail).rstrip("/")
    if _API_PATH.search(path):
        _refuse("ends in the path of an API", base + _API_PATH.sub("", path))
    return base + path


def normal_host(text: str) -> str:
    """Return a host name or an IP address in lower case, an IPv6 address in brackets.

    Raises:
        ConfigError: If it is neither.

    """
    host = text.strip().lower()
    if not host:
        _refuse("has no host", "127.0.0.1")
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        return _normal_ip(host)
    if not _HOST_NAME.fullmatch(host):
        _refuse("has a host that is neither a name nor an IP address", "127.0.0.1")
    return host


def split_host_port(text: str) -> tuple[str, int | None]:
    """Return host and port of ``host``, ``host:port`` or ``[ipv6]:port``.

    Raises:
        ConfigError: If it is none of these.

    """
    if "@" in text:
        raise ConfigError("holds a user name or a password, and settings are no place for those")
    if "://" in text:
        _refuse("has a scheme, but a worker is named by host and port", text.partition("://")[2].partition("/")[0])
    return _host_and_port(text.strip(), f"127.0.0.1:{WORKER_PORT}")


def _host_and_port(authority: str, example: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (authority.count(":") > 1 and not authority.startswith("[")):
        raise ConfigError("has a host that cannot be read", hint="write an IPv6 address in brackets, as in [::1]:11434")
    host = normal_host(match["host"])
    port = match["port"]
    if port is None:
        return host, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= MAX_PORT:
        raise ConfigError(
            f"has the port {excerpt(port)!r}, but ports are 1 to {MAX_PORT}", hint=f'write one, as in "{example}"'
        )
    return host, int(port)


def _normal_ip(host: str) -> str:
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host.strip('[]'))}]"
        return str(ipaddress.IPv4Address(host))
    except ValueError as exc:
        raise ConfigError("has an IP address that does not exist", hint='write one, as in "127.0.0.1"') from exc


def _refuse(message: str, instead: str) -> NoReturn:
    raise ConfigError(message, hint=f'write "{excerpt(instead)}"')
