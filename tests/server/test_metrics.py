"""``/metrics``: what it serves, who may read it, that no client makes it grow, and that the dashboard asks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from gateway_support import gateway
from prometheus_client.parser import text_string_to_metric_families
from tool_node import MODEL, ToolNode, tool_node

from synaptic.backends.scripted import ScriptedBackend
from synaptic.bounded_names import OTHER, BoundedNames
from synaptic.errors import BackendUnavailable
from synaptic.messages import ModelInfo
from synaptic.server.gateway import KeyFile
from synaptic.server.gateway.metrics import ModelNames
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

DASHBOARD = Path(__file__).parents[2] / "docs" / "gateway-dashboard.json"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}], "stream": False}


def over(*nodes: ToolNode) -> Settings:
    chosen = [{"url": node.url, "parallel": 8} for node in nodes]
    return Settings.model_validate({"nodes": chosen, "task_distribution_enabled": True})


async def samples(session: aiohttp.ClientSession) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    async with session.get("/metrics") as reply:
        assert reply.status == 200
        families = text_string_to_metric_families(await reply.text())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def value(found: Mapping[Any, float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def test_it_tells_of_calls_tokens_nodes_and_answers() -> None:
    async with tool_node() as one, tool_node() as two:
        async with gateway(over(one, two)) as url, aiohttp.ClientSession(url) as session:
            async with session.get("/api/tags") as reply:
                assert reply.status == 200
            for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
                async with session.post(path, json={**CHAT, "max_tokens": 9} if "v1" in path else CHAT) as reply:
                    assert reply.status == 200
            async with session.get("/nowhere/at/all") as reply:
                assert reply.status == 404
            found = await samples(session)
        told = {name for name, _ in found}
        assert value(found, "synaptic_requests_running", dialect="ollama") == 0
        assert sum(count for (name, _), count in found.items() if name == "synaptic_request_seconds_count") == 3
        assert value(found, "synaptic_time_to_first_token_seconds_count", model=MODEL) == 3
        for direction in ("prompt", "completion"):
            tokens = [
                count
                for (name, labels), count in found.items()
                if name == "synaptic_tokens_total" and {("direction", direction), ("model", MODEL)} <= labels
            ]
            assert sum(tokens) == 9
        assert value(found, "synaptic_node_up", node=one.url) == 1
        assert value(found, "synaptic_http_responses_total", method="POST", route="/api/chat", status="200") == 1
        assert value(found, "synaptic_http_responses_total", method="GET", route="other", status="404") == 1
        assert {"process_resident_memory_bytes", "synaptic_build_info", "synaptic_requests_waiting"} <= told


async def test_no_client_makes_it_grow() -> None:
    async with tool_node() as node, gateway(over(node)) as url, aiohttp.ClientSession(url) as session:
        async with session.post("/api/chat", json=CHAT) as reply:
            assert reply.status == 200

        async def strange(index: int) -> None:
            for path in ("/api/chat", "/v1/chat/completions"):
                async with session.post(path, json={**CHAT, "model": f"strange{index}"}) as reply:
                    assert reply.status == 404
            async with session.request("PROPFIND", f"/path{index}") as reply:
                assert reply.status == 404

        await strange(0)
        await samples(session)  # the answer to this is counted in the next
        before = set(await samples(session))
        for index in range(1, 20):
            await strange(index)
        assert set(await samples(session)) == before


async def test_a_key_for_metrics_or_this_machine_reads_it(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    models, scraper = keys.add("phone"), keys.add("scraper", scopes=["metrics"])
    serving = gateway(backend=ScriptedBackend(), serve=ServeSettings(keys=keys))
    async with serving as url, aiohttp.ClientSession(url) as session:

        async def status(**headers: str) -> int:
            sent = {name.replace("_", "-"): text for name, text in headers.items()}
            async with session.get("/metrics", headers=sent) as reply:
                return reply.status

        assert await status() == 200
        assert await status(x_api_key=scraper) == 200
        assert await status(x_api_key=models) == 403
        assert await status(x_api_key="syn-wrong") == 401
        # What a proxy on this machine hands on comes from elsewhere.
        assert await status(x_forwarded_for="10.0.0.7") == 401
        assert await status(forwarded="for=10.0.0.7") == 401
        assert await status(host="den.local") == 401
        async with session.get("/metrics", headers={"accept": "application/openmetrics-text"}) as reply:
            assert (await reply.text()).endswith("# EOF\n")


async def test_every_name_in_the_dashboard_is_served() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [one["definition"] for one in dashboard["templating"]["list"] if "definition" in one]
    asked = {name for query in queries for name in re.findall(r"\b(?:synaptic|process)_\w+", query)}
    assert len(asked) > 10
    async with tool_node() as node, gateway(over(node)) as url, aiohttp.ClientSession(url) as session:
        async with session.post("/api/chat", json=CHAT) as reply:
            assert reply.status == 200
        served = await samples(session)
    assert asked - {name for name, _ in served} == set()
    labels = {label for _, pairs in served for label, _ in pairs} | {"instance"}
    groups = [group for query in queries for group in re.findall(r"by \(([^)]*)\)", query)]
    assert {name.strip() for group in groups for name in group.split(",")} <= labels


def test_a_label_has_so_many_values() -> None:
    names = BoundedNames(most=2)
    assert [names.of(name) for name in ("a", None, "b", "c", "a", "")] == ["a", "", "b", OTHER, "a", ""]


async def test_a_model_is_named_once_a_server_has_it() -> None:
    known: list[str] = []
    fails = False

    async def listed() -> list[ModelInfo]:
        if fails:
            raise BackendUnavailable("nothing answers")
        return [ModelInfo(name=name) for name in known]

    names = ModelNames(listed)
    await names.aclose()
    known.append("m")
    names.look("m:latest")
    await names.settled()
    assert (names.of("M"), names.of("n")) == ("m:latest", OTHER)
    names.look("n")  # the list is young
    await names.aclose()
    fails = True
    other = ModelNames(listed)
    other.look("m")
    await other.settled()
    assert other.of("m") == OTHER


@pytest.mark.parametrize("panel", json.loads(DASHBOARD.read_text())["panels"], ids=lambda panel: panel["title"])
def test_the_dashboard_has_places_for_all(panel: dict[str, Any]) -> None:
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
