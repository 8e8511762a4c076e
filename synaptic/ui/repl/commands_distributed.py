"""Commands about models whose layers are spread over workers: ``/coordinator``, ``/rpc``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from synaptic.backends import capabilities_of
from synaptic.backends.distributed import WorkerRegistry, service
from synaptic.errors import BackendError, ExitCode
from synaptic.ui.actions import given_workers, named_workers, show_looks
from synaptic.ui.actions import workers as worker_actions
from synaptic.ui.repl.arguments import take_word
from synaptic.ui.repl.candidates import COORDINATOR_ACTIONS
from synaptic.ui.repl.watching import draw_while, watch_lines
from synaptic.ui.screen import (
    SHARE_HEADERS,
    LoadView,
    free_worker_row,
    glyphs,
    picture,
    record_lines,
    share_rows,
    terminal_width,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.backends import ShowsCoordinators
    from synaptic.backends.distributed import CoordinatorStatus
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call
    from synaptic.ui.screen import BarGlyphs

_FORMER_EDITS: Final = frozenset({"add", "remove", "discover"})
_NOTHING: Final = "–"


async def coordinator_command(repl: Repl, call: Call) -> None:
    """Show the coordinators of the session and of services, or start and end one."""
    action, rest = take_word(call.rest)
    if not action or action == "status":
        if rest:
            raise call.wrong(f"{rest!r} is one argument too many")
        await _show(repl)
        return
    if action not in COORDINATOR_ACTIONS:
        raise call.wrong(f"{action!r} is not understood")
    words = call.words(2)
    model = words[1] if len(words) > 1 else None
    backend = await _backend(repl)
    if action in {"stop", "restart"}:
        model = await _stop(repl, call, backend, model)
    if action in {"start", "restart"}:
        await _start(repl, call, backend, model)


async def rpc_command(repl: Repl, call: Call) -> None:
    """Show the workers, or check them."""
    action, rest = take_word(call.rest)
    if action in _FORMER_EDITS:
        raise call.wrong(f"the workers are in the settings: /set rpc_backends '[\"HOST:PORT\"]' instead of {action!r}")
    if action == "check":
        await _check(repl, call, rest)
        return
    if rest or action not in {"", "list"}:
        raise call.wrong(f"{action!r} is not understood")
    await _list_workers(repl)


async def _show(repl: Repl) -> None:
    backend = await _backend(repl)
    lines = _lines(repl, backend, terminal_width(repl.screen.out))
    if not lines:
        _say_what_to_do(repl)
    elif repl.screen.live:
        await watch_lines(repl.screen, lambda cells: _lines(repl, backend, cells))
    else:
        _say(repl, lines)


def _lines(repl: Repl, backend: ShowsCoordinators | None, width: int) -> list[str]:
    """Return the lines that show all coordinators: the session's, then those of services."""
    _, now, drawn_with = _how_drawn(repl)
    own = [] if backend is None else backend.coordinators()
    lines = [line for status in own for line in picture(status, width, now, drawn_with)]
    return lines + [line for record in service.read_records() for line in record_lines(record, width, now, drawn_with)]


async def _start(repl: Repl, call: Call, backend: ShowsCoordinators | None, model: str | None) -> None:
    """Load a model: in the session's backend, or else in a service."""
    wanted = model or repl.settings.model
    if not wanted:
        raise call.wrong("no model is named, here or in the settings")
    if backend is not None:
        repl.screen.note(f"loading {wanted} …")
        _say(repl, picture(await _loaded(repl, backend, wanted), *_how_drawn(repl)))
        return
    launched = service.launch(wanted, repl.settings)
    if launched.was_running:
        repl.screen.note(f"{launched.record.model} is loaded or being loaded already")
    view = LoadView(repl.screen.err)
    try:
        record = await service.follow(launched, view)
    finally:
        view.close()
    _say(repl, record_lines(record, *_how_drawn(repl)))
    repl.screen.note(f"it goes on when this program ends; /coordinator stop {record.model} ends it")
    if not repl.settings.distributed_inference_enabled:
        repl.screen.note("to use it here: /set distributed_inference_enabled true")


async def _loaded(repl: Repl, backend: ShowsCoordinators, model: str) -> CoordinatorStatus:
    """Load a model in the session's backend; its layers are drawn meanwhile, where a person watches."""
    if not repl.screen.live:
        return await backend.load(model)
    return await draw_while(repl.screen, lambda cells: _lines(repl, backend, cells), backend.load(model))


async def _stop(repl: Repl, call: Call, backend: ShowsCoordinators | None, model: str | None) -> str:
    """End the coordinator of a model, or the only one there is; return which."""
    own = [] if backend is None else [status.model for status in backend.coordinators()]
    records = service.read_records()
    names = list(dict.fromkeys((*own, *(record.model for record in records))))
    if not names:
        raise call.wrong("no model is spread over workers")
    if model is None and len(names) > 1:
        raise call.wrong(f"name one of {', '.join(names)}")
    chosen = names[0] if model is None else model
    if backend is not None and chosen in own:
        await backend.unload(chosen)
    elif (record := next((record for record in records if service.is_called(record, chosen)), None)) is not None:
        await service.stop(record)
    else:
        raise call.wrong(f"{chosen!r} is none of {', '.join(names)}")
    repl.screen.note(f"{chosen} is stopped")
    return chosen


async def _list_workers(repl: Repl) -> None:
    """Print the table of workers: those that have layers, then those of the settings that have none."""
    backend = await _backend(repl)
    statuses = [] if backend is None else backend.coordinators()
    statuses += [record.status for record in service.read_records() if record.status is not None]
    holders = WorkerRegistry().holders()
    rows = share_rows(statuses, holders)
    placed = {
        endpoint for status in statuses if status.placement is not None for endpoint in status.placement.endpoints
    }
    rows += [free_worker_row(endpoint, holders) for endpoint in named_workers(repl.settings) if endpoint not in placed]
    if rows:
        repl.screen.table(rows, SHARE_HEADERS)
    else:
        repl.screen.say("the settings name no workers, and no model is spread over any")
        repl.screen.note(
            """to name one: /set rpc_backends '["10.0.0.4:50052"]'; /coordinator start uses this machine"""
        )


async def _check(repl: Repl, call: Call, rest: str) -> None:
    """Ask workers how they are; a held one is not contacted."""
    words = rest.split()
    endpoints = given_workers(words) if words else named_workers(repl.settings)
    if not endpoints:
        raise call.wrong("the settings name no workers, and none is given")
    code = show_looks(repl.screen, *await worker_actions.check(endpoints, allowed=repl.settings.public_workers))
    if code is not ExitCode.ANSWERED:
        repl.last_exit = code


async def _backend(repl: Repl) -> ShowsCoordinators | None:
    """Return the session's backend, if it spreads models over workers."""
    try:
        await repl.sessions.ask_route(repl.settings)
    except BackendError as error:
        repl.screen.note(f"nothing can serve a call: {error.message}")
    backend = (await repl.session()).routed_backend
    return None if backend is None else capabilities_of(backend).coordinators


def _say(repl: Repl, lines: Iterable[str]) -> None:
    for line in lines:
        repl.screen.say(line)


def _how_drawn(repl: Repl) -> tuple[int, float, BarGlyphs]:
    """Return the width of the terminal in cells, the time, and what bars are drawn with."""
    return terminal_width(repl.screen.out), time.time(), glyphs(repl.screen.out)


def _say_what_to_do(repl: Repl) -> None:
    repl.screen.say("no model is spread over workers")
    model = repl.settings.model or "MODEL"
    repl.screen.note(f"to load one: /coordinator start {model}; what it would take: synaptic distributed plan {model}")
