"""Who is answered: programs of this machine; no page of another origin, under whatever name and header it comes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from gateway_support import embedded_application
from multidict import CIMultiDict

from synaptic.errors import UsageError
from synaptic.models.download import ModelStore
from synaptic.server.gateway.guard import Guard, check_allowed_host, check_allowed_origin
from synaptic.server.gateway.refusal import Refusal
from synaptic.server.ollama_api.serving import ServeSettings, from_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HERE = ("host", "127.0.0.1:11434")
NAMED = Guard(frozenset({"node.local", "10.0.0.4"}), frozenset({"https://chat.example.org"}))
Headers = list[tuple[str, str]]


@pytest.mark.parametrize(
    "headers",
    [
        [HERE],
        [("host", "localhost")],
        [("host", "LOCALHOST:1")],
        [("host", "[::1]:11434")],
        [("host", "127.9.9.9")],
        [("host", "writer.localhost:80")],
        [HERE, ("origin", "http://localhost:3000")],
        [HERE, ("origin", "https://127.0.0.1")],
        [HERE, ("origin", "http://[::1]:5173")],
        [HERE, ("origin", "app://obsidian.md")],
        [HERE, ("origin", "vscode-webview://0a1b")],
        [HERE, ("x-forwarded-host", "localhost"), ("forwarded", "for=10.0.0.9;host=127.0.0.1:80")],
    ],
)
def test_this_machine_is_answered(headers: Headers) -> None:
    Guard().check((1, 1), "/api/tags", CIMultiDict(headers))


@pytest.mark.parametrize("host", ["node.local", "NODE.LOCAL:11434", "10.0.0.4:80"])
def test_a_host_that_was_allowed_by_name_is_answered(host: str) -> None:
    page = CIMultiDict([("Host", host), ("Origin", "https://chat.example.org"), ("X-Forwarded-Host", host)])
    NAMED.check((1, 1), "/", page)
    with pytest.raises(Refusal, match="--allow-host NAME"):
        Guard().check((1, 1), "/", CIMultiDict([("host", host)]))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",  # DNS rebinding
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "printer.local",
        "metadata.internal",
        "192.168.1.5:11434",
        "10.0.0.5",
        "169.254.169.254",
        "[fd00::1]",
        "0.0.0.0:11434",
        "2130706433",
        "0x7f.1",
        "127.1",
        "localhost.",
        "localhost@evil.example",
        "localhost, evil.example",
        "localhost:99999999",
        "[",
        "",
        "a" * 10_000,
    ],
)
def test_no_other_name_is_answered_wherever_it_stands(host: str) -> None:
    ways: list[tuple[str, Headers]] = [
        ("/", [("host", host)]),
        ("/", [HERE, ("x-forwarded-host", host)]),
        ("/", [HERE, ("x-forwarded-host", f"localhost, {host}")]),
    ]
    if "," not in host:
        ways += [("/", [HERE, ("forwarded", f'for=1.2.3.4; Host="{host}"')])]
    if "@" not in host:  # where an absolute target without Host is allowed at all
        ways += [(f"http://{host}/api/tags", [("host", host)])]
    for target, headers in ways:
        with pytest.raises(Refusal) as caught:
            NAMED.check((1, 1), target, CIMultiDict(headers))
        assert caught.value.status in {400, 403}
        assert len(caught.value.message) < 250


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://evil.example/http://localhost",
        "http://192.168.1.5",
        "http://0.0.0.0",
        "http://node.local",
        "https://chat.example.org.evil.example",
        "http://chat.example.org",
        "chrome-extension://abc",
        "evil://localhost",
        "app",
        "file",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://localhost https://evil.example",
    ],
)
def test_pages_of_other_origins_are_not_answered(origin: str) -> None:
    with pytest.raises(Refusal) as caught:
        NAMED.check((1, 1), "/", CIMultiDict([HERE, ("origin", origin)]))
    assert caught.value.status == 403
    assert "--allow-origin" in caught.value.message
    assert not NAMED.may_read(origin)


def test_a_page_that_names_no_origin_is_told_by_what_the_browser_says_of_it() -> None:
    with pytest.raises(Refusal, match="other sites") as caught:
        NAMED.check((1, 1), "/api/tags", CIMultiDict([HERE, ("sec-fetch-site", "cross-site")]))
    assert caught.value.status == 403
    for site in ("same-origin", "same-site", "none"):
        NAMED.check((1, 1), "/api/tags", CIMultiDict([HERE, ("sec-fetch-site", site)]))
    page = CIMultiDict([HERE, ("origin", "https://chat.example.org"), ("sec-fetch-site", "cross-site")])
    NAMED.check((1, 1), "/", page)


@pytest.mark.parametrize(
    ("version", "target", "headers", "said"),
    [
        ((0, 9), "/", [HERE], "this is HTTP/0.9: use HTTP/1.1"),
        ((1, 1), "/", [], "a request has one Host header, and this has none"),
        ((1, 1), "/", [HERE, HERE], "a request has one Host header, and this has 2"),
        ((1, 0), "/", [HERE, ("host", "evil.example")], "a request has one Host header"),
        ((1, 1), "/", [HERE, ("origin", "http://localhost"), ("origin", "null")], "one Origin header, and this has 2"),
        ((1, 1), "/", [HERE, ("authorization", "Bearer a"), ("authorization", "Bearer b")], "one Authorization header"),
        ((1, 1), "/", [HERE, ("x-api-key", "a"), ("x-api-key", "b")], "one x-api-key header, and this has 2"),
        ((1, 1), "http://localhost/api/tags", [HERE], "names another host than its Host header"),
        ((1, 1), "HTTP://evil.example", [HERE], "names another host than its Host header"),
    ],
)
def test_what_says_two_things_is_a_bad_request(
    version: tuple[int, int], target: str, headers: Headers, said: str
) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        Guard().check(version, target, CIMultiDict(headers))
    assert caught.value.status == 400


def test_a_program_may_leave_the_host_out_only_where_the_protocol_lets_it() -> None:
    Guard().check((1, 0), "/", CIMultiDict())
    Guard().check((1, 1), "http://127.0.0.1:11434/api/tags", CIMultiDict([HERE]))
    with pytest.raises(Refusal):
        Guard().check((1, 0), "http://evil.example/", CIMultiDict())


def test_what_may_be_allowed_by_name() -> None:
    assert check_allowed_host("Host.Docker.Internal") == "host.docker.internal"
    assert check_allowed_origin("HTTPS://chat.example.org") == "https://chat.example.org"
    for host in ("*", "a:80", "http://a", "a b", "", "*.local"):
        with pytest.raises(UsageError, match="--allow-host"):
            check_allowed_host(host)
    for origin in ("*", "null", "chat.example.org", "https://a/b", "https://*.example.org", "http://", ""):
        with pytest.raises(UsageError, match="--allow-origin"):
            check_allowed_origin(origin)
    assert from_environment({"OLLAMA_ORIGINS": "https://a.example, http://b.example:3000"}) == {
        "origins": frozenset({"https://a.example", "http://b.example:3000"})
    }
    with pytest.raises(UsageError, match="OLLAMA_ORIGINS: \\*"):
        from_environment({"OLLAMA_ORIGINS": "*"})


@asynccontextmanager
async def listening(directory: Path, settings: ServeSettings) -> AsyncIterator[int]:
    runner = web.AppRunner(embedded_application(settings, ModelStore(directory)), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def said(port: int, request: str) -> str:
    """Send bytes as they are; return all that comes back until the server closes or nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace("\n", "\r\n").encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def test_the_server_answers_bytes_from_elsewhere_with_a_refusal_and_no_cors_header(tmp_path: Path) -> None:
    local = "Host: 127.0.0.1\nConnection: close\n"
    refused = {
        "GET /api/tags\n\n": 400,  # HTTP/0.9
        "GET /api/tags HTTP/0.9\n\n": 400,
        "GET /api/tags HTTP/2.0\nHost: 127.0.0.1\n\n": 400,
        "GET /api/tags HTTP/1.1\nConnection: close\n\n": 400,
        f"GET /api/tags HTTP/1.1\nHost: localhost\n{local}\n": 400,
        f"GET http://evil.example/api/tags HTTP/1.1\n{local}\n": 400,
        f"GET /api/tags HTTP/1.1\nOrigin: http://localhost\nOrigin: http://localhost\n{local}\n": 400,
        "GET /api/tags HTTP/1.1\nHost: evil.example\nConnection: close\n\n": 403,
        f"GET /api/tags HTTP/1.1\nX-Forwarded-Host: evil.example\n{local}\n": 403,
        f"GET /nothing HTTP/1.1\nOrigin: null\n{local}\n": 403,
        f"GET / HTTP/1.1\nOrigin: evil://localhost\n{local}\n": 403,
        f"OPTIONS /api/chat HTTP/1.1\nOrigin: https://evil.example\n{local}\n": 403,
        f"OPTIONS /api/chat HTTP/1.1\nOrigin: http://localhost:3000\n{local}\n": 405,  # it may ask, but not read
    }
    async with listening(tmp_path, ServeSettings()) as port:
        for request, status in refused.items():
            answer = await said(port, request)
            assert answer.split(" ", 2)[1] == str(status), (request, answer)
            assert "access-control" not in answer.lower()
        answer = await said(port, f"GET /api/tags HTTP/1.1\nOrigin: http://localhost:3000\n{local}\n")
        assert "200 OK" in answer
        assert "access-control" not in answer.lower()


async def test_a_page_that_was_allowed_by_name_may_ask_and_read(tmp_path: Path) -> None:
    origin = "https://chat.example.org"
    asked = f"Host: node.local\nOrigin: {origin}\nConnection: close\n\n"
    async with listening(tmp_path, ServeSettings(hosts=frozenset({"node.local"}), origins=frozenset({origin}))) as port:
        preflight = (await said(port, f"OPTIONS /api/chat HTTP/1.1\n{asked}")).lower()
        assert preflight.startswith("http/1.1 204 ")
        assert "access-control-allow-methods: get, post" in preflight
        for request in (f"GET /api/tags HTTP/1.1\n{asked}", f"GET /nothing HTTP/1.1\n{asked}"):
            answer = (await said(port, request)).lower()
            assert f"access-control-allow-origin: {origin}\r\n" in answer
            assert "vary: origin\r\n" in answer
            assert "allow-credentials" not in answer
