"""The routing table, row by row, against real sockets."""

import asyncio
from pathlib import Path

import pytest
from fault_server import Behaviour, FaultServer, before_headers, hang, html, json_reply, respond

from synaptic.backends.base import BUILT_IN, Backend, BackendContext, backend_kind, create_backend, known_backends
from synaptic.backends.ollama.api import full_name
from synaptic.backends.pool.backend import PoolBackend
from synaptic.backends.router import RoutingRow, considered, open_backend, serving, table_row
from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import BackendUnavailable, ConfigError, EngineUnavailable, ModelNotFound, UsageError
from synaptic.messages import BackendNotice, ModelInfo
from synaptic.models.names import has_model
from synaptic.settings import Settings


def ollama(*models: str, loaded: str | None = None) -> FaultServer:
    """Return a server that answers as an Ollama with these models."""
    tags = {"models": [{"name": name, "size": 1000 + index} for index, name in enumerate(models)]}
    running = {"models": [{"name": loaded, "size": 1000}] if loaded else []}
    return FaultServer(
        {"/api/tags": json_reply(tags), "/api/ps": json_reply(running), "/api/version": json_reply({"version": "0.1"})}
    )


NOWHERE = {"OLLAMA_HOST": "127.0.0.1:9"}


async def opened(settings: Settings, environ: dict | None = None) -> tuple[Backend, object, list]:
    reports: list = []
    routed = await open_backend(settings, reports.append, environ or NOWHERE)
    await routed.backend.aclose()
    return routed, routed.route, reports


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({}, RoutingRow.NOTHING_NAMED),
        ({"task_distribution_enabled": False}, RoutingRow.NOTHING_NAMED),
        ({"nodes": [{"url": "http://a"}]}, RoutingRow.NODES),
        ({"nodes": [{"url": "http://a"}], "task_distribution_enabled": False}, RoutingRow.ONE_NODE),
        ({"distributed_inference_enabled": True}, RoutingRow.NODES_OR_COORDINATOR),
        ({"distributed_inference_enabled": True, "task_distribution_enabled": False}, RoutingRow.COORDINATOR),
        ({"backend": "scripted", "distributed_inference_enabled": True}, RoutingRow.FORCED),
    ],
)
def test_the_row_of_the_table(options: dict, row: RoutingRow):
    assert table_row(Settings(**options)) is row


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("ollama", "embedded")),
        ({"nodes": [{"url": "http://a"}]}, ("ollama", "embedded")),
        ({"distributed_inference_enabled": True}, ("ollama", "distributed", "embedded")),
        ({"distributed_inference_enabled": True, "task_distribution_enabled": False}, ("distributed", "embedded")),
        ({"backend": "scripted", "distributed_inference_enabled": True}, ("scripted",)),
    ],
)
def test_the_backends_that_are_considered(options: dict, names: tuple):
    settings = Settings(**options)
    assert considered(settings) == names
    spared = bool(options) and "backend" not in options
    assert serving(settings) == (names[:-1] if spared else names)


@pytest.mark.parametrize(
    ("name", "full"),
    [("llama3", "llama3:latest"), ("llama3:8b", "llama3:8b"), ("host:5000/me/x", "host:5000/me/x:latest")],
)
def test_a_model_without_a_tag_is_the_latest(name: str, full: str):
    assert full_name(name) == full


def test_whether_a_model_is_there():
    models = [ModelInfo(name="llama3:latest")]

    assert has_model(models, "llama3")
    assert has_model(models, None)
    assert not has_model(models, "llama3:8b")
    assert not has_model([], None)


async def test_nothing_named_uses_a_local_ollama_that_answers():
    async with ollama("small", "big", loaded="small") as server:
        routed, route, _ = await opened(Settings(), {"OLLAMA_HOST": server.url})

    assert (route.backend, route.node, route.model) == ("ollama", server.url, "small:latest")
    assert "answers" in route.reason
    assert routed.backend.capabilities.capacity == 1


async def test_with_nothing_loaded_the_largest_installed_model_is_taken():
    async with ollama("small", "big") as server:
        _, route, _ = await opened(Settings(), {"OLLAMA_HOST": server.url})

    assert route.model == "big:latest"


async def test_nothing_named_and_no_ollama_is_the_embedded_model():
    routed, route, reports = await opened(Settings(embedded_parallel=3))

    assert (route.backend, route.node, route.model) == ("embedded", None, "smollm2:135m")
    assert "no Ollama answers" in route.reason
    assert routed.backend.capabilities.capacity == 3
    assert reports == []


async def test_an_ollama_without_a_model_leaves_the_embedded_one_and_says_what_to_pull():
    async with ollama() as server:
        _, route, reports = await opened(Settings(), {"OLLAMA_HOST": server.url})

    assert route.backend == "embedded"
    assert isinstance(reports[0], BackendNotice)
    assert "ollama pull" in reports[0].message


async def test_a_named_model_that_nobody_has_is_no_case_for_the_embedded_one():
    with pytest.raises(BackendUnavailable, match="nothing can serve llama3") as caught:
        await opened(Settings(model="llama3"))
    assert "leave the model out" in str(caught.value.hint) and "did you mean" not in str(caught.value.hint)
    with pytest.raises(BackendUnavailable, match="nothing can serve smollm2:13 ") as caught:
        await opened(Settings(model="smollm2:13"))
    assert str(caught.value.hint).startswith("did you mean 'smollm2:135m'? If not: start Ollama")
    async with ollama("other") as server:
        with pytest.raises(ModelNotFound, match="ollama pull llama3"):
            await opened(Settings(model="llama3"), {"OLLAMA_HOST": server.url})


async def test_the_embedded_model_may_be_named():
    _, route, _ = await opened(Settings(model="smollm2:135m"))

    assert route.backend == "embedded"


async def test_several_nodes_are_one_pool():
    async with ollama("other") as one, ollama("llama3:latest") as two:
        nodes = [{"url": "http://127.0.0.1:9"}, {"url": one.url}, {"url": two.url, "parallel": 3}]
        routed, route, reports = await opened(Settings(model="llama3", nodes=nodes))

    assert (route.backend, route.node) == ("ollama", "3 nodes")
    assert routed.backend.capabilities.capacity is None  # the pool keeps its nodes' limits itself
    assert isinstance(routed.backend, PoolBackend)
    assert "node http://127.0.0.1:9 is down" in reports[0].message


async def test_when_no_node_can_serve_each_reason_is_given():
    async with ollama("other") as one, FaultServer(html()) as two:
        nodes = [{"url": "http://127.0.0.1:9"}, {"url": one.url}, {"url": two.url}]
        with pytest.raises(ModelNotFound) as caught:
            await opened(Settings(model="llama3", nodes=nodes))

    for part in ("127.0.0.1:9", f"{one.url}: does not have the model", two.url):
        assert part in str(caught.value)


async def test_a_node_whose_models_are_not_known_is_not_told_to_fetch_one():
    script = {"/api/version": json_reply({"version": "0.12.6"}), "*": respond(200, b"nonsense", "text/plain")}
    async with FaultServer(script) as server:
        for model in (None, "llama3"):
            with pytest.raises(BackendUnavailable, match=r"nothing can serve .*sent something else") as caught:
                await opened(Settings(model=model, nodes=[{"url": server.url}]))
            assert "is another program" in (caught.value.hint or "")


async def test_one_node_alone_is_called_by_its_name():
    async with ollama("m") as one:
        settings = Settings(nodes=[{"url": one.url, "name": "desk"}], task_distribution_enabled=False)
        _, route, _ = await opened(settings)
        assert route.node == "desk"


async def test_one_node_alone_is_the_first_and_no_other_is_contacted():
    async with ollama("m") as one, ollama("m") as two:
        settings = Settings(nodes=[{"url": one.url}, {"url": two.url}], task_distribution_enabled=False)
        _, route, _ = await opened(settings)

        assert route.node == one.url
        assert two.connections == 0


async def test_the_first_node_alone_says_what_is_wrong_with_it():
    off = {"task_distribution_enabled": False}
    with pytest.raises(BackendUnavailable):
        await opened(Settings(nodes=[{"url": "http://127.0.0.1:9"}], **off))
    async with FaultServer(html()) as server:
        with pytest.raises(BackendUnavailable, match="web page") as caught:
            await opened(Settings(nodes=[{"url": server.url}], **off))
        assert "write the address of the Ollama itself" in str(caught.value)
    async with ollama() as server:
        with pytest.raises(ModelNotFound, match="has no model"):
            await opened(Settings(nodes=[{"url": server.url}], **off))


async def test_a_node_that_accepts_and_says_nothing_is_not_waited_for():
    async with FaultServer(before_headers(hang)) as server:
        with pytest.raises(BackendUnavailable, match="did not answer"):
            await opened(Settings(nodes=[{"url": server.url}]))
        await server.wait_until_idle()


async def test_distributed_inference_alone_uses_the_coordinator_and_touches_no_node():
    async with ollama("m") as node, FaultServer(json_reply({"data": [{"id": "big"}]})) as coordinator:
        settings = Settings(
            nodes=[{"url": node.url}],
            coordinator_url=coordinator.url,
            task_distribution_enabled=False,
            distributed_inference_enabled=True,
        )
        _, route, _ = await opened(settings, {"OLLAMA_HOST": node.url})

        assert (route.backend, route.node) == ("llama-server", coordinator.url)
        assert node.connections == 0


async def test_a_coordinator_that_does_not_answer_is_said_so_and_one_of_our_own_is_tried():
    reports: list = []
    settings = Settings(
        coordinator_url="http://127.0.0.1:9", task_distribution_enabled=False, distributed_inference_enabled=True
    )

    with pytest.raises(EngineUnavailable, match="synaptic engine install"):
        await open_backend(settings, reports.append, NOWHERE)
    (notice,) = reports
    assert "127.0.0.1:9" in notice.message
    assert "a coordinator of our own is used" in notice.message


@pytest.mark.parametrize("more", [{}, {"backend": "distributed"}])
async def test_distributed_inference_without_an_engine_says_what_to_do(more: dict):
    async with ollama("m") as node:
        settings = Settings(
            nodes=[{"url": node.url}], task_distribution_enabled=False, distributed_inference_enabled=True, **more
        )
        with pytest.raises(EngineUnavailable, match="synaptic engine install"):
            await opened(settings, {"OLLAMA_HOST": node.url})

        assert node.connections == 0


async def test_a_coordinator_that_accepts_and_says_nothing_is_not_waited_for():
    reports: list = []
    async with FaultServer(before_headers(hang)) as server:
        settings = Settings(
            coordinator_url=server.url, task_distribution_enabled=False, distributed_inference_enabled=True
        )
        with pytest.raises(EngineUnavailable):
            await open_backend(settings, reports.append, NOWHERE)
        await server.wait_until_idle()
    assert "nothing came within" in reports[0].message


LOADING = json_reply({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503)
COORDINATOR_ONLY = {"task_distribution_enabled": False, "distributed_inference_enabled": True}


@pytest.mark.parametrize("options", [COORDINATOR_ONLY, {"backend": "llama-server"}])
async def test_a_server_that_is_loading_is_waited_for_and_no_coordinator_is_started_beside_it(options: dict):
    async with FaultServer([LOADING, LOADING, json_reply({"data": [{"id": "big"}]})]) as server:
        _, route, reports = await opened(Settings(coordinator_url=server.url, **options))
    assert (route.backend, route.model) == ("llama-server", "big")
    first, last = (report.message for report in reports)
    assert "is not ready yet (503: Loading model); it is waited for, 5 min at most" in first
    assert last.startswith(f"{server.url} is ready, after")


@pytest.mark.parametrize(
    ("behaviour", "message", "hint"),
    [
        (LOADING, r"Loading model\) \(still so after", "first_token_timeout"),
        (json_reply({"error": {"message": "Invalid API Key"}}, 401), "asks for credentials", "without an API key"),
        (html(502), "gets no answer of the server behind it", "start the llama-server behind it"),
        (html(200), "a web page", "the address of the llama-server itself"),
        (respond(404), "has no /v1/models", "the address of a llama-server"),
    ],
)
async def test_a_server_that_is_there_and_cannot_be_used_is_an_error(behaviour: Behaviour, message: str, hint: str):
    async with FaultServer(behaviour) as server:
        settings = Settings(coordinator_url=server.url, first_token_timeout=0.3, **COORDINATOR_ONLY)
        with pytest.raises(BackendUnavailable, match=message) as caught:
            await opened(settings)
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 3


async def test_a_wait_for_a_coordinator_can_be_cancelled():
    async with FaultServer(LOADING) as server:
        settings = Settings(coordinator_url=server.url, first_token_timeout=None, **COORDINATOR_ONLY)
        opening = asyncio.create_task(opened(settings))
        await server.wait_for(lambda: len(server.requests) >= 2)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await server.wait_until_idle()


async def test_both_on_prefers_a_node_that_has_the_model():
    async with ollama("m") as node:
        settings = Settings(
            model="m",
            nodes=[{"url": node.url}],
            coordinator_url="http://127.0.0.1:9",
            distributed_inference_enabled=True,
        )
        _, route, _ = await opened(settings)

    assert route.node == node.url
    assert "a node has the model" in route.reason


async def test_both_on_uses_the_coordinator_for_what_no_node_has():
    async with ollama("m") as node, FaultServer(json_reply({"data": [{"id": "big"}]})) as coordinator:
        options = {"model": "big", "nodes": [{"url": node.url}], "distributed_inference_enabled": True}
        _, route, _ = await opened(Settings(coordinator_url=coordinator.url, **options))

        assert route.backend == "llama-server"
        with pytest.raises(ModelNotFound, match="neither can the workers") as caught:
            await opened(Settings(**options))
    assert "synaptic engine install" in str(caught.value)


async def test_a_forced_backend_is_used():
    async with ollama("m") as node:
        _, named, _ = await opened(Settings(backend="ollama", nodes=[{"url": node.url}]))
        _, local, _ = await opened(Settings(backend="ollama"), {"OLLAMA_HOST": node.url})
    _, embedded, _ = await opened(Settings(backend="embedded"))
    routed, scripted, _ = await opened(Settings(backend="scripted"))

    assert (named.node, local.node) == (node.url, node.url)
    assert (embedded.backend, scripted.backend) == ("embedded", "scripted")
    assert routed.backend.capabilities.capacity is None
    with pytest.raises(ConfigError, match="coordinator_url"):
        await opened(Settings(backend="llama-server"))


async def test_the_capacity_is_the_nodes_whatever_a_run_may_use():
    async with ollama("m") as server:
        nodes = [{"url": server.url, "parallel": 3}]
        alone, _, _ = await opened(Settings(nodes=nodes, max_parallel=2, task_distribution_enabled=False))
        pooled, _, _ = await opened(Settings(nodes=nodes, max_parallel=2))

    assert alone.backend.capabilities.capacity == 3
    assert isinstance(pooled.backend, PoolBackend)
    assert [member.state.limit for member in pooled.backend.members.values()] == [3]


@pytest.mark.parametrize("value", ["synaptic.backends.scripted:from_context", "synaptic.backends.scripted:KIND"])
async def test_an_installed_package_offers_a_kind_of_backend_or_a_callable(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[synaptic.backends]\ntheirs = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)

    routed, route, _ = await opened(Settings(backend="theirs", model="tiny"))

    assert isinstance(routed.backend, ScriptedBackend)
    assert route.model == "tiny"
    assert backend_kind("theirs").summary


def test_a_backend_that_does_not_exist_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'scripted'"):
        create_backend("scriptd", BackendContext(Settings()))


def test_every_built_in_backend_is_known_and_is_one():
    assert set(BUILT_IN) == {"scripted", "embedded", "ollama", "llama-server", "distributed"}
    for name in BUILT_IN:
        assert name in known_backends()
        assert backend_kind(name).name == name
        assert isinstance(create_backend(name, BackendContext(Settings(), "http://127.0.0.1:9")), Backend)
    assert isinstance(create_backend("scripted", BackendContext(Settings())), ScriptedBackend)
