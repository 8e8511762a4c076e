"""The description of all routes has each of them, and no request made from it, or against it, is answered with 5xx."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import httpx
import pytest
import schemathesis
from conftest import THOROUGH
from gateway_support import gateway
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode

from synaptic.backends.scripted import ScriptedBackend
from synaptic.runtime import Session
from synaptic.server.gateway import ModelFront
from synaptic.server.ollama_api import ServeSettings
from synaptic.server.program import gateway_application
from synaptic.server.program.openapi import description, routes_of
from synaptic.settings.load import Settings

EXAMPLES = 200 if THOROUGH else 5
ASKED = {
    "POST /api/chat",
    "POST /api/generate",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/responses",
}
"""What generates: these have bodies that a shape describes."""

ENDLESS = "GET /ui/events"
"""A stream that goes on as long as its reader stays; its own tests read it."""


async def test_every_route_is_described_where_the_program_serves_it() -> None:
    async with Session(Settings(), backend=ScriptedBackend()) as session:
        app = gateway_application(ServeSettings(), ModelFront(session))
        told = description(app)
        for method, path in routes_of(app):
            assert method.lower() in told["paths"][path], (method, path)
    assert set(told["paths"]) == {path for _, path in routes_of(app)}
    for name in ASKED:
        method, path = name.split()
        assert told["paths"][path][method.lower()]["requestBody"]["required"], name
    for shape in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(shape)
    async with gateway(backend=ScriptedBackend()) as url, aiohttp.ClientSession(url) as client:
        async with client.get("/openapi.json") as reply:
            assert (reply.status, await reply.json()) == (200, told)
        async with client.get("/openapi.json") as reply:
            assert reply.status == 200


def asked_of(url: str, document: dict[str, Any], mode: GenerationMode) -> dict[str, set[int]]:
    """Make requests to every route, and return which statuses each has answered with."""
    with httpx.Client(timeout=30) as client:
        operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
        ending = [operation for operation in operations if operation.label != ENDLESS]
        return {operation.label: statuses_of(client, url, operation, mode) for operation in ending}


def statuses_of(client: httpx.Client, url: str, operation: Any, mode: GenerationMode) -> set[int]:
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        wanted = case.as_transport_kwargs(base_url=url)
        bodies = [{"json": wanted["json"]} if "json" in wanted else {"content": wanted.get("data") or b""}]
        if isinstance(wanted.get("json"), dict):  # again, of the model that is there: that goes further
            bodies.append({"json": {**wanted["json"], "model": "scripted"}})
        for body in bodies:
            with client.stream(wanted["method"], wanted["url"], params=wanted.get("params"), **body) as told:
                if operation.method.upper() != "GET" or told.is_error:  # a stream of events that is got has no end
                    told.read()
            statuses.add(told.status_code)
            assert told.status_code < 500, (operation.label, body, told.text)

    with contextlib.suppress(Unsatisfiable):  # of a route without a body, no request is wrong
        ask()
    return statuses


@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_no_request_makes_the_server_fail(mode: GenerationMode) -> None:
    async with gateway(backend=ScriptedBackend(), serve=ServeSettings(pipelines={"answer": "answer"})) as url:
        async with aiohttp.ClientSession(url) as client, client.get("/openapi.json") as reply:
            document = await reply.json()
        seen = await asyncio.to_thread(asked_of, url, document, mode)
    asked = {label for label, statuses in seen.items() if statuses}
    assert asked >= ASKED
    if mode is GenerationMode.POSITIVE:
        assert 200 in seen["GET /v1/models"] & seen["POST /api/chat"] & seen["POST /v1/messages/count_tokens"]
    else:
        assert 400 in seen["POST /v1/chat/completions"] & seen["POST /v1/messages"] & seen["POST /v1/responses"]
