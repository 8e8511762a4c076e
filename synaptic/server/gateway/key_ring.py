"""Who asks, by the key that a request brings; and what that key may: which models, how often, how much at once."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from synaptic.errors import UsageError
from synaptic.server.gateway.pipeline_models import PipelineModels
from synaptic.server.gateway.refusal import BUSY, FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Refusal
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.server.gateway.client_keys import ClientKey, KeyFile, Scope

MINUTE: Final = 60.0
_ASKING: ContextVar[ClientKey | None] = ContextVar("asking", default=None)
"""The key of the request that this task answers; ``None`` where none is demanded."""

_KNOWN_BY: ContextVar[KeyFile | None] = ContextVar("known by", default=None)
"""The file that has it."""

log = logging.getLogger(__name__)


class KeyRing:
    """Lets requests in by their keys.

    Args:
        file: The keys that are known.
    """

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._times: dict[str, deque[float]] = {}
        self._under_way: Counter[str] = Counter()
        self._said = ""

    @contextmanager
    def let_in(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Let a request in for the time of the block.

        Raises:
            Refusal: If it brings no key, an unknown one, or one that has asked too much; or if keys cannot be told.
        """
        try:
            key = self._file.find(key_in(headers))
        except UsageError as error:  # its words are for who runs the gateway: anybody may ask without a key
            if error.message != self._said:
                log.warning("%s; nobody is let in until then; %s", error.message, error.hint)
            self._said = error.message
            raise Refusal(
                UNAVAILABLE, "the keys cannot be read here now: the gateway's log says why", retry_after=5
            ) from error
        self._said = ""
        if key is None:
            said = "this key is not known here" if key_in(headers) else "a key is needed"
            raise Refusal(
                UNAUTHORISED, f"{said}: send Authorization: Bearer KEY, or x-api-key; synaptic keys add makes one"
            )
        self._count(key)
        if key.at_once is not None and self._under_way[key.digest] >= key.at_once:
            raise Refusal(BUSY, f"the key {key.name!r} has {key.at_once} requests under way", retry_after=1)
        self._under_way[key.digest] += 1
        token, known_by = _ASKING.set(key), _KNOWN_BY.set(self._file)
        try:
            yield
        finally:
            _KNOWN_BY.reset(known_by)
            _ASKING.reset(token)
            self._under_way[key.digest] -= 1

    def _count(self, key: ClientKey) -> None:
        if key.per_minute is None:
            return
        now, times = time.monotonic(), self._times.setdefault(key.digest, deque())
        while times and times[0] <= now - MINUTE:
            times.popleft()
        if len(times) >= key.per_minute:
            wait = max(1, round(times[0] + MINUTE - now))
            raise Refusal(BUSY, f"the key {key.name!r} may ask {key.per_minute} times a minute", retry_after=wait)
        times.append(now)


def key_in(headers: Mapping[str, str]) -> str:
    """Return the key that a request brings, in any of the ways of the dialects; "" where it brings none."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip()


def key_asking() -> ClientKey | None:
    """Return the key of this request; ``None`` where none is demanded."""
    return _ASKING.get()


def asking_id() -> str:
    """Return what tells the key of this request from all others, later ones of its name included; "" without one."""
    key = _ASKING.get()
    return "" if key is None else key.digest


def still_let_in() -> bool:
    """Return whether a request that goes on for long would be let in again: its key may have been revoked."""
    key, file = _ASKING.get(), _KNOWN_BY.get()
    try:
        return key is None or file is None or file.knows(key)
    except UsageError:
        return False


def check_scope(scope: Scope) -> None:
    """Refuse a request whose key is not for that. Where no keys are demanded, every request may.

    Raises:
        Refusal: If it is not.
    """
    key = _ASKING.get()
    if key is not None and scope not in key.scopes:
        has = ", ".join(key.scopes)
        raise Refusal(FORBIDDEN, f"the key {key.name!r} is for {has}; this needs one made with --scope {scope}")


def check_model(model: str | None) -> None:
    """Refuse a model or a pipeline that the key of this request may not ask.

    Raises:
        Refusal: If it may not.
    """
    check_scope(_scope_of(model))
    _check_patterns("ask", model or "")


def check_managed(*models: str) -> None:
    """Refuse to change models that the patterns of this request's key leave out.

    Raises:
        Refusal: If one of them is.
    """
    _check_patterns("change", *models)


def _check_patterns(verb: str, *models: str) -> None:
    key = _ASKING.get()
    for model in models:
        if key is not None and not key.may_ask(model):
            raise Refusal(FORBIDDEN, f"the key {key.name!r} may not {verb} {excerpt(model or 'a model')!r}")


def may_see(model: str) -> bool:
    """Return whether the key of this request may ask a model, and so is shown it."""
    key = _ASKING.get()
    return key is None or (_scope_of(model) in key.scopes and key.may_ask(model))


def _scope_of(model: str | None) -> Scope:
    return "pipelines" if PipelineModels.has(model) else "models"
