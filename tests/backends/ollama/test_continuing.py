"""Whether a model on an Ollama goes on with a text: what its listings show, and what it tells when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from chat_turns import TEMPLATES, Turn
from faulty_node import FaultyNode

from synaptic.backends.ollama import OllamaBackend, shown_turn
from synaptic.backends.ollama.api import Defaults
from synaptic.backends.ollama.continuing import is_left_open, render_payload
from synaptic.errors import BackendUnavailable, ModelNotFound
from synaptic.messages import ChatRequest, Message
from synaptic.models import LastTurn

ASK = ChatRequest(
    messages=(Message("user", "Tell me a story."), Message("assistant", "Once upon")),
    model="m",
    max_tokens=100,
    num_ctx=2048,
)
OPEN, CLOSED, JINJA = TEMPLATES["open"], TEMPLATES["closed"], TEMPLATES["jinja"]


@pytest.mark.parametrize(
    ("shown", "turn"),
    [
        ({"template": OPEN}, LastTurn.OPEN),
        ({"template": CLOSED}, LastTurn.CLOSED),
        ({"template": JINJA}, LastTurn.UNKNOWN),
        ({"template": "{{ .Prompt }}"}, LastTurn.UNKNOWN),
        ({"template": ""}, LastTurn.UNKNOWN),
        ({"template": 3}, LastTurn.UNKNOWN),
        ({}, LastTurn.UNKNOWN),
        ({"template": OPEN, "modelfile": "FROM x\nTEMPLATE y\nPARAMETER stop z"}, LastTurn.OPEN),
        # Ollama has renderers of its own, and shows the template beside them all the same.
        ({"template": OPEN, "modelfile": 'FROM x\nRENDERER qwen3-coder\nPARAMETER stop "z"'}, LastTurn.UNKNOWN),
        ({"template": CLOSED, "modelfile": "FROM x\nPARSER harmony\n"}, LastTurn.UNKNOWN),
        ({"template": OPEN, "details": {"family": "gptoss"}}, LastTurn.UNKNOWN),
        ({"template": OPEN, "details": {"family": "llama"}}, LastTurn.OPEN),
        ({"template": OPEN, "remote_host": "https://elsewhere"}, LastTurn.UNKNOWN),
    ],
)
def test_what_the_details_of_a_model_show(shown: dict[str, Any], turn: LastTurn) -> None:
    assert shown_turn(shown) is turn


@pytest.mark.parametrize(
    ("answer", "open_"),
    [
        ({"_debug_info": {"rendered_template": "<|user|>Tell me a story.<|assistant|>Once upon"}}, True),
        ({"_debug_info": {"rendered_template": "<|assistant|>Once upon<|end|><|assistant|>"}}, False),
        ({"_debug_info": {"rendered_template": "<|assistant|>Once upon "}}, False),
        ({"_debug_info": {"rendered_template": ""}}, False),
        ({"_debug_info": {"rendered_template": None}}, False),
        ({"_debug_info": "Once upon"}, False),
        ({"message": {"role": "assistant", "content": "Once upon"}, "done": True}, False),  # it does not know the field
        ({}, False),
    ],
)
def test_what_a_server_tells(answer: dict[str, Any], open_: bool) -> None:  # noqa: FBT001 - a row of the table
    assert is_left_open(answer, ASK) is open_


def test_no_more_than_one_token_is_asked_for_and_nothing_that_would_reload_the_model() -> None:
    body = render_payload(ASK, "m", Defaults(keep_alive="5m"))
    assert (body["_debug_render_only"], body["stream"]) == (True, False)
    assert body["options"] == {"num_ctx": 2048, "num_predict": 1, "repeat_penalty": 1.1}
    assert (body["messages"][-1], body["keep_alive"]) == ({"role": "assistant", "content": "Once upon"}, "5m")


@pytest.mark.parametrize(
    ("turn", "renders", "goes_on"),
    [("open", True, True), ("closed", True, False), ("jinja", True, True), ("open", False, False)],
)
async def test_a_server_is_asked(turn: Turn, renders: bool, goes_on: bool) -> None:  # noqa: FBT001 - a row of the table
    async with FaultyNode(turn=turn, renders=renders) as node, OllamaBackend(node.url) as backend:
        assert await backend.goes_on_with(ASK) is goes_on
        (call,) = node.asked
        assert call.produced == (0 if renders else 1)


async def test_a_server_that_cannot_answer_has_not_said_yes() -> None:
    async with FaultyNode() as node, OllamaBackend(node.url) as backend:
        node.fail("error")
        assert await backend.goes_on_with(ASK) is False
        node.fail("not_found")
        with pytest.raises(ModelNotFound):
            await backend.goes_on_with(ASK)
        node.fail("refuse")
        with pytest.raises(BackendUnavailable):
            await backend.goes_on_with(ASK)
        node.heal()
