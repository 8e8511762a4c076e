"""TLS of the gateway: what is wrong with a file is said, a renewed one serves, and no client holds others up."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from certificates import Certificate, needs_openssl, self_signed, signed_by, valid_from_to
from cli_support import run_here
from gateway_support import gateway
from ollama_nodes import RealNode

from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.errors import UsageError
from synaptic.server.gateway import TlsFiles
from synaptic.server.limits import ServerLimits, limited, listening
from synaptic.server.ollama_api import ServeSettings
from synaptic.ui.commands.serve import tls_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = needs_openssl


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def refusal(cert: Path, key: Path) -> str:
    with pytest.raises(UsageError) as refused:
        TlsFiles(cert, key)
    return f"{refused.value.message}; {refused.value.hint}"


def believing(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.file)


async def version(url: str, believed: ssl.SSLContext) -> int:
    connector = aiohttp.TCPConnector(ssl=believed)
    async with aiohttp.ClientSession(url, connector=connector) as session, session.get("/api/version") as reply:
        return reply.status


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    good = self_signed(folder(tmp_path, "good"))
    old = valid_from_to(folder(tmp_path, "old"), "20200101000000Z", "20200201000000Z")
    early = valid_from_to(folder(tmp_path, "early"), "20400101000000Z", "20420101000000Z")
    assert "certificate has expired; renew it" in refusal(*old)
    assert "not yet valid" in refusal(*early)
    assert "is not the key of the certificate" in refusal(good.file, old.key)
    assert "no certificate in PEM" in refusal(good.key, good.key)
    assert "no private key in PEM" in refusal(good.file, good.file)
    assert "No such file" in refusal(tmp_path / "nowhere", good.key)
    locked, der, broken = (tmp_path / name for name in ("locked", "der", "broken"))
    asked = ("openssl", "pkey", "-in", good.key, "-aes256", "-passout", "pass:x", "-out", locked)
    subprocess.run(asked, check=True, timeout=60)
    subprocess.run(("openssl", "x509", "-in", good.file, "-outform", "DER", "-out", der), check=True, timeout=60)
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    assert "has a passphrase" in refusal(good.file, locked)
    assert "it is in DER" in refusal(der, good.key)
    assert "cannot be read" in refusal(broken, good.key)


def test_a_certificate_that_no_client_can_talk_to_is_said(tmp_path: Path) -> None:
    good, key, cert = self_signed(folder(tmp_path, "good")), tmp_path / "odd.key", tmp_path / "odd.pem"
    made = ("openssl", "ecparam", "-name", "brainpoolP256r1", "-genkey", "-noout", "-out", key)
    signed = ("openssl", "req", "-x509", "-key", key, "-out", cert, "-days", "2", "-subj", "/CN=x")
    for words in (made, signed):
        subprocess.run(words, check=True, timeout=60, capture_output=True)
    assert "no client can talk to it: no shared cipher; use a key of RSA" in refusal(cert, key)
    cert.write_text(good.file.read_text() * 3000)
    assert "no client can talk to it" in refusal(cert, good.key)


def test_a_certificate_of_an_authority_serves(tmp_path: Path) -> None:
    authority = self_signed(folder(tmp_path, "authority"))
    assert TlsFiles(*signed_by(authority, tmp_path)).context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_clients_are_answered_over_tls_and_a_renewed_certificate_serves_the_next(tmp_path: Path) -> None:
    first, second = (self_signed(folder(tmp_path, name)) for name in ("first", "second"))
    tls = TlsFiles(*first)
    serving = gateway(backend=ScriptedBackend(), serve=ServeSettings(tls=tls))
    async with serving as url:
        assert url.startswith("https://127.0.0.1:")
        kept = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=believing(first)))
        async with kept:
            async with kept.get("/api/version") as reply:
                assert reply.status == 200
            for old, new in zip(first, second, strict=True):
                new.replace(old)
            tls.renew()
            async with kept.get("/api/version") as reply:  # the connection goes on
                assert reply.status == 200
        stored = believing(Certificate(first.file, first.key))
        assert await version(url, stored) == 200
        first.file.write_text("nothing")
        with pytest.raises(UsageError):
            tls.renew()
        assert await version(url, stored) == 200


async def test_a_client_that_says_nothing_or_no_tls_holds_nobody_up(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    async with gateway(backend=ScriptedBackend(), serve=ServeSettings(tls=TlsFiles(*certificate))) as url:
        port = int(url.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert await version(url, believing(certificate)) == 200
        assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()
        for one in silent:
            one.close()


async def waits(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and say nothing of TLS."""
    return await asyncio.open_connection("127.0.0.1", port)


@asynccontextmanager
async def room_for(certificate: Certificate, **figures: float) -> AsyncIterator[int]:
    """Serve over TLS with so much room; give the port."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = limited(web.Application(), ServerLimits(**figures))  # type: ignore[arg-type]
    app.router.add_get("/api/version", answer)
    tls = TlsFiles(*certificate)
    async with listening(app, "127.0.0.1", 0, drain=0.1, tls=lambda: tls.context) as addresses:
        yield int(addresses[0].rpartition(":")[2])


async def test_connections_without_tls_count_and_make_room(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    async with room_for(certificate, connections=4) as port:
        silent = [await waits(port) for _ in range(8)]
        assert await version(f"https://127.0.0.1:{port}", believing(certificate)) == 200
        ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
        async with asyncio.timeout(60):
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.cancel()
        for _, writer in silent:
            writer.close()


async def test_a_client_has_as_long_for_tls_as_for_its_headers(tmp_path: Path) -> None:
    async with room_for(self_signed(tmp_path), header_time=0.2) as port:
        reader, writer = await waits(port)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


async def test_where_all_connections_are_answered_another_is_closed_without_a_word(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    async with gateway(
        backend=ScriptedBackend(lambda _: Reply(text="a b", token_delay=3600.0)),
        serve=ServeSettings(tls=TlsFiles(*certificate)),
        limits=ServerLimits(connections=1),
    ) as url:
        connector = aiohttp.TCPConnector(ssl=believing(certificate))
        body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
        async with aiohttp.ClientSession(url, connector=connector) as session:
            reply = await session.post("/api/chat", json=body)
            await reply.content.readline()
            reader, writer = await waits(int(url.rpartition(":")[2]))
            async with asyncio.timeout(60):
                assert await reader.read() == b""
            writer.close()
            reply.close()


async def test_sighup_renews_the_certificate_of_a_gateway_that_runs(tmp_path: Path) -> None:
    first, second = (self_signed(folder(tmp_path, name)) for name in ("first", "second"))
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"nodes": [{"url": "http://127.0.0.1:9"}]}))
    options = ["--config", str(config), "--cert", str(first.file), "--key", str(first.key)]
    program = RealNode(options, {}, ("-P", "-m", "synaptic", "serve"))

    async def said(text: str) -> None:
        async with asyncio.timeout(60):
            while not any(text in line for line in program.log):
                await asyncio.sleep(0.02)

    try:
        await program.start()
        assert program.url.startswith("https://")
        assert await version(program.url, believing(first)) == 200
        text = second.file.read_text()
        second.file.write_text("nothing")
        second.file.replace(first.file)
        program.send(signal.SIGHUP)
        await said("the certificate stays as it was")
        first.file.write_text(text)
        second.key.replace(first.key)
        program.send(signal.SIGHUP)
        await said("read the certificate again")
        assert await version(program.url, believing(first)) == 200
    finally:
        await program.end()


def test_both_files_are_named(tmp_path: Path) -> None:
    alone = run_here("serve", "--cert", "x.pem", cwd=tmp_path)
    assert (alone.code, alone.out) == (2, "")
    assert "--cert needs --key" in alone.err
    assert "--key needs --cert" in run_here("serve", "--key", "x.pem", cwd=tmp_path).err
    assert tls_files(None, None) is None
    made = self_signed(tmp_path)
    assert tls_files(str(made.file), str(made.key)) is not None
