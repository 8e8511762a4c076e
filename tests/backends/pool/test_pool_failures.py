"""What a failure means: every class of our errors has a row; the words of Ollama and of our HTTP layer are known."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from synaptic import errors
from synaptic.backends.http.error_map import (
    Origin,
    closed_client,
    from_httpx,
    no_address,
    no_answer_within,
    status_error,
)
from synaptic.backends.ollama.api import status_error as ollama_error
from synaptic.backends.pool.node.failures import CallFailure, judge
from synaptic.errors import BackendError

ORIGIN = Origin("ollama", "http://desk:11434")

NODE_DOWN = ("node", True, True)
NODE_ILL = ("node", False, True)
MODEL = ("model", False, True)
BUSY = ("busy", False, True)
CALL = ("call", False, False)

KINDS = {
    errors.BackendError: CALL,
    errors.BackendUnavailable: NODE_DOWN,
    errors.AddressUnusable: NODE_DOWN,
    errors.EngineUnavailable: NODE_DOWN,
    errors.DownloadError: NODE_DOWN,
    errors.CoordinatorFailed: NODE_DOWN,
    errors.NoPlacement: NODE_DOWN,
    errors.ModelFileError: NODE_DOWN,
    errors.ModelNotFound: MODEL,
    errors.BackendBusy: BUSY,
    errors.BackendNotReady: BUSY,
    errors.PoolSaturated: BUSY,
    errors.RequestRejected: CALL,
    errors.ContextOverflow: CALL,
    errors.FeatureMissing: CALL,
    errors.ServerError: NODE_ILL,
    errors.ProtocolError: NODE_ILL,
    errors.ReplyTooLong: NODE_ILL,
    errors.EngineCrashed: NODE_ILL,
    errors.StreamError: NODE_ILL,
    errors.StreamFailed: NODE_ILL,
    errors.StreamTruncated: NODE_ILL,
    errors.FirstTokenTimeout: NODE_ILL,
    errors.IdleTimeout: NODE_ILL,
    errors.CallTimeout: CALL,
}


def family(kind: type[BackendError]) -> set[type[BackendError]]:
    return {kind}.union(*(family(below) for below in kind.__subclasses__() if below.__module__ == errors.__name__))


def verdict(failure: CallFailure) -> tuple[str, bool, bool]:
    return failure.blame, failure.down, failure.elsewhere


def test_every_class_has_a_row() -> None:
    assert set(KINDS) == family(BackendError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_is_judged(kind: type[BackendError]) -> None:
    error = kind("x", estimated_wait=1.0) if kind is errors.PoolSaturated else kind("x")  # type: ignore[call-arg]  # its own
    failure = judge(error)
    assert verdict(failure) == KINDS[kind]
    assert failure.why == "x"


def answered(status: int, text: str, headers: dict[str, str] | None = None) -> BackendError:
    """Return the error that a node's answer becomes, by the way that it takes in a call."""
    body = b'{"error": "%s"}' % text.encode()

    def meaning(status: int, body: bytes) -> BackendError | None:
        return ollama_error(status, body, model="m", node=ORIGIN.node)

    return status_error(status, headers or {}, body, ORIGIN, read_error=meaning)


@pytest.mark.parametrize(
    "text",
    [
        "model requires more system memory (30.1 GiB) than is available (22.4 GiB)",
        "model requires more gpu memory (9.0 GiB) than is available (7.4 GiB)",
        "llama runner process has terminated: cudaMalloc failed: out of memory",
        "llama runner process has terminated: error loading model: unknown model architecture: 'qwen9'",
        "model failed to load, this may be due to resource limitations or an internal error",
        "timed out waiting for llama runner to start - progress 0.00 - ",
        "unable to load model: /models/blobs/sha256-12",
        "this model may be incompatible with your version of Ollama",
        "memory layout cannot be allocated",
        "memory layout cannot be allocated with num_gpu = 48",
        "failed to commit memory for model",
        "failed to allocate memory for model",
        "unable to allocate CUDA0 buffer",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_model_that_cannot_be_loaded_is_the_models_fault_on_that_node(text: str, status: int) -> None:
    assert verdict(judge(answered(status, text))) == MODEL


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (404, "model 'm' not found", MODEL),
        (404, "404 page not found", NODE_DOWN),
        (401, "unauthorized", NODE_DOWN),
        (403, "", NODE_DOWN),
        (400, "invalid option: 401", CALL),
        (400, "403 is no temperature", CALL),
        (400, "the input length exceeds the context length: 401 > 400", CALL),
        (422, "no", CALL),
        (500, "llama runner process has terminated: signal: killed", NODE_ILL),
        (502, "bad gateway", BUSY),
        (500, "llm server loading model", BUSY),
        (500, "error loading model", MODEL),
        (503, "server busy, please try again.  maximum pending requests exceeded", BUSY),
        (429, "slow down", BUSY),
    ],
)
def test_what_ollama_answers(status: int, text: str, expected: tuple[str, bool, bool]) -> None:
    assert verdict(judge(answered(status, text))) == expected


def test_when_to_come_again_is_passed_on() -> None:
    assert judge(answered(503, "busy", {"retry-after": "7"})).retry_after == 7
    assert judge(answered(503, "busy")).retry_after is None


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "delivered"),
    [
        (from_httpx(caused_by(httpx.ConnectError(""), ConnectionRefusedError(111, "")), ORIGIN, answered=False), False),
        (from_httpx(caused_by(httpx.ConnectError(""), socket.gaierror(-2, "")), ORIGIN, answered=False), False),
        (from_httpx(httpx.ConnectTimeout(""), ORIGIN, answered=False), False),
        (from_httpx(caused_by(httpx.ConnectError(""), ssl.SSLError(1, "")), ORIGIN, answered=False), False),
        (no_address(ValueError("x"), ORIGIN), False),
        (closed_client(ORIGIN), False),
        (no_answer_within(2.0, ORIGIN), True),
        (from_httpx(httpx.RemoteProtocolError("Server disconnected"), ORIGIN, answered=False), True),
        (from_httpx(httpx.ReadError("reset"), ORIGIN, answered=False), True),
    ],
    ids=lambda value: value.message if isinstance(value, BackendError) else "",
)
def test_what_never_reached_a_server_may_be_sent_again_freely(error: BackendError, *, delivered: bool) -> None:
    failure = judge(error)
    assert verdict(failure) == NODE_DOWN
    assert failure.delivered is delivered


def test_a_stream_that_breaks_is_the_nodes_fault_and_was_delivered() -> None:
    failure = judge(from_httpx(httpx.ReadError("reset"), ORIGIN, answered=True))
    assert verdict(failure) == NODE_ILL
    assert failure.delivered


def test_refusals_were_not_worked_on() -> None:
    assert not judge(answered(503, "busy")).delivered
    assert not judge(answered(404, "model 'm' not found")).delivered
    assert judge(answered(500, "x")).delivered
