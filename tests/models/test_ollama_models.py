"""Ollama: which models there are, which one is taken where none is named, and where the server is."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
from chunk_support import collected
from fault_server import (
    Behaviour,
    FaultServer,
    json_reply,
    ollama_reply,
    respond,
)

from synaptic.backends.http.client import new_client
from synaptic.backends.ollama.api import (
    InstalledModel,
    choose_model,
    default_url,
    full_name,
    host_url,
    is_loopback,
    merge_models,
)
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.errors import (
    ModelNotFound,
)
from synaptic.messages import ChatRequest, Chunk, Message, ModelInfo

HELLO = (Message("system", "Be brief."), Message("user", "Hello"))
GB = 10**9


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(messages=HELLO, **{"model": "tiny", **fields})


def text_of(chunks: list[Chunk]) -> str:
    return collected(chunks)


NOT_FOUND = {"error": "model 'tiny' not found"}


def tags(*models: dict[str, Any]) -> Behaviour:
    return json_reply({"models": list(models)})


TINY = {
    "name": "tiny",
    "size": GB,
    "details": {"family": "llama", "parameter_size": "1.2B", "quantization_level": "Q4_K_M"},
}
BIG = {"name": "big:70b", "size": 40 * GB, "details": {"family": "llama"}}


async def test_models_are_merged_with_what_is_loaded() -> None:
    script = {
        "/api/tags": tags(TINY, BIG),
        "/api/ps": tags({"name": "tiny:latest", "size_vram": 5, "context_length": 4096}),
    }
    async with FaultServer(script) as server, OllamaBackend(server.url) as backend:
        assert await backend.models() == [
            ModelInfo(
                name="tiny:latest",
                size_bytes=GB,
                context_length=4096,
                parameter_size="1.2B",
                quantization="Q4_K_M",
                loaded=True,
            ),
            ModelInfo(name="big:70b", size_bytes=40 * GB),
        ]


@pytest.mark.parametrize("ps", [respond(404, b"404 page not found", "text/plain"), respond(200, b"?")])
async def test_models_of_a_server_that_cannot_say_what_is_loaded(ps: Behaviour) -> None:
    async with FaultServer({"/api/tags": tags(TINY), "/api/ps": ps}) as server, OllamaBackend(server.url) as backend:
        assert [(info.name, info.loaded) for info in await backend.models()] == [("tiny:latest", False)]


@pytest.mark.parametrize("listing", [{}, {"models": None}, {"models": {}}, {"models": [None, 7, {}, {"name": 3}]}])
def test_malformed_listings_are_empty(listing: dict[str, Any]) -> None:
    assert merge_models(listing, listing) == []


def test_malformed_entries_keep_what_is_well_formed() -> None:
    odd = {"model": "odd", "size": "big", "details": None, "capabilities": "chat"}
    assert merge_models({"models": [odd]}, {}) == [InstalledModel(ModelInfo(name="odd:latest"))]


def test_embedding_and_remote_models_are_told_apart() -> None:
    listing = {
        "models": [
            {"name": "nomic", "details": {"families": ["nomic-bert"]}},
            {"name": "mxbai-embed-large", "details": {}},
            {"name": "no-chat", "capabilities": ["embedding"]},
            {"name": "modern-bert-chat", "details": {"family": "bert"}, "capabilities": ["completion"]},
            {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"},
        ]
    }
    assert [(entry.can_chat, entry.remote) for entry in merge_models(listing, {})] == [
        (False, False),
        (False, False),
        (False, False),
        (True, False),
        (True, True),
    ]


def installed(name: str, gigabytes: float | None, *, loaded: bool = False, **fields: bool) -> InstalledModel:
    size = None if gigabytes is None else int(gigabytes * GB)
    return InstalledModel(ModelInfo(name=name, size_bytes=size, loaded=loaded), **fields)


@pytest.mark.parametrize(
    ("models", "memory", "chosen"),
    [
        ([installed("a", 1), installed("b", 4), installed("c", 40)], 16 * GB, "b"),
        ([installed("a", 1), installed("b", 4), installed("c", 40)], None, "c"),
        ([installed("a", 1, loaded=True), installed("b", 4)], 16 * GB, "a"),
        ([installed("a", 1, loaded=True), installed("b", 40, loaded=True)], 16 * GB, "b"),
        ([installed("a", 13), installed("b", 2)], 16 * GB, "b"),
        ([installed("a", None), installed("b", 1)], 16 * GB, "b"),
        ([installed("a", None)], 16 * GB, "a"),
        ([installed("e", 1, loaded=True, can_chat=False), installed("b", 1)], 16 * GB, "b"),
        ([installed("r", 1, remote=True), installed("b", 1)], 16 * GB, "b"),
    ],
)
def test_the_model_for_requests_that_name_none(models: list[InstalledModel], memory: int | None, chosen: str) -> None:
    """One that is loaded, else the largest that leaves a fifth of the memory for the rest."""
    assert choose_model(models, memory, node="n") == chosen


@pytest.mark.parametrize("models", [[], [installed("e", 1, can_chat=False)], [installed("r", 1, remote=True)]])
def test_no_model_says_what_to_pull(models: list[InstalledModel]) -> None:
    with pytest.raises(ModelNotFound, match="no model is installed at n") as caught:
        choose_model(models, None, node="n")
    assert caught.value.hint == "ollama pull llama3.2"


def test_no_model_that_fits_says_so() -> None:
    with pytest.raises(ModelNotFound, match=r"fits into 6\.4 GB of memory; the smallest is b with 20\.0 GB"):
        choose_model([installed("a", 40), installed("b", 20)], 8 * GB, node="n")


async def test_the_default_model_is_chosen_once_and_again_when_it_is_gone() -> None:
    script: dict[str, Any] = {
        "/api/tags": [tags(TINY), tags({"name": "other", "size": GB})],
        "/api/ps": tags(),
        "/api/chat": [ollama_reply(["a"]), ollama_reply(["b"]), json_reply(NOT_FOUND, 404), ollama_reply(["c"])],
    }
    asked = request(model=None)
    async with FaultServer(script) as server, OllamaBackend(server.url) as backend:
        assert await backend.default_model() == "tiny:latest"
        assert [text_of([chunk async for chunk in backend.stream(asked)]) for _ in range(2)] == ["a", "b"]
        with pytest.raises(ModelNotFound):
            [chunk async for chunk in backend.stream(asked)]
        assert text_of([chunk async for chunk in backend.stream(asked)]) == "c"
    sent = [got.json["model"] for got in server.requests if got.path == "/api/chat"]
    assert sent == ["tiny:latest"] * 3 + ["other:latest"]


async def test_this_machine_has_a_memory_and_others_an_unknown_one() -> None:
    huge = {"name": "huge", "size": psutil.virtual_memory().total}
    async with FaultServer({"/api/tags": tags(huge), "/api/ps": tags()}) as server:
        async with OllamaBackend(server.url) as here:
            with pytest.raises(ModelNotFound, match="fits"):
                await here.default_model()
        async with new_client(server.url) as client, OllamaBackend("http://node.invalid", client=client) as elsewhere:
            assert await elsewhere.default_model() == "huge:latest"


# Addresses.


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("10.0.0.4", "http://10.0.0.4:11434"),
        ("10.0.0.4:5000", "http://10.0.0.4:5000"),
        (":5000", "http://127.0.0.1:5000"),
        ("box", "http://box:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::]:5000", "http://[::1]:5000"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:8443/ollama/", "https://box:8443/ollama"),
        ("HTTP://box:1", "http://box:1"),
        ("box:0", "http://box:11434"),
        ("box:70000", "http://box:11434"),
        ("box:port", "http://box:11434"),
        ('"box:1"', "http://box:1"),
        ("http://me:pw@box:1", "http://me:pw@box:1"),
    ],
)
def test_forms_of_ollama_host(host: str, url: str) -> None:
    assert host_url(host) == url
    assert default_url({"OLLAMA_HOST": host}) == url


def test_without_ollama_host() -> None:
    assert default_url({}) == "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://10.0.0.4:1", False),
        ("http://box:1", False),
        ("http://", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, *, local: bool) -> None:
    assert is_loopback(url) is local


def test_names_with_and_without_tag() -> None:
    names = ["llama3.2", "llama3.2:1b", "hf.co:443/org/model", "hf.co/org/model:Q4"]
    assert [full_name(name) for name in names] == [
        "llama3.2:latest",
        "llama3.2:1b",
        "hf.co:443/org/model:latest",
        "hf.co/org/model:Q4",
    ]
