"""The description of all routes, which is served at ``/openapi.json`` (OpenAPI 3.1).

Bodies of OpenAI's and Anthropic's dialects are described by the shapes that check them; those of Ollama's, which are
read as Ollama reads them, by what its documentation names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from synaptic.server.anthropic_api import CountBody, MessagesBody
from synaptic.server.gateway import EVENTS, NDJSON, json_response
from synaptic.server.ollama_api import NODE_HEADER
from synaptic.server.openai_api import ChatBody, CompletionBody, CountedInput, EmbeddingBody, ResponsesBody
from synaptic.server.page import AnswerBody, AskBody, NoBody, RerunBody
from synaptic.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web
    from pydantic import BaseModel

Json = dict[str, Any]

PATH: Final = "/openapi.json"
_UNTOLD: Final = {"HEAD", "OPTIONS", "*"}
_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_THINK: Final = {"enum": [True, False, "low", "medium", "high", "max"]}
_KEEP: Final = {"type": ["string", "number"]}
_FORMAT: Final = {"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]}


def _ollama(*required: str, **fields: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": fields}


_MESSAGE: Final = _ollama(
    "role",
    role={"enum": ["system", "user", "assistant", "tool"]},
    content=_TEXT,
    thinking=_TEXT,
    images={"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
    tool_calls={"type": "array", "items": {"type": "object"}},
    tool_name=_TEXT,
)
_GENERATING: Final[Json] = {
    "model": _TEXT,
    "stream": _FLAG,
    "format": _FORMAT,
    "options": {"type": "object"},
    "think": _THINK,
    "keep_alive": _KEEP,
    "logprobs": _FLAG,
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
}
_CHAT: Final = _ollama(
    "model",
    **_GENERATING,
    messages={"type": "array", "items": _MESSAGE},
    tools={"type": "array", "items": {"type": "object"}},
)
_GENERATE: Final = _ollama(
    "model", **_GENERATING, prompt=_TEXT, suffix=_TEXT, system=_TEXT, images={"type": "array", "items": _TEXT}
)
_TEXTS: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_NAMED: Final = _ollama("model", model=_TEXT, verbose=_FLAG)
_STREAMED: Final = _ollama("model", model=_TEXT, stream=_FLAG, insecure=_FLAG)
_COPIED: Final = _ollama("source", "destination", source=_TEXT, destination=_TEXT)
_DELETED: Final = _ollama("model", model=_TEXT)
_CREATED: Final[Json] = {
    "type": "object",
    "required": ["model"],
    "properties": {
        **dict.fromkeys(("model", "from", "template", "system", "quantize"), _TEXT),
        "license": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        "files": {"type": "object", "additionalProperties": _TEXT},
        "parameters": {"type": "object"},
        "messages": {"type": "array", "items": _MESSAGE},
        "stream": _FLAG,
    },
}


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a route: its body, the type of its stream, its own header, where it can have one.

    ``kind`` is the type of the body.
    """

    summary: str
    body: type[BaseModel] | Json | None = None
    stream: str | None = None
    header: str | None = None
    kind: str = "application/json"


_KNOWN: Final[dict[tuple[str, str], Described]] = {
    ("GET", "/"): Described("Whether this is Ollama, or speaks like it"),
    ("GET", "/api/version"): Described("The version of Ollama's API"),
    ("GET", "/api/tags"): Described("The models, pipelines and aliases"),
    ("GET", "/api/ps"): Described("The models in memory"),
    ("POST", "/api/show"): Described("What is known of a model", _NAMED),
    ("POST", "/api/chat"): Described("Answer a conversation", _CHAT, NDJSON),
    ("POST", "/api/generate"): Described("Answer a prompt", _GENERATE, NDJSON),
    ("POST", "/api/embed"): Described("The vectors of texts", _ollama("model", model=_TEXT, input=_TEXTS)),
    ("POST", "/api/embeddings"): Described("The vector of a text", _ollama("model", model=_TEXT, prompt=_TEXT)),
    ("POST", "/api/pull"): Described("Fetch a model: on all nodes, or one", _STREAMED, NDJSON, NODE_HEADER),
    ("POST", "/api/push"): Described("Publish a model of one node", _STREAMED, NDJSON, NODE_HEADER),
    ("POST", "/api/create"): Described("Make a model: on all nodes, or one", _CREATED, NDJSON, NODE_HEADER),
    ("POST", "/api/copy"): Described("Give a model another name", _COPIED, None, NODE_HEADER),
    ("DELETE", "/api/delete"): Described("Delete a model wherever it is, or at one node", _DELETED, None, NODE_HEADER),
    ("POST", "/api/blobs/{digest}"): Described(
        "Give one node a file to make a model of", {"type": "string"}, None, NODE_HEADER, "application/octet-stream"
    ),
    ("GET", "/v1/models"): Described("The models, pipelines and aliases"),
    ("GET", "/v1/models/{model}"): Described("One model"),
    ("POST", "/v1/chat/completions"): Described("Answer a conversation", ChatBody, EVENTS),
    ("POST", "/v1/completions"): Described("Answer prompts", CompletionBody, EVENTS),
    ("POST", "/v1/embeddings"): Described("The vectors of texts", EmbeddingBody),
    ("POST", "/v1/responses"): Described("Answer, and keep the answer", ResponsesBody, EVENTS),
    ("POST", "/v1/responses/input_tokens"): Described("How many tokens a call has", CountedInput),
    ("GET", "/v1/responses/{response}"): Described("An answer that is kept"),
    ("DELETE", "/v1/responses/{response}"): Described("Forget an answer"),
    ("GET", "/v1/responses/{response}/input_items"): Described("What came with the call"),
    ("POST", "/v1/responses/{response}/cancel"): Described("Refused: answers are not made in the background"),
    ("POST", "/v1/messages"): Described("Answer a conversation", MessagesBody, EVENTS),
    ("POST", "/v1/messages/count_tokens"): Described("How many tokens a call has", CountBody),
    ("GET", "/ui/now"): Described("How everything stands: nodes, coordinators, calls that wait and why"),
    ("GET", "/ui/events"): Described("What changes, as it changes; with Last-Event-ID what was missed", None, EVENTS),
    ("GET", "/ui/runs"): Described("A page of the recorded runs: q, status, pipeline, limit, below"),
    ("GET", "/ui/runs/{id}"): Described("One run in full"),
    ("GET", "/ui/diff"): Described("How the steps of the runs a and b compare"),
    ("POST", "/ui/ask"): Described("Begin a run of a pipeline", AskBody),
    ("POST", "/ui/runs/{id}/rerun"): Described("Begin a run once more, whole or from a step on", RerunBody),
    ("POST", "/ui/runs/{id}/resume"): Described("Go on with a run that did not come to its end", NoBody),
    ("POST", "/ui/runs/{id}/answer"): Described("Decide what a run waits for a person to decide", AnswerBody),
    ("POST", "/ui/runs/{id}/cancel"): Described("Cancel a run that was begun so", NoBody),
    ("GET", "/healthz"): Described("Whether the program lives"),
    ("GET", "/readyz"): Described("Whether calls would be served"),
    ("GET", "/metrics"): Described("What Prometheus reads"),
    ("GET", PATH): Described("This description"),
}
"""Routes that are not here are described by their path alone; what an application does not serve is left out."""


def add_description(app: web.Application) -> None:
    """Add the route of the description, which tells the routes that the application has when it is asked."""
    made: list[Json] = []

    async def describe(_request: web.Request) -> web.Response:
        if not made:
            made.append(description(app))
        return json_response(made[0])

    app.router.add_get(PATH, describe)


def description(app: web.Application) -> Json:
    """Return the document of an application's routes."""
    paths: dict[str, Json] = {}
    for method, path in routes_of(app):
        paths.setdefault(path, {})[method.lower()] = _operation(path, _KNOWN.get((method, path), Described(path)))
    shapes = [(known.body, "validation") for known in _KNOWN.values() if isinstance(known.body, type)]
    _, schemas = models_json_schema(shapes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "SynapticLlamas", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"key": bearer}},
        "security": [{}, {"key": []}],
    }


def routes_of(app: web.Application) -> Iterator[tuple[str, str]]:
    """Yield method and path of each route, paths as OpenAPI writes them; HEAD goes with its GET."""
    for route in app.router.routes():
        if route.method not in _UNTOLD and route.resource is not None:
            yield route.method, route.resource.canonical


def _operation(path: str, known: Described) -> Json:
    content: Json = {"application/json": {"schema": {"type": "object"}}}
    if known.stream is not None:
        content[known.stream] = {"schema": _TEXT}
    told: Json = {
        "summary": known.summary,
        "responses": {
            "200": {"description": "The answer", "content": content},
            "4XX": {"description": "What is wrong with the request", "content": {"application/json": {}}},
            "5XX": {"description": "What keeps it from being answered", "content": {"application/json": {}}},
        },
    }
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters: list[Json] = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    if known.header is not None:
        parameters.append({"name": known.header, "in": "header", "required": False, "schema": _TEXT})
    if parameters:
        told["parameters"] = parameters
    if known.body is not None:
        shape = known.body
        schema = shape if isinstance(shape, dict) else {"$ref": f"#/components/schemas/{shape.__name__}"}
        told["requestBody"] = {"required": True, "content": {known.kind: {"schema": schema}}}
    return told
