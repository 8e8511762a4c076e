"""What it means that no answer came at all: names, connections, certificates. Pure, as :mod:`.meaning` is.

What comes in are the exceptions behind the failure, nearest first; operating systems and OpenSSL have said there what
is wrong. OpenSSL's verification codes are those of ``X509_V_ERR_*`` (x509_vfy.h), the reasons those of ``sslerr.h``.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from synaptic.backends.http.answer import QUOTE_CHARACTERS, server_text
from synaptic.backends.http.meaning import Meaning, speaks_https, wants_certificate
from synaptic.errors import Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.http.origin import Origin

_FIRST_BYTES: Final = re.compile(r"""^Bad status line.*?(?<!\w)b?(['"])(.+?)(?:\1[ ^]*)?$""")
"""What came where the library wants a status line; it says so with its own expectations before."""

_SELF_SIGNED: Final = frozenset({18, 19})
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21, 27})
_NOT_YET, _EXPIRED, _REVOKED = 9, 10, 23
_OTHER_NAME: Final = frozenset({62, 64})

_NOT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
_OLD_TLS: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})
_NO_WAY: Final = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, getattr(errno, "EHOSTDOWN", -1)}
)


def of_failure(causes: Sequence[BaseException], origin: Origin, reason: str, *, connecting: bool) -> Meaning:
    """Return what it means that nothing was answered.

    Args:
        causes: The exceptions behind it, nearest first.
        origin: Who was asked.
        reason: What the client says of it.
        connecting: Whether the connection itself failed; else it ended before an answer.
    """
    for cause in reversed(causes):  # clients wrap errors in classes that inherit from them and know less
        if isinstance(cause, socket.gaierror):
            return _unresolved(cause, origin)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, origin)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return _no_encryption(cause, origin)
    number = next((cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno), 0)
    if connecting and number not in {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}:
        return _not_connected(number, origin)
    return _hung_up(origin, reason)


def not_in_time(origin: Origin) -> Meaning:
    """Return the meaning of a machine that lets no connection come about."""
    hint = "is the machine on, and does its firewall let this port through?"
    if origin.node.startswith("https:"):  # a server that does not speak it may wait for a request for ever
        message = f"nothing answers at {origin.node} (no secure connection in time)"
        return Meaning(Trouble.NO_CONNECTION, message, f"{_else_plain(origin)}; {hint}")
    return Meaning(Trouble.NO_CONNECTION, f"nothing answers at {origin.node} (no connection in time)", hint)


def silent(origin: Origin, seconds: float) -> Meaning:
    """Return the meaning of a server that takes a question and does not answer it."""
    hint = "it takes connections: is it very busy, or is another program there?"
    if origin.node.startswith("https:"):
        hint = f"{hint} {_else_plain(origin)}"
    return Meaning(Trouble.NO_ANSWER, f"{origin.node} did not answer within {seconds:g} s", hint)


def no_address(origin: Origin, reason: str) -> Meaning:
    """Return the meaning of an address that cannot be one of a server."""
    return Meaning(Trouble.NO_ADDRESS, f"{origin.node} is no address of a server: {reason}", "write http://host:port")


def closed_here(origin: Origin) -> Meaning:
    """Return the meaning of a call that comes after the client was closed."""
    return Meaning(Trouble.CLOSED_HERE, f"the connection to {origin.node} has been closed by this program")


def not_http(origin: Origin, said: str) -> Meaning:
    """Return the meaning of bytes that are not HTTP; those of TLS are known by how an alert begins."""
    if origin.node.startswith("http:") and ("\\x15\\x03" in said or "\x15\x03" in said):
        return speaks_https(origin)
    if (first := _FIRST_BYTES.search(said)) is not None:
        start = server_text(first[2], QUOTE_CHARACTERS)
        said = f"it is an SSH server ({start})" if start.startswith("SSH-") else f"it begins with {start!r}"
    return Meaning(
        Trouble.NOT_HTTP,
        f"{origin.node} does not speak proper HTTP: {said}",
        f"another program listens on that port: write the address of the {origin.program}",
    )


def _plain(origin: Origin) -> str:
    return "http" + origin.node.removeprefix("https")


def _else_plain(origin: Origin) -> str:
    return f'does it speak https? Else write "{_plain(origin)}"'


def _unresolved(cause: socket.gaierror, origin: Origin) -> Meaning:
    name = urlsplit(origin.node).hostname or origin.node
    if cause.errno == socket.EAI_AGAIN:
        message = f"the name {name!r} does not resolve: no name server answers"
        return Meaning(Trouble.NO_NAME, message, "is this machine connected to a network?")
    return Meaning(Trouble.NO_NAME, f"the name {name!r} does not resolve", f"check the address {origin.node}")


def _not_connected(number: int, origin: Origin) -> Meaning:
    why = f" ({os.strerror(number).lower()})" if number else ""
    message = f"nothing answers at {origin.node}{why}"
    if number in _NO_WAY:
        return Meaning(
            Trouble.NO_ROUTE, message, "is the machine on, and in the same network? is a VPN or a route missing?"
        )
    if number in {errno.EACCES, errno.EPERM}:
        return Meaning(Trouble.NO_ROUTE, message, "a firewall or a sandbox of this machine forbids the connection")
    if number in {errno.EMFILE, errno.ENFILE}:
        return Meaning(Trouble.NO_ROUTE, message, "this program may not open more files: raise ulimit -n")
    if number == errno.ETIMEDOUT:
        return Meaning(Trouble.NO_CONNECTION, message, not_in_time(origin).hint)
    return Meaning(Trouble.NOT_LISTENING, message, _start_it(origin))


def _start_it(origin: Origin) -> str:
    if origin.is_ollama:
        if origin.is_local:
            return "start Ollama (ollama serve), or correct the address"
        return "start Ollama there; it listens to other machines only with OLLAMA_HOST=0.0.0.0"
    return f"is the {origin.program} running there?"


def _hung_up(origin: Origin, reason: str) -> Meaning:
    message = f"{origin.node} closed the connection without an answer ({reason})"
    if origin.node.startswith("https:"):
        hint = "does it speak https? Else write http://"
    else:
        hint = f"is it the address of the {origin.program}? If it speaks https, write https://"
    return Meaning(Trouble.NO_ANSWER, message, hint)


def _certificate(cause: ssl.SSLCertVerificationError, origin: Origin) -> Meaning:
    """Say what is wrong with a certificate, and what makes it believed."""
    code = getattr(cause, "verify_code", 0)
    said = server_text(getattr(cause, "verify_message", "") or str(cause))
    where = "the node's ca_file" if origin.is_ollama else "an authority that this machine trusts (SSL_CERT_FILE)"
    if code == _EXPIRED:
        what, hint = "its certificate has expired", "renew it there; is the clock of this machine right?"
    elif code == _NOT_YET:
        what, hint = "its certificate is not valid yet", "are the clocks of both machines right?"
    elif code in _OTHER_NAME:
        what, hint = f"its certificate is for another name ({said})", "write the address with a name that it is for"
    elif code == _REVOKED:
        what, hint = "its certificate was revoked", "have it get a new one"
    elif code in _SELF_SIGNED or code in _UNKNOWN_ISSUER:
        kind = "self-signed" if code in _SELF_SIGNED else "of an authority that this machine does not know"
        what = f"its certificate is {kind} ({said})"
        hint = f"name the certificate of the authority that signed it (PEM) as {where}"
        if origin.ca_file:
            what = f"its certificate is not signed by the authority in ca_file ({said})"
            hint = "name the certificate of the authority that signed it (PEM) as the node's ca_file"
    else:
        what, hint = f"its certificate is not believed ({said})", f"name what signed it as {where}, or renew it there"
    return Meaning(Trouble.CERTIFICATE, f"no secure connection to {origin.node}: {what}", hint)


def _no_encryption(cause: ssl.SSLError, origin: Origin) -> Meaning:
    reason = (getattr(cause, "reason", "") or "").upper()
    message = f"no secure connection to {origin.node}"
    if reason in _NOT_TLS:
        hint = f'write "{_plain(origin)}"'
        return Meaning(Trouble.SPEAKS_HTTP, f"{message}: it speaks http, not https", hint)
    if "CERTIFICATE_REQUIRED" in reason or reason.endswith("ALERT_BAD_CERTIFICATE"):
        return wants_certificate(origin)
    said = server_text(str(cause))
    if reason in _OLD_TLS:
        return Meaning(
            Trouble.NO_ENCRYPTION, f"{message}: it speaks too old a TLS ({said})", "have it speak TLS 1.2 or later"
        )
    hint = "does the server speak https, by this name? Else write http://"
    return Meaning(Trouble.NO_ENCRYPTION, f"{message}: {said}", hint)
