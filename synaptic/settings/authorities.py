"""Files with certificates of authorities that are believed (``ca_file``): taken as curl takes them with ``--cacert``.

OpenSSL reads the file, as it does for curl: any number of certificates in PEM, with whatever stands around them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import ConfigError
from synaptic.text import NotRegularFile, read_regular

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from types import ModuleType

MOST_BYTES: Final = 16 * 2**20
"""A bundle of all the authorities of a system has a quarter of a MiB."""

_EXAMPLE: Final = 'name a PEM file: it has a line "-----BEGIN CERTIFICATE-----"'
_LABEL: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_CERTIFICATE_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})
_OTHER_LABELS: Final = (
    ("PRIVATE KEY", "a private key"),
    ("PUBLIC KEY", "a public key"),
    ("CERTIFICATE REQUEST", "a request for a certificate"),
    ("PKCS7", "a PKCS#7 archive"),
    ("X509 CRL", "a list of revoked certificates"),
)
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_DER_SEQUENCE: Final = b"\x30"


def authorities_file(name: str) -> Path:
    """Return the file that a ``ca_file`` names, after a look at whether it can be used.

    Raises:
        ConfigError: As :func:`load_authorities` does.
    """
    path = paths.expanded(name)
    load_authorities(_ssl().SSLContext(_ssl().PROTOCOL_TLS_CLIENT), path)
    return path


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Have ``context`` believe the certificates in a file, and those that they have signed.

    Raises:
        ConfigError: If it cannot be read, or OpenSSL finds no certificate in it; says what is there instead.
    """
    ssl = _ssl()
    data = _content(path)
    try:
        context.load_verify_locations(cafile=str(path))
    except ssl.SSLError as error:
        raise _refused(path, data) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not context.cert_store_stats()["x509"]:
        raise _refused(path, data)
    # curl's two rules: an authority in the middle of a chain may be believed by itself, and old certificates are good.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def _ssl() -> ModuleType:
    """Return OpenSSL's module: 10 ms of start-up, for those alone who name such a file."""
    import ssl  # noqa: PLC0415

    return ssl


def _content(path: Path) -> bytes:
    try:
        data = read_regular(path, MOST_BYTES)
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a directory", hint=f"{_EXAMPLE}; one file may hold any number of them") from error
    except NotRegularFile as error:
        raise ConfigError(f"{path}: {error.strerror}", hint=_EXAMPLE) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} is longer than {MOST_BYTES // 2**20} MiB, which no certificates are", hint=_EXAMPLE)
    return data


def _unreadable(path: Path, error: OSError | ValueError) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"there is no file {path}", hint="correct the path")
    reason = (error.strerror if isinstance(error, OSError) else None) or "it is no path"
    advice = "check who may read it" if isinstance(error, PermissionError) else "correct the path"
    return ConfigError(f"{path} cannot be read: {reason.lower()}", hint=advice)


def _refused(path: Path, data: bytes) -> ConfigError:
    """Return what a file is that holds no certificate, and what to do about it."""
    labels = [label.decode() for label in _LABEL.findall(data)]
    if any(label in _CERTIFICATE_LABELS for label in labels):
        return ConfigError(
            f"{path} has a damaged certificate", hint="copy it again, from BEGIN CERTIFICATE to END CERTIFICATE"
        )
    for end, what in _OTHER_LABELS:
        if any(label.endswith(end) for label in labels):
            return ConfigError(f"{path} holds {what} and no certificate", hint=_EXAMPLE)
    if not data.strip():
        return ConfigError(f"{path} is empty", hint=_EXAMPLE)
    if data.startswith(_UTF_16):
        return ConfigError(f"{path} is text in UTF-16", hint="save it as plain ASCII or UTF-8")
    if data.startswith(_DER_SEQUENCE) and _is_der(data):
        return ConfigError(
            f"{path} is a certificate in DER",
            hint=f"make a PEM file of it: openssl x509 -inform der -in {path} -out ca.pem",
        )
    if data.startswith(_DER_SEQUENCE) and b"\0" in data:
        return ConfigError(
            f"{path} is binary, and no certificate in PEM",
            hint=f"if it is a PKCS#12 archive: openssl pkcs12 -in {path} -nokeys -out ca.pem",
        )
    return ConfigError(f"{path} has no certificate in PEM", hint=_EXAMPLE)


def _is_der(data: bytes) -> bool:
    ssl = _ssl()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data)
    except ssl.SSLError:
        return False
    return True
