"""What it means that no answer came: real names, sockets and certificates."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from certificates import Certificate, https_server, needs_openssl, picky_server, self_signed, signed_by, valid_from_to
from fault_server import FaultServer, before_headers, cut, json_reply, respond

from synaptic.backends.http.client import get_json, new_client
from synaptic.backends.http.origin import Origin
from synaptic.backends.http.unreached import of_failure
from synaptic.errors import AddressUnusable, BackendError, BackendUnavailable, ProtocolError, Trouble

if TYPE_CHECKING:
    from pathlib import Path

T = Trouble


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for 127.0.0.1 that signs itself."""
    return self_signed(tmp_path_factory.mktemp("authority"))


async def failure(url: str, *, ca_file: Path | None = None, backend: str = "ollama") -> BackendError:
    """Return the error of a question to ``url``."""
    async with new_client(url, ca_file=ca_file) as client:
        with pytest.raises(BackendError) as caught:
            await get_json(client, "/api/version", origin=Origin(backend, url), within=60.0)
    return caught.value


def check(error: BackendError, trouble: Trouble, message: str, hint: str) -> None:
    assert error.trouble is trouble, error
    assert message in error.message
    assert hint in (error.hint or "")


@needs_openssl
async def test_a_certificate_that_signs_itself(authority: Certificate) -> None:
    async with https_server(authority) as url:
        error = await failure(url)
        check(error, T.CERTIFICATE, "its certificate is self-signed", "(PEM) as the node's ca_file")
        assert isinstance(error, AddressUnusable)
        assert not error.retryable
        other = await failure(url, backend="llama-server")
        check(other, T.CERTIFICATE, "self-signed", "SSL_CERT_FILE")
        assert await get_ok(url, authority.file)


async def get_ok(url: str, ca_file: Path) -> object:
    async with new_client(url, ca_file=ca_file) as client:
        return (await get_json(client, "/x", origin=Origin("ollama", url)))["ok"]


@needs_openssl
async def test_a_certificate_of_an_authority_that_is_not_known(authority: Certificate, tmp_path: Path) -> None:
    async with https_server(signed_by(authority, tmp_path)) as url:
        check(await failure(url), T.CERTIFICATE, "of an authority that this machine does not know", "ca_file")
        stranger = self_signed(tmp_path)
        error = await failure(url, ca_file=stranger.file)
        check(error, T.CERTIFICATE, "is not signed by the authority in ca_file", "the node's ca_file")
        assert await get_ok(url, authority.file)


async def test_a_server_that_waits_for_http_where_https_is_spoken() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}"
        hint = f'does it speak https? Else write "http://127.0.0.1:{port}"'
        for connect, within, trouble, said in (
            (0.2, 60.0, T.NO_CONNECTION, "no secure connection in time"),
            (60.0, 0.2, T.NO_ANSWER, "did not answer within 0.2 s"),
        ):
            async with new_client(url, connect_timeout=connect) as client:
                with pytest.raises(BackendError) as caught:
                    await get_json(client, "/api/version", origin=Origin("ollama", url), within=within)
            check(caught.value, trouble, said, hint)


@needs_openssl
async def test_a_certificate_for_another_name(authority: Certificate) -> None:
    async with https_server(authority) as url:
        error = await failure(url.replace("127.0.0.1", "localhost"), ca_file=authority.file)
        check(error, T.CERTIFICATE, "for another name (Hostname mismatch", "a name that it is for")


@needs_openssl
@pytest.mark.parametrize(
    ("start", "end", "message", "hint"),
    [
        ("20200101000000Z", "20210101000000Z", "its certificate has expired", "renew it there; is the clock"),
        ("20900101000000Z", "20910101000000Z", "its certificate is not valid yet", "clocks of both machines"),
    ],
)
async def test_a_certificate_of_another_time(start: str, end: str, message: str, hint: str, tmp_path: Path) -> None:
    made = valid_from_to(tmp_path, start, end)
    async with https_server(made) as url:
        check(await failure(url, ca_file=made.file), T.CERTIFICATE, message, hint)


@needs_openssl
async def test_a_server_that_wants_a_certificate_of_the_client(authority: Certificate) -> None:
    with picky_server(authority) as url:
        error = await failure(url, ca_file=authority.file)
        check(error, T.CLIENT_CERTIFICATE, "asks for a certificate of the client", "not supported")


async def test_https_asked_of_a_server_that_speaks_http() -> None:
    async with FaultServer(json_reply({})) as server:
        url = server.url.replace("http", "https")
        error = await failure(url)
        check(error, T.SPEAKS_HTTP, f"no secure connection to {url}: it speaks http, not https", f'"{server.url}"')
        assert isinstance(error, AddressUnusable)


@needs_openssl
async def test_http_asked_of_a_server_that_speaks_https(authority: Certificate) -> None:
    """OpenSSL ends such a connection; servers that say what is wrong have their rows among the answers."""
    async with https_server(authority) as url:
        error = await failure(url.replace("https", "http"))
    assert error.trouble in {T.NO_ANSWER, T.SPEAKS_HTTPS, T.NOT_HTTP}
    assert "https://" in (error.hint or "")


async def test_an_alert_of_tls_instead_of_an_answer() -> None:
    async def alert(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: object) -> None:
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
        writer.close()

    async with FaultServer(alert) as server:
        check(
            await failure(server.url),
            T.SPEAKS_HTTPS,
            "speaks https, not http",
            f'"{server.url.replace("http", "https")}"',
        )


async def test_go_says_what_it_wants() -> None:
    text = b"Client sent an HTTP request to an HTTPS server.\n"
    async with FaultServer(respond(400, text, "text/plain")) as server:
        error = await failure(server.url)
    check(error, T.SPEAKS_HTTPS, "speaks https, not http", 'write "https://127.0.0.1')
    assert isinstance(error, AddressUnusable)


async def test_a_name_that_does_not_exist() -> None:
    error = await failure("http://nowhere.invalid:11434")
    check(error, T.NO_NAME, "the name 'nowhere.invalid' does not resolve", "")
    assert error.hint


async def test_nothing_listens() -> None:
    async with FaultServer(json_reply({})) as server:
        url = server.url
    error = await failure(url)
    check(error, T.NOT_LISTENING, f"nothing answers at {url} (connection refused)", "start Ollama (ollama serve)")
    assert type(error) is BackendUnavailable
    assert error.retryable
    assert "is the llama-server running there?" in str(await failure(url, backend="llama-server"))


async def test_a_server_that_hangs_up() -> None:
    async with FaultServer(before_headers(cut)) as server:
        check(await failure(server.url), T.NO_ANSWER, "without an answer", "If it speaks https, write https://")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"220 mail.example ESMTP", "it begins with '220 mail.example ESMTP'"),
        (b"SSH-2.0-OpenSSH_9.6", "it is an SSH server (SSH-2.0-OpenSSH_9.6)"),
        (b"-ERR unknown command 'GET'", "it begins with \"-ERR unknown command 'GET'\""),
        (b"+OK " + b"x" * 400, "it begins with '+OK xxxx"),
    ],
)
async def test_another_protocol(said: bytes, words: str) -> None:
    async def greeting(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: object) -> None:
        writer.write(said + b"\r\n")
        writer.close()

    async with FaultServer(greeting) as server:
        error = await failure(server.url)
    check(error, T.NOT_HTTP, "does not speak proper HTTP", "another program listens on that port")
    assert isinstance(error, ProtocolError)
    assert error.message.partition("HTTP: ")[2].startswith(words)
    assert not any(word in error.message for word in ("RTSP", "Bad status", "b'", "^"))


REMOTE = Origin("ollama", "http://10.0.0.7:11434")


@pytest.mark.parametrize(
    ("cause", "trouble", "message", "hint"),
    [
        (OSError(errno.ECONNREFUSED, ""), T.NOT_LISTENING, "connection refused", "only with OLLAMA_HOST=0.0.0.0"),
        (OSError(errno.EHOSTUNREACH, ""), T.NO_ROUTE, "no route to host", "is the machine on"),
        (OSError(errno.ENETUNREACH, ""), T.NO_ROUTE, "network is unreachable", "VPN"),
        (OSError(errno.EACCES, ""), T.NO_ROUTE, "permission denied", "firewall or a sandbox of this machine"),
        (OSError(errno.EMFILE, ""), T.NO_ROUTE, "too many open files", "ulimit -n"),
        (OSError(errno.ETIMEDOUT, ""), T.NO_CONNECTION, "connection timed out", "is the machine on"),
        (OSError(errno.ECONNRESET, ""), T.NO_ANSWER, "without an answer", "write https://"),
        (socket.gaierror(socket.EAI_AGAIN, ""), T.NO_NAME, "no name server answers", "connected to a network"),
        (socket.gaierror(socket.EAI_NONAME, ""), T.NO_NAME, "does not resolve", "check the address"),
        (ssl.SSLError(1, "[SSL: UNSUPPORTED_PROTOCOL] x"), T.NO_ENCRYPTION, "no secure connection", "https"),
        (OSError("Multiple exceptions"), T.NOT_LISTENING, "nothing answers at", "start Ollama there"),
    ],
)
def test_what_the_system_says(cause: Exception, trouble: Trouble, message: str, hint: str) -> None:
    meaning = of_failure([cause], REMOTE, "reason", connecting=True)
    assert meaning.trouble is trouble
    assert message in meaning.message
    assert hint in (meaning.hint or "")
