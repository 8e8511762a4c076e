"""Whether a model on a server goes on with a text that broke off: pure decisions over what the server tells.

Two things tell it (Ollama of August 2026, ``server/routes.go``, ``server/images.go``):

- ``/api/show`` has the template. It is not what the prompt is made with where the Modelfile names a renderer or a
  parser of Ollama's own, and for the harmony models. A Jinja template is ``llama-server``'s to render, which has rules
  of its own for a last message of the assistant, and may repeat that message at the beginning of its reply.
- ``/api/chat`` with ``_debug_render_only`` answers with the prompt instead of a reply. A server that does not know the
  field answers with a reply: one token, as no more is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synaptic.backends.ollama.api import Defaults, chat_payload
from synaptic.models import LastTurn, last_turn

if TYPE_CHECKING:
    from synaptic.backends.http import JsonObject
    from synaptic.messages import ChatRequest

_OWN_RENDERING = re.compile(r"^(RENDERER|PARSER)\s", re.MULTILINE | re.IGNORECASE)
_HARMONY = {"gptoss", "gpt-oss"}


def shown_turn(shown: JsonObject) -> LastTurn:
    """Return what ``/api/show`` tells of a last message of the assistant; ``UNKNOWN`` if it does not tell."""
    template, modelfile, details = shown.get("template"), shown.get("modelfile"), shown.get("details")
    if not isinstance(template, str) or shown.get("remote_host"):
        return LastTurn.UNKNOWN
    if isinstance(modelfile, str) and _OWN_RENDERING.search(modelfile):
        return LastTurn.UNKNOWN
    if isinstance(details, dict) and details.get("family") in _HARMONY:
        return LastTurn.UNKNOWN
    return last_turn(template)


def render_payload(request: ChatRequest, model: str, defaults: Defaults) -> JsonObject:
    """Return the body of ``/api/chat`` that asks for the prompt of ``request``."""
    body = chat_payload(request, model, defaults)
    options = {**body["options"], "num_predict": 1}
    return {**body, "stream": False, "_debug_render_only": True, "options": options}


def is_left_open(answer: JsonObject, request: ChatRequest) -> bool:
    """Return whether the prompt that a server tells ends in the last message of ``request``, byte for byte."""
    told = answer.get("_debug_info")
    prompt = told.get("rendered_template") if isinstance(told, dict) else None
    said = request.messages[-1].content
    return isinstance(prompt, str) and bool(said) and prompt.endswith(said)
