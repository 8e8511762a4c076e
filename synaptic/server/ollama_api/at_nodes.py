"""One change of models, done at several nodes at once and told as one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.errors import BackendError, BackendUnavailable, ModelNotFound, StreamFailed, Trouble
from synaptic.server.gateway import BAD_GATEWAY, BAD_REQUEST, SERVER_ERROR, Refusal, http_failure, merged
from synaptic.server.ollama_api.merged_progress import SUCCESS, MergedProgress
from synaptic.server.ollama_api.model_changes import NODE_HEADER
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from synaptic.backends import ModelServer
    from synaptic.server.ollama_api.model_changes import ModelChange
    from synaptic.server.ollama_api.replies import Json

QUIET_SECONDS: Final = 60.0
"""How long a change may take that tells nothing meanwhile: a name is given or taken away."""

_DONE: Final[Json] = {"status": SUCCESS}


def meant(servers: Sequence[ModelServer], node: str | None, *, only: str = "") -> list[ModelServer]:
    """Return the servers that a request is for.

    Args:
        servers: All there are.
        node: The name or the address of one; ``None`` for all.
        only: What is for one alone: it must be named where there are several.

    Raises:
        Refusal: If there is none of that name, or one should have been named.
    """
    known = ", ".join(server.shown for server in servers)
    if node is not None:
        found = [server for server in servers if node.rstrip("/") in {server.shown, server.node}]
        if not found:
            raise Refusal(BAD_REQUEST, f"{NODE_HEADER}: there is no node {excerpt(node)!r}; there are {known}")
        return found[:1]
    if only and len(servers) > 1:
        raise Refusal(BAD_REQUEST, f"{only} is for one node: name it in a header {NODE_HEADER}; there are {known}")
    return list(servers)


async def change_at(servers: Sequence[ModelServer], wanted: ModelChange) -> AsyncGenerator[Json, None]:
    """Yield the progress of a change at each of some nodes; ends with ``success`` where it tells at all.

    One that fails does not keep the others from it; it is told at the end, by name.

    Raises:
        Refusal: If it is not done everywhere. A copy or a deletion is, once every node that had the model did it.
    """
    failures: dict[int, BackendError] = {}
    progress = MergedProgress(range(len(servers)))
    async with aclosing(merged([_told_by(server, wanted) for server in servers])) as told:
        async for number, news in told:
            if isinstance(news, dict):
                lines = progress.take(number, news)
            elif news.error is None:
                lines = progress.done(number)
            else:
                failures[number] = news.error
                lines = progress.failed(number)
            for line in lines if wanted.tells else ():
                yield line
    _check(servers, failures, wanted)
    if wanted.tells:
        yield _DONE


class _End(NamedTuple):
    """Of a change at one node; ``error`` is why it gave up."""

    error: BackendError | None


async def _told_by(server: ModelServer, wanted: ModelChange) -> AsyncGenerator[Json | _End, None]:
    """Yield what a server tells, and at last how it ended."""
    end: BackendError | None = None
    try:
        lines = server.change(wanted.method, wanted.path, wanted.body)
        async with aclosing(lines):
            if wanted.tells:
                async for line in lines:
                    yield line
            else:
                await _heard(lines, server)
    except BackendError as error:
        end = error
    yield _End(end)


async def _heard(lines: AsyncGenerator[Json, None], server: ModelServer) -> None:
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            async for _ in lines:
                pass
    except TimeoutError as error:
        text = f"{server.node} did not answer in {QUIET_SECONDS:g} s"
        raise BackendUnavailable(text, node=server.node) from error


def _check(servers: Sequence[ModelServer], failures: Mapping[int, BackendError], wanted: ModelChange) -> None:
    """Raise what is said of a change that was not done everywhere."""
    done = [server.shown for number, server in enumerate(servers) if number not in failures]
    missing = [number for number, error in failures.items() if isinstance(error, ModelNotFound)]
    if len(missing) == len(servers):
        raise wanted.not_found() from failures[0]
    if not wanted.tells and done:
        failures = {number: error for number, error in failures.items() if number not in missing}
    if not failures:
        return
    statuses = {_status_of(error) for error in failures.values()}
    first = next(iter(failures.values()))
    if len(servers) == 1:
        raise Refusal(statuses.pop(), _said(first)) from first
    reasons = "; ".join(f"not on {servers[number].shown}: {_said(error)}" for number, error in failures.items())
    where = f"done on {', '.join(done)}; " if done else ""
    status = statuses.pop() if len(statuses) == 1 and not done else BAD_GATEWAY
    raise Refusal(status, f"{wanted.action} {excerpt(wanted.models[0])}: {where}{reasons}") from first


@contextmanager
def refused() -> Iterator[None]:
    """Raise what goes wrong at a node as the refusal that a client is told."""
    try:
        yield
    except BackendError as error:
        raise Refusal(_status_of(error), _said(error)) from error


def _status_of(error: BackendError) -> int:
    if error.trouble is Trouble.NO_API:
        return BAD_GATEWAY  # it is no Ollama, or too old: no fault of the request
    return SERVER_ERROR if isinstance(error, StreamFailed) else http_failure(error).status


def _said(error: BackendError) -> str:
    return http_failure(error).message
