"""The certificate and the key of the gateway: checked before they serve, and read again while it runs."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, NoReturn

from synaptic.errors import UsageError
from synaptic.text import read_regular, reason_of

if TYPE_CHECKING:
    from pathlib import Path

_RENEW: Final = "renew it, then start again, or send SIGHUP to a gateway that runs"
_MOST_BYTES: Final = 1 << 20
_KINDS: Final = "use a key of RSA, Ed25519, or of the curve P-256 or P-384, and a chain of a few certificates"
_MATCH: Final = "KEY_VALUES_MISMATCH"


class TlsFiles:
    """The certificate that connections are encrypted with.

    Args:
        cert: The certificate in PEM, and behind it those that lead to an authority.
        key: Its private key in PEM, without a passphrase.

    Raises:
        UsageError: If one of them cannot be read, they do not belong together, or the certificate is not valid now.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self.context = _read(cert, key)

    def renew(self) -> None:
        """Read both again, for the connections that come from now on.

        Raises:
            UsageError: As the class does; what was there stays.
        """
        self.context = _read(*self._files)


def _read(cert: Path, key: Path) -> ssl.SSLContext:
    """Return what connections are encrypted with."""
    for option, file in (("--cert", cert), ("--key", key)):
        try:
            text = read_regular(file, _MOST_BYTES)
        except OSError as error:
            raise UsageError(f"{option} {file}: {reason_of(error)}") from error
        wanted = b"CERTIFICATE-----" if option == "--cert" else b"PRIVATE KEY-----"
        if b"-----BEGIN " not in text or wanted not in text:
            what = "certificate" if option == "--cert" else "private key"
            raise UsageError(f"{option} {file}: there is no {what} in PEM in it", hint=_hint(text, what))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def passphrase() -> NoReturn:
        hint = f"write it without one: openssl pkey -in {key.name} -out plain.pem"
        raise UsageError(f"--key {key}: the key has a passphrase, which the gateway cannot ask for", hint=hint)

    try:
        context.load_cert_chain(cert, key, passphrase)
    except OSError as error:  # ``SSLError`` is one
        reason = getattr(error, "reason", None)
        if reason == _MATCH:
            raise UsageError(f"--key {key}: it is not the key of the certificate {cert}") from error
        raise UsageError(f"--cert {cert}, --key {key}: they cannot be read ({reason or error})") from error
    _check_validity(context, cert)
    return context


def _hint(text: bytes, what: str) -> str:
    if text[:1] == b"\x30":
        return "it is in DER: openssl can write it in PEM (-inform DER -outform PEM)"
    return f"a {what} in PEM begins with -----BEGIN"


def _check_validity(server: ssl.SSLContext, cert: Path) -> None:
    """Refuse a certificate that no client would believe now: one talks to it, in memory, and believes nothing else.

    Raises:
        UsageError: If it has expired, is not valid yet, or is of a kind that nothing can be encrypted with.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cert)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(to_client, to_server)
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asks, answers, asks):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise UsageError(f"--cert {cert}: {error.verify_message}", hint=_RENEW) from error
        except ssl.SSLError as error:  # of a key of a kind that TLS has no cipher for, of a chain that is too long
            said = (error.reason or str(error)).replace("_", " ").lower()
            raise UsageError(f"--cert {cert}: no client can talk to it: {said}", hint=_KINDS) from error
