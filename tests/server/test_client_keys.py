"""Keys of the gateway's clients: how they are kept, and what they let in."""

from __future__ import annotations

import asyncio
import json
import stat
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import ollama
import openai
import pytest
from cli_support import run_here
from gateway_support import gateway
from tool_node import MODEL, tool_node

from synaptic import paths
from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.errors import UsageError
from synaptic.models import name_key
from synaptic.processes import read_json, replace_json
from synaptic.server.gateway import KeyFile
from synaptic.server.ollama_api import ServeSettings, check_host
from synaptic.server.page import page_routes
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from pathlib import Path

USER: Any = [{"role": "user", "content": "hello"}]
CHAT = {"model": "scripted", "messages": USER, "stream": False}


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "state" / "keys.json")


def serve(keys: KeyFile, **more: Any) -> ServeSettings:
    return ServeSettings(keys=keys, pipelines={"answer": "answer"}, **more)


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_kept_as_a_hash_that_only_its_user_may_read(keys: KeyFile) -> None:
    key = keys.add("phone", models=["pipeline/*"], per_minute=3)
    assert key.startswith("syn-")
    assert key not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    found = keys.find(key)
    assert found is not None
    assert (found.name, found.models, found.per_minute) == ("phone", ("pipeline/*",), 3)
    assert keys.find(key + "x") is None
    with pytest.raises(UsageError, match="already"):
        keys.add("phone")
    with pytest.raises(UsageError, match="phone"):
        keys.revoke("fone")
    keys.revoke("phone")
    assert keys.find(key) is None
    assert keys.add("phone") != key
    assert [entry.revoked is None for entry in keys.all()] == [False, True]
    for name in ("", " ", "\x1b[2J", "x" * 101):
        with pytest.raises(UsageError, match="no name of a key"):
            keys.add(name)
    for text in ("[1", "[]", "null", '{"keys": [1]}', '{"keys": 1}', '{"keys": [{}]}'):
        keys.path.write_text(text)
        with pytest.raises(UsageError, match="whose keys"):
            keys.find(key)


def test_an_address_of_other_machines_needs_keys() -> None:
    with pytest.raises(UsageError, match="no key is demanded"):
        check_host("0.0.0.0")
    assert check_host("0.0.0.0", keys=True) == "0.0.0.0"


async def test_every_dialect_lets_in_by_key_and_says_no_in_its_own_form(keys: KeyFile) -> None:
    key = keys.add("phone")
    async with gateway(backend=ScriptedBackend(), serve=serve(keys)) as url:
        async with ollama.AsyncClient(url, headers=bearing(key)) as client:
            assert (await client.chat("scripted", USER)).message.content == "hello"
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client_:
            assert [model.id async for model in client_.models.list()] == ["scripted", "pipeline/answer"]
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as claude:
            told: Any = await claude.messages.create(model="scripted", max_tokens=9, messages=USER)
            assert told.content[0].text == "hello"
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="syn-wrong", max_retries=0) as client_:
            with pytest.raises(openai.AuthenticationError, match="not known"):
                await client_.models.list()
        async with anthropic.AsyncAnthropic(base_url=url, api_key="wrong", max_retries=0) as claude:
            with pytest.raises(anthropic.AuthenticationError):
                await claude.messages.create(model="scripted", max_tokens=9, messages=USER)
        async with aiohttp.ClientSession(url) as session:
            for path in ("/", "/api/tags", "/v1/models", "/nothing"):
                async with session.get(path) as reply:
                    assert reply.status == 401, path
            async with session.get("/healthz") as reply:
                assert reply.status == 200
            # A key is demanded, so it may be reached by any name; a page of another origin still may not ask.
            async with session.get("/api/version", headers={"host": "den.local", **bearing(key)}) as reply:
                assert reply.status == 200
            async with session.get("/api/version", headers={"origin": "http://evil.example", **bearing(key)}) as reply:
                assert reply.status == 403


async def test_a_key_asks_its_models_alone_and_sees_no_others(keys: KeyFile) -> None:
    key = keys.add("phone", models=["pipeline/*"])
    backend = ScriptedBackend()
    serving = gateway(backend=backend, serve=serve(keys))
    async with serving as url, aiohttp.ClientSession(url, headers=bearing(key)) as session:
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/api/chat", CHAT),
            ("/api/generate", {"model": "scripted", "prompt": "x"}),
            ("/api/show", {"model": "scripted"}),
            ("/api/embed", {"model": "scripted", "input": "x"}),
            ("/api/embeddings", {"model": "scripted", "prompt": "x"}),
            ("/api/pull", {"model": "scripted"}),
            ("/v1/chat/completions", CHAT),
            ("/v1/completions", {"model": "scripted", "prompt": "x"}),
            ("/v1/embeddings", {"model": "scripted", "input": "x"}),
            ("/v1/messages", {**CHAT, "max_tokens": 9}),
        ]
        for path, body in asked:
            async with session.post(path, json=body) as reply:
                assert reply.status == 403, path
        async with session.get("/v1/models") as reply:
            assert [model["id"] for model in (await reply.json())["data"]] == ["pipeline/answer"]
        async with session.get("/v1/models/scripted") as reply:
            assert reply.status == 404
        async with session.get("/api/tags") as reply:
            assert [model["name"] for model in (await reply.json())["models"]] == ["pipeline/answer:latest"]
        assert backend.requests == []
        async with session.post("/api/chat", json={**CHAT, "model": "pipeline/answer:latest"}) as reply:
            assert reply.status == 200


@pytest.mark.parametrize("pooled", [False, True])
async def test_no_spelling_of_a_name_leads_past_the_patterns_of_a_key(keys: KeyFile, *, pooled: bool) -> None:
    few, all_of_library = keys.add("few", models=["qwen3:*"]), keys.add("all", models=["LIBRARY/teller*"])
    async with tool_node() as node:
        settings = Settings(nodes=[NodeSettings(url=node.url)], task_distribution_enabled=pooled)
        async with gateway(settings, serve=serve(keys)) as url, aiohttp.ClientSession(url) as session:

            async def status(path: str, model: str, key: str) -> int:
                body = {"model": model, "input": "x"} if "responses" in path else {**CHAT, "model": model}
                async with session.post(path, json=body, headers=bearing(key)) as reply:
                    return reply.status

            for place in ("registry.ollama.ai/library/", "Registry.Ollama.AI/Library/", "library/", "/", "//", ""):
                for model in (f"qwen3:x://{place}{MODEL}", f"qwen3:/{place}{MODEL}", f" {MODEL}", MODEL.upper()):
                    told = {await status(path, model, few) for path in ("/api/chat", "/v1/chat/completions")}
                    assert told <= {403, 404}, model
            for path in ("/v1/messages/count_tokens", "/v1/responses/input_tokens"):
                body = {"model": MODEL, "messages": USER} if "messages" in path else {"model": MODEL, "input": "x"}
                async with session.post(path, json=body, headers=bearing(few)) as reply:
                    assert reply.status == 403, path
            assert name_key(MODEL) not in {name_key(body["model"]) for body in node.bodies}
            for model in (MODEL, MODEL.upper(), f"library/{MODEL}", f"registry.ollama.ai/library/{MODEL}"):
                wanted = {200} if model == MODEL else {200, 404}  # this node knows one spelling
                assert await status("/v1/responses", model, all_of_library) in wanted, model


async def test_a_key_is_held_to_its_numbers_and_ends_at_once(keys: KeyFile) -> None:
    often, wide = keys.add("often", per_minute=2), keys.add("wide", at_once=1)
    backend = ScriptedBackend(lambda _: Reply(text="a b", token_delay=600.0))
    async with gateway(backend=backend, serve=serve(keys)) as url, aiohttp.ClientSession(url) as session:
        told = []
        for _ in range(3):
            async with session.get("/api/version", headers=bearing(often)) as reply:
                told.append((reply.status, "retry-after" in reply.headers))
        assert told == [(200, False), (200, False), (429, True)]
        body = {**CHAT, "stream": True}
        async with session.post("/api/chat", json=body, headers=bearing(wide)) as first:
            await first.content.readline()
            async with session.post("/v1/chat/completions", json=CHAT, headers=bearing(wide)) as second:
                assert second.status == 429
                assert (await second.json())["error"]["type"] == "rate_limit_error"
        keys.revoke("wide")
        async with session.get("/api/version", headers=bearing(wide)) as reply:
            assert reply.status == 401


def test_the_commands_make_list_and_revoke(tmp_path: Path) -> None:
    made = run_here(
        *("keys", "add", "phone", "--models", "pipeline/*", "--per-minute", "9", "--scope", "models"),
        *("--scope", "metrics"),
        cwd=tmp_path,
    )
    assert (made.code, made.out[:4]) == (0, "syn-")
    key = KeyFile().find(made.out.strip())
    assert key is not None
    assert key.models == ("pipeline/*",)
    assert paths.client_keys_file() == KeyFile().path
    again = run_here("keys", "add", "phone", cwd=tmp_path)
    assert (again.code, again.out) == (2, "")
    listed = run_here("keys", "list", "--json", cwd=tmp_path)
    (entry,) = json.loads(listed.out)
    assert (entry["name"], entry["models"], entry["per_minute"], entry["revoked"]) == ("phone", ["pipeline/*"], 9, None)
    assert entry["scopes"] == ["models", "metrics"]
    assert made.out.strip() not in listed.out
    assert run_here("keys", "revoke", "phone", cwd=tmp_path).code == 0
    assert not KeyFile().has_any
    assert "phone" in run_here("keys", "list", cwd=tmp_path).out


async def test_a_key_is_for_its_scopes(keys: KeyFile) -> None:
    pipelines = keys.add("agents", scopes=["pipelines", "pipelines"])
    models, admin = keys.add("chat", scopes=["models"]), keys.add("desk", scopes=["admin"])
    backend = ScriptedBackend(lambda _: Reply(text="well"))
    app_url = gateway(backend=backend, serve=serve(keys))
    async with app_url as url, aiohttp.ClientSession(url) as session:

        async def status(path: str, body: dict[str, Any], key: str) -> int:
            async with session.post(path, json=body, headers=bearing(key)) as reply:
                return reply.status

        async def seen(key: str) -> list[str]:
            async with session.get("/v1/models", headers=bearing(key)) as reply:
                return [model["id"] for model in (await reply.json())["data"]]

        ask = {**CHAT, "model": "pipeline/answer"}
        assert [await status("/v1/chat/completions", CHAT, key) for key in (models, pipelines, admin)] == [
            200,
            403,
            403,
        ]
        assert [await status("/api/chat", ask, key) for key in (models, pipelines, admin)] == [403, 200, 403]
        assert [await seen(key) for key in (models, pipelines, admin)] == [["scripted"], ["pipeline/answer"], []]
        claude = anthropic.AsyncAnthropic(base_url=url, api_key=pipelines, max_retries=0)
        with pytest.raises(anthropic.PermissionDeniedError, match="--scope models"):
            await claude.messages.create(model="scripted", max_tokens=9, messages=USER)
        await claude.close()


def test_keys_of_an_older_version_are_for_models_and_pipelines(keys: KeyFile) -> None:
    key = keys.add("phone")
    document = read_json(keys.path, missing={})
    del document["keys"][0]["scopes"]
    replace_json(keys.path, document)
    found = keys.find(key)
    assert found is not None
    assert found.scopes == ("models", "pipelines")


WRONG: dict[str, list[Any]] = {
    "name": [1, None, ["a"], "", "a\n", "a\x1b[31m"],
    "digest": [1, None, ["a"]],
    "shown": [None],
    "created": ["now", None],
    "revoked": ["yes", False, []],
    "scopes": ["models", [1], ["root"], None],
    "models": ["*a", [1], [None], {"*": 1}, None],
    "per_minute": ["60", -1, 0, 1.5, True, []],
    "at_once": ["2", {}],
    "tokens_a_day": ["9", -5],
    "other": [1],
}
"""Values in keys.json that none of ours writes, but a person may."""


def test_a_value_of_another_kind_is_never_guessed_at(keys: KeyFile) -> None:
    key = keys.add("phone")
    document = read_json(keys.path, missing={})
    for name, values in WRONG.items():
        for value in values:
            replace_json(keys.path, {"keys": [{**document["keys"][0], name: value}]})
            with pytest.raises(UsageError, match="does not say whose keys"):
                keys.find(key)
    replace_json(keys.path, document)
    assert keys.find(key) is not None


async def test_where_keys_cannot_be_read_nobody_is_let_in_and_the_log_says_why(
    keys: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.add("phone")
    whole = keys.path.read_bytes()
    async with gateway(backend=ScriptedBackend(), serve=serve(keys)) as url, aiohttp.ClientSession(url) as session:

        async def answered(key: str = key) -> tuple[int, str]:
            async with session.post("/v1/chat/completions", json=CHAT, headers=bearing(key)) as reply:
                return reply.status, await reply.text()

        assert (await answered())[0] == 200
        for broken in (whole[:-20], b"", b"{}x", b"\xff", b"[]"):
            keys.path.write_bytes(broken)
            for _ in range(3):
                status, told = await answered()
                assert (status, str(keys.path) in told) == (503, False)
            assert (await answered("syn-unknown"))[0] == 503
        assert len([line for line in caplog.messages if str(keys.path) in line]) == 5  # each once
        keys.path.write_bytes(whole)
        assert (await answered())[0] == 200


async def test_a_page_that_listens_is_cut_when_its_key_is_revoked(
    keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_routes, "EVERY", 0.05)
    admin = keys.add("desk", scopes=["admin"])
    async with (
        gateway(backend=ScriptedBackend(), serve=serve(keys)) as url,
        aiohttp.ClientSession(url) as session,
        session.get("/ui/events", headers=bearing(admin)) as reply,
    ):
        assert reply.status == 200
        await reply.content.readline()
        keys.revoke("desk")
        async with asyncio.timeout(10):
            await reply.read()  # it has an end
