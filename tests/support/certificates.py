"""Certificates of every kind, made by openssl, and servers that have them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
from fault_server import read_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")

_CONFIG = """
[ca]
default_ca = here
[here]
database = {folder}/index
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = IP:127.0.0.1
basicConstraints = CA:TRUE
"""


class Certificate(NamedTuple):
    """A certificate and its key, each in a file."""

    file: Path
    key: Path


def _openssl(*arguments: object) -> None:
    command = ["openssl", *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def self_signed(folder: Path, *, name: str = "IP:127.0.0.1") -> Certificate:
    """Return a certificate that signs itself, for ``name``."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=node"),
        *("-addext", f"subjectAltName={name}", "-out", made.file, "-keyout", made.key),
    )
    return made


def signed_by(authority: Certificate, folder: Path) -> Certificate:
    """Return a certificate for 127.0.0.1 that an authority has signed."""
    made = Certificate(folder / "signed.pem", folder / "signed.key")
    request, names = folder / "request.pem", folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(*("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=desk", "-out", request, "-keyout", made.key))
    _openssl(
        *("x509", "-req", "-in", request, "-days", 2, "-extfile", names, "-set_serial", 7, "-out", made.file),
        *("-CA", authority.file, "-CAkey", authority.key),
    )
    return made


def valid_from_to(folder: Path, start: str, end: str) -> Certificate:
    """Return a certificate for 127.0.0.1 that signs itself and is valid between two times (``20200101000000Z``)."""
    made = Certificate(folder / "dated.pem", folder / "dated.key")
    request, config = folder / "dated.csr", folder / "ca.conf"
    config.write_text(_CONFIG.format(folder=folder))
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    _openssl(*("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=node", "-out", request, "-keyout", made.key))
    _openssl(
        *("ca", "-batch", "-selfsign", "-config", config, "-in", request, "-keyfile", made.key, "-out", made.file),
        *("-startdate", start, "-enddate", end, "-notext"),
    )
    return made


@contextmanager
def picky_server(certificate: Certificate) -> Iterator[str]:
    """Ask every client for a certificate, with the sockets of OpenSSL, which send its alerts (asyncio's do not)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate.file)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # it was shut down
            with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as talk:
                talk.settimeout(60)
                with suppress(ssl.SSLError):
                    talk.do_handshake()
                talk.setblocking(True)
                with suppress(OSError):
                    talk.shutdown(socket.SHUT_WR)
                    while os.read(talk.fileno(), 4096):
                        pass  # a client that is cut off would not see the alert

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)


@asynccontextmanager
async def https_server(certificate: Certificate) -> AsyncIterator[str]:
    """Serve ``{"ok":true}`` over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await read_request(reader)
                if request.path == "/hang":
                    await reader.read()
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"ok":true}')
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
