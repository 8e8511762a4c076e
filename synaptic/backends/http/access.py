"""What a server is reached with: credentials as headers, and whose certificates are believed."""

from __future__ import annotations

import base64
import functools
import re
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from synaptic.errors import ConfigError
from synaptic.settings import load_authorities
from synaptic.text import spelled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx

_SENDABLE = re.compile(r"[\t\x20-\x7e]*")
"""RFC 9110, 5.5: what lies beyond is either forbidden in a header's value or read differently by every server."""


def authorization(*, token: str | None = None, user: str | None = None, password: str | None = None) -> dict[str, str]:
    """Return the header that a server asks for, to be given to :func:`~synaptic.backends.http.client.new_client`.

    Args:
        token: Sent as a bearer token (RFC 6750); white space around it, as files have it, is taken off.
        user: Sent with ``password`` as basic authentication (RFC 7617).
        password: May be empty, or missing.

    Returns:
        One header, or none where nothing is given.

    Raises:
        ConfigError: If both kinds are given, or what is given cannot be sent. It never shows a secret.
    """
    if token is not None and (user is not None or password is not None):
        raise ConfigError("a node has a token and a password as well", hint="keep the one that the server asks for")
    if token is not None:
        return {"authorization": f"Bearer {_bearer(token)}"}
    if user is not None:
        if ":" in user:
            raise ConfigError("the user's name has a ':' in it", hint="basic authentication cannot send such a name")
        pair = f"{user}:{password or ''}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    if password is not None:
        raise ConfigError("a node has a password, but no user", hint="name the user as well, or use a token")
    return {}


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return ``headers`` with their names in lower case.

    Raises:
        ConfigError: If a value cannot be sent; it names the header and does not show the value.
    """
    for name, value in headers.items():
        if not _SENDABLE.fullmatch(value):
            raise ConfigError(
                f"the header {name!r} has a character that cannot be sent",
                hint="write printable ASCII characters only; is there a line break?",
            )
    return {name.lower(): value for name, value in headers.items()}


def sent_secrets(client: httpx.AsyncClient) -> tuple[str, ...]:
    """Return the credentials that ``client`` sends, as :func:`~synaptic.text.spelled` has them; often none."""
    if not sends_secrets(client):
        return ()
    url = client.base_url
    return _secrets(client.headers.get("authorization", ""), url.username, url.password)


def sends_secrets(client: httpx.AsyncClient) -> bool:
    """Return whether ``client`` sends credentials. Ours knows: to ask httpx takes as long as to parse a short reply."""
    known: bool | None = getattr(client, "sends_secrets", None)
    return ("authorization" in client.headers or bool(client.base_url.userinfo)) if known is None else known


@functools.lru_cache(maxsize=256)
def _secrets(header: str, user: str, password: str) -> tuple[str, ...]:
    """Return how a header, and what stands in an address, may be spelled."""
    scheme, _, sent = header.partition(" ")
    found = {sent, password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    if scheme.lower() == "basic":
        with suppress(ValueError):
            found.add(base64.b64decode(sent).decode().partition(":")[2])
    return spelled(found)


def tls_context(ca_file: Path | None = None, *, verify: bool = True) -> ssl.SSLContext:
    """Return what checks a server's certificate.

    Args:
        ca_file: Certificates in PEM that are believed instead of the system's, as of an office's own authority.
        verify: ``False`` believes every certificate: the connection is encrypted, but the server may be another one.

    Raises:
        ConfigError: If ``ca_file`` cannot be read or has no certificate.
    """
    if not verify:
        return _unverified()
    return _system() if ca_file is None else _own(ca_file)


@functools.cache
def _system() -> ssl.SSLContext:
    """Return the system's trust; reading it takes 70 ms."""
    return _http_only(ssl.create_default_context())


@functools.cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _http_only(context)


def _own(ca_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_authorities(context, ca_file)
    return _http_only(context)


def _http_only(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context


def _bearer(token: str) -> str:
    clean = token.strip()
    if not clean or not _SENDABLE.fullmatch(clean) or " " in clean or "\t" in clean:
        what = "is empty" if not clean else "has a character that no token can have"
        raise ConfigError(f"the token of a node {what}", hint="it is one word of printable ASCII characters")
    return clean
