"""The secrets of nodes: from the environment or a file, into one header, and into nothing that anybody reads."""

import asyncio
import base64
import html
import json
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fault_server import Behaviour, FaultServer, Request, json_reply, raw, respond, stream

from synaptic.backends.ollama import OllamaBackend
from synaptic.backends.pool.node.credentials import access_notices, certificates, node_headers, open_client
from synaptic.backends.pool.node.inspection import inspect_node
from synaptic.errors import ConfigError, SynapticError
from synaptic.messages import ChatRequest, Message
from synaptic.settings import NodeSettings, Settings

SECRET = "sk-very-secret-1234"


def node(**values: Any) -> NodeSettings:
    return NodeSettings(**{"url": "http://127.0.0.1:9", "name": "desk", **values})


def refused(settings: NodeSettings, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        node_headers(settings, environ or {})
    said = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert "sk-" not in said
    assert "desk" in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_a_node_without_a_secret_gets_no_header():
    assert node_headers(node(), {"DESK_TOKEN": SECRET}) == {}


def test_a_token_from_the_environment():
    assert node_headers(node(token_env="DESK_TOKEN"), {"DESK_TOKEN": SECRET}) == {"authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_token_from_a_file_without_its_line_break(tmp_path: Path, end: str):
    (tmp_path / "token").write_bytes((SECRET + end).encode())
    headers = node_headers(node(token_file=str(tmp_path / "token")), {})
    assert headers == {"authorization": f"Bearer {SECRET}"}


def test_a_file_at_home(own_home: Path):
    (own_home / "token").write_text(SECRET)
    assert node_headers(node(token_file="~/token"), {})["authorization"] == f"Bearer {SECRET}"


def test_a_password_keeps_the_blanks_that_belong_to_it(secret_file: Path):
    secret_file.write_text(" pass word: \n")
    headers = node_headers(node(username="ada", password_file=str(secret_file)), {})
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"ada: pass word: "
    headers = node_headers(node(username="ada", password_env="P"), {"P": "x"})
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"ada:x"


@pytest.mark.parametrize(("environ", "what"), [({}, "is not set"), ({"T": ""}, "is empty"), ({"T": " \n"}, "is empty")])
def test_a_variable_that_holds_nothing(environ: dict[str, str], what: str):
    error = refused(node(token_env="T"), environ)
    assert f"the environment variable T {what}" in error.message
    assert "export T" in str(error.hint)


def test_a_token_that_cannot_be_sent_is_not_shown():
    error = refused(node(token_env="T"), {"T": "sk-with a blank"})
    assert "the environment variable T" in error.message


def test_a_file_that_is_not_there(tmp_path: Path):
    assert "cannot be read: no such file" in refused(node(token_file=str(tmp_path / "none"))).message
    assert "it is no path" in refused(node(token_file="a\0b")).message


def test_a_file_that_is_none(tmp_path: Path):
    assert "no regular file" in refused(node(token_file=str(tmp_path))).message
    os.mkfifo(tmp_path / "pipe")  # would make whoever opens it wait
    assert "no regular file" in refused(node(token_file=str(tmp_path / "pipe"))).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_nobody_may_read(secret_file: Path):
    secret_file.chmod(0)
    error = refused(node(token_file=str(secret_file)))
    assert "permission denied" in error.message
    assert error.hint == "check who may read it"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"sk-\xff\xfe", "is not UTF-8"),
        (b"sk-" * 30_000, "longer than 64 KiB"),
    ],
)
def test_a_file_that_holds_no_secret(tmp_path: Path, content: bytes, what: str):
    (tmp_path / "token").write_bytes(content)
    assert what in refused(node(token_file=str(tmp_path / "token"))).message


def test_a_file_that_others_can_read_is_worth_a_notice(secret_file: Path):
    there = node(token_file=str(secret_file))
    assert access_notices(there) == []
    secret_file.chmod(0o640)
    assert access_notices(there) == [f"node desk: other users can read {secret_file}; run: chmod 600 {secret_file}"]
    assert access_notices(node(token_file="/nowhere")) == []


def test_a_secret_on_the_open_wire_is_worth_a_notice():
    away = {"url": "http://10.9.8.7:11434"}
    (notice,) = access_notices(node(**away, token_env="T"))
    assert "unencrypted" in notice
    assert access_notices(node(**away)) == []
    assert access_notices(node(token_env="T")) == []
    assert access_notices(node(url="https://10.9.8.7", token_env="T")) == []


def test_certificates_that_are_not_there(tmp_path: Path):
    assert certificates(node()) is None
    https = {"url": "https://desk.example"}
    with pytest.raises(ConfigError, match="node desk: its ca_file: there is no file"):
        certificates(node(**https, ca_file=str(tmp_path / "none.pem")))
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(ConfigError, match=r"ca\.pem has no certificate in PEM"):
        certificates(node(**https, ca_file=str(tmp_path / "ca.pem")))


async def test_the_client_sends_it_and_shows_it_nowhere(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with FaultServer({"/api/version": json_reply({"version": "1"})}) as server:
        asked = node(url=server.url, token_env="T")
        client = open_client(Settings(num_ctx=512), asked, {"T": SECRET})
        assert await client.version() == "1"
        assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
        assert SECRET not in repr(client) + repr(asked) + caplog.text
        await client.aclose()


ECHOES: dict[str, Callable[[str], Behaviour]] = {
    "error": lambda sent: respond(400, json.dumps({"error": f"cannot use {sent!r}"}).encode()),
    "inner": lambda sent: respond(500, json.dumps({"error": {"message": json.dumps({"error": sent})}}).encode()),
    "cut": lambda sent: respond(500, json.dumps({"error": "x" * 280 + sent}).encode()),
    "page": lambda sent: html_page(502, f"<title>Debug: {html.escape(sent)}</title>"),
    "headers": lambda sent: respond(500, json.dumps({"detail": f"headers={{'authorization': b{sent!r}}}"}).encode()),
    "moved": lambda sent: respond(302, b"", headers={"location": f"https://sso.example/login/{quote(sent, safe='')}"}),
    "proxy": lambda sent: respond(504, b"", headers={"server": f"echo {sent}"}),
    "base64": lambda sent: respond(400, base64.b64encode(f"authorization: {sent}".encode())),
    "no json": lambda sent: respond(200, f"you said {sent}".encode()),
    "stream": lambda sent: stream([json.dumps({"error": f"bad key {sent}"}).encode() + b"\n"]),
    "status line": lambda sent: raw(f"{sent} hello\r\n\r\n".encode()),
    "status reason": lambda sent: raw(f"HTTP/1.1 xyz {sent}\r\n\r\n".encode()),
}


def html_page(status: int, page: str) -> Behaviour:
    return respond(status, page.encode(), "text/html")


async def complaint(echo: Callable[[str], Behaviour], settings: dict[str, Any], environ: dict[str, str]) -> str:
    """Return what is said of a node that repeats what it is sent."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        await echo(request.headers["authorization"])(reader, writer, request)

    async with FaultServer(repeat) as server:
        url = server.url.replace("//", f"//{settings.pop('in_url', '')}")
        backend = (
            open_client(Settings(num_ctx=512), node(url=url, **settings), environ) if settings else OllamaBackend(url)
        )
        with pytest.raises(SynapticError) as caught:
            async for _ in backend.stream(ChatRequest(messages=(Message("user", "hi"),), model="m")):
                pass
        await backend.aclose()
    error = caught.value
    return f"{error} {error!r} {error.args} {error.message} {error.hint}"


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
async def test_a_node_that_repeats_what_it_was_sent_shows_nobody_a_secret(echo: Callable[[str], Behaviour]):
    password = 'hunter2 "of mine"'
    ways: list[tuple[dict[str, Any], list[str]]] = [
        ({"token_env": "T"}, ["very", "dmVyeS"]),
        ({"username": "ada", "password_env": "P"}, ["hunter", "of mine", "YWRhOmh1", "h1bnRlcj"]),
        ({"in_url": "ada:hunter2of-mine@"}, ["hunter", "of-mine", "YWRhOmh1", "h1bnRlcj"]),
    ]
    for settings, never in ways:
        said = await complaint(echo, dict(settings), {"T": SECRET, "P": password})
        assert not [piece for piece in never if piece in said], said
        assert "[secret]" in said, said


# -- one look at a node ------------------------------------------------------------------------------------------------

LISTED = {"models": [{"name": "a", "size": 10}, {"name": "b:7b", "size": 20}, {"size": 1}, "x"]}
LOADED = {"models": [{"name": "a:latest", "size": 100, "size_vram": 25, "context_length": 4096}]}


def listing(**more: Any) -> dict[str, Any]:
    paths = {"/api/version": json_reply({"version": "0.12"}), "/api/tags": json_reply(LISTED), **more}
    return {"/api/ps": json_reply(LOADED), **paths}


async def test_a_look_tells_version_models_and_where_they_are():
    async with FaultServer(listing()) as server:
        look = await inspect_node(node(url=server.url), {})
        await server.wait_until_idle()
    assert (look.well, look.version, look.reason) == (True, "0.12", "")
    assert look.seconds is not None
    assert [(model.name, model.loaded, model.vram_share, model.size_bytes) for model in look.models] == [
        ("a:latest", True, 0.25, 10),
        ("b:7b", False, None, 20),
    ]
    assert (look.status.condition, look.status.name) == ("up", "desk")


async def test_a_node_without_models_is_not_well():
    async with FaultServer({**listing(), "/api/tags": json_reply({"models": []}), "/api/ps": json_reply({})}) as server:
        look = await inspect_node(node(url=server.url), {})
    assert (look.well, look.reason) == (False, "it answers, but has no model")
    assert "ollama pull" in str(look.hint)


async def test_a_node_that_is_not_there():
    look = await inspect_node(node(), {})
    assert "connection refused" in look.reason
    assert (look.well, look.status.condition, look.version) == (False, "down", None)


async def test_something_that_is_no_ollama():
    async with FaultServer({"/api/version": json_reply({"name": "other"})}) as server:
        look = await inspect_node(node(url=server.url), {})
    assert "not as Ollama does" in look.reason


async def test_a_node_that_fails_after_its_version():
    async with FaultServer({**listing(), "/api/tags": respond(500, b'{"error": "disk"}')}) as server:
        look = await inspect_node(node(url=server.url), {})
    assert "disk" in look.reason
    assert (look.version, look.status.condition) == ("0.12", "down")


async def test_a_node_that_asks_for_credentials_says_which_setting_is_missing_or_wrong():
    async with FaultServer(respond(401, b'{"error": "who are you?"}')) as server:
        without = await inspect_node(node(url=server.url), {})
        wrong = await inspect_node(node(url=server.url, token_env="T"), {"T": SECRET})
    assert "token_env" in str(without.hint)
    assert "what the variable or the file of the node's secret holds" in str(wrong.hint)
    assert SECRET not in wrong.reason


async def test_a_missing_secret_is_what_is_wrong_with_the_node():
    look = await inspect_node(node(token_env="T"), {})
    assert "the environment variable T is not set" in look.reason
