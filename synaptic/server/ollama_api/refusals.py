"""Refusals in Ollama's words, with the status that it gives them."""

from __future__ import annotations

import json

from synaptic.server.gateway import BAD_REQUEST, BUSY, FORBIDDEN, NOT_FOUND, SERVER_ERROR, UNAVAILABLE, Refusal, quoted
from synaptic.text import excerpt

__all__ = ["BAD_REQUEST", "BUSY", "FORBIDDEN", "NOT_FOUND", "SERVER_ERROR", "UNAVAILABLE", "Refusal", "quoted"]


def model_not_found(name: str) -> Refusal:
    """Return the refusal of chat, generate and show for a model that is not there."""
    return Refusal(NOT_FOUND, f"model '{name}' not found")


def model_not_pulled(name: str) -> Refusal:
    """Return the refusal of the embedding calls, which word it in another way (``handleScheduleError``)."""
    return Refusal(NOT_FOUND, f"model {quoted(name)} not found, try pulling it first")


def invalid_name() -> Refusal:
    """Return the refusal of a name that no model can have."""
    return Refusal(BAD_REQUEST, "invalid model name")


def model_required() -> Refusal:
    """Return the refusal of a request without a model."""
    return Refusal(BAD_REQUEST, "model is required")


def no_thinking(name: str) -> Refusal:
    """Return the refusal of ``think`` for a model that cannot."""
    return Refusal(BAD_REQUEST, f"{quoted(name)} does not support thinking")


def lacks(name: str, capability: str) -> Refusal:
    """Return the refusal of ``tools`` or ``suffix`` (insert) for a model that cannot."""
    return Refusal(BAD_REQUEST, f"{name} does not support {capability}")


def server_busy() -> Refusal:
    """Return the refusal of a full queue; the two blanks are Ollama's."""
    return Refusal(UNAVAILABLE, "server busy, please try again.  maximum pending requests exceeded")


def prompt_too_long() -> Refusal:
    """Return the refusal of a prompt that may be cut, but only by shifting, which the request forbids."""
    return Refusal(
        BAD_REQUEST,
        "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the "
        "context length in settings, or use a model with a longer context length",
    )


def input_too_long() -> Refusal:
    """Return the refusal of a text to embed that does not fit."""
    return Refusal(BAD_REQUEST, "the input length exceeds the context length")


def invalid_format(raw: object) -> Refusal:
    """Return the refusal of a ``format`` that is neither "json" nor a schema."""
    shown = quoted(excerpt(json.dumps(raw, ensure_ascii=False)))
    return Refusal(BAD_REQUEST, f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def no_images() -> Refusal:
    """Return the refusal of images for a model that reads text only."""
    return Refusal(BAD_REQUEST, "this model is missing data required for image input")


def runner_stopped() -> Refusal:
    """Return what is said when the engine has died before it answered."""
    return Refusal(
        SERVER_ERROR,
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check ollama server logs for details",
    )


def runner_failed(reason: str) -> Refusal:
    """Return what is said when the engine dies while it answers."""
    return Refusal(SERVER_ERROR, f"an error was encountered while running the model: {reason}")


def token_repeated() -> Refusal:
    """Return what is said when the model says the same token over and over."""
    return Refusal(SERVER_ERROR, "prediction aborted, token repeat limit reached")
