"""Commands about the nodes that calls are spread over: ``/nodes``, ``/explain``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

from synaptic.backends import Capabilities, capabilities_of
from synaptic.backends.pool import addresses
from synaptic.errors import BackendError, ConfigError, ExitCode, UsageError
from synaptic.settings import settings_path, stored_nodes
from synaptic.ui.actions import check, mention_origin, show_statuses
from synaptic.ui.actions import nodes as node_actions
from synaptic.ui.commands import absolute, nodes
from synaptic.ui.repl.arguments import split_words, take_word
from synaptic.ui.repl.watching import watch_lines
from synaptic.ui.screen import CANDIDATE_HEADERS, candidate_rows, headline, persons_keyboard, status_lines

if TYPE_CHECKING:
    from typing import Any

    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_SHOWN_DECISIONS: Final = 3
_MOST_DECISIONS: Final = 1000


async def nodes_command(repl: Repl, call: Call) -> None:
    """Show the nodes of the session's pool, or do what ``synaptic nodes`` does."""
    if call.notice:
        repl.screen.note(call.notice)
    action, rest = take_word(call.rest)
    if not action:
        await _show(repl)
        return
    if action not in _ACTION_HANDLERS:
        raise call.wrong(f"{action!r} is not understood")
    values = _parsed(call, action, rest)
    if values is not None:
        await _ACTION_HANDLERS[action](repl, values)


async def explain_command(repl: Repl, call: Call) -> None:
    """Print the last decisions, the newest one last."""
    words = call.words(1)
    number = words[0] if words else str(_SHOWN_DECISIONS)
    if not number.isdecimal() or not 1 <= int(number) <= _MOST_DECISIONS:
        raise call.wrong(f"{number!r} is no number of calls")
    route = await repl.sessions.ask_route(repl.settings)
    pool = (await _capabilities(repl)).nodes
    if pool is None:
        where = " ".join(part for part in (route.backend, route.node) if part)
        repl.screen.say(f"there is nothing to choose: all calls go to {where} ({route.reason})")
        return
    decisions = pool.decisions()
    if not decisions:
        repl.screen.say("no call was sent to a node yet")
        return

    for index, decision in enumerate(decisions[-int(number) :]):
        if index:
            repl.screen.say()
        repl.screen.say(headline(decision), bold=True)
        if decision.candidates:
            repl.screen.table(candidate_rows(decision), CANDIDATE_HEADERS)


async def _show(repl: Repl) -> None:
    """Show how the nodes of the session stand; where there is no pool, what a look at the settings' nodes tells."""
    try:
        await repl.sessions.ask_route(repl.settings)
    except BackendError as exc:
        repl.screen.note(f"nothing can serve a call: {exc.message}")
    can = await _capabilities(repl)
    pool = can.nodes
    if pool is None:
        await check(repl.screen, repl.settings, (), os.environ)
        return
    if can.start is not None:
        await can.start()
    if repl.screen.live:
        await watch_lines(repl.screen, lambda cells: status_lines(pool.statuses(), cells))
    else:
        show_statuses(repl.screen, pool.statuses())


async def _list(repl: Repl, values: dict[str, Any]) -> None:
    if values["check"]:
        await node_actions.check(repl.screen, repl.settings, (), os.environ)
    else:
        await node_actions.show_settings(repl.screen, repl.loaded, os.environ)


async def _add(repl: Repl, values: dict[str, Any]) -> None:
    look = not values.pop("no_check")
    path = settings_path(repl.sources.config_path)
    added = await node_actions.add(repl.screen, path, absolute(values), os.environ, look=look)
    node_actions.mention_local(repl.screen, added, os.environ)
    _apply(repl)
    mention_origin(repl.screen, path, repl.loaded)


async def _remove(repl: Repl, values: dict[str, Any]) -> None:
    path = settings_path(repl.sources.config_path)
    try:
        node_actions.remove(repl.screen, path, values["which"])
        _apply(repl)
    finally:
        mention_origin(repl.screen, path, repl.loaded)


async def _check(repl: Repl, values: dict[str, Any]) -> None:
    _, code = await check(repl.screen, repl.settings, values["which"], os.environ)
    if code is not ExitCode.ANSWERED:
        repl.last_exit = code


async def _discover(repl: Repl, values: dict[str, Any]) -> None:
    found_in, port = addresses(values["cidr"]), values["port"]
    path = settings_path(repl.sources.config_path)
    known = stored_nodes(path)
    repl.screen.note(node_actions.announcement(found_in, port))
    if not values["yes"] and not await _agreed(repl):
        repl.screen.note("nothing was contacted")
        return
    found = await node_actions.discover(found_in, port, os.environ, lambda _: None)
    node_actions.show_found(repl.screen, found, known)
    if not found:
        repl.screen.note(f"no Ollama answers at port {port} in {found_in}")
    elif values["wants_add"]:
        node_actions.add_found(repl.screen, path, [node for node, _ in found])
        _apply(repl)
        mention_origin(repl.screen, path, repl.loaded)
    else:
        repl.screen.note(f"to use one: /nodes add {found[0][0].url}; for all of them, the same command with --add")


_ACTION_HANDLERS: Final = {"list": _list, "add": _add, "remove": _remove, "check": _check, "discover": _discover}


async def _capabilities(repl: Repl) -> Capabilities:
    """Return what the backend of the session can do; nothing before it was chosen."""
    backend = (await repl.session()).routed_backend
    return Capabilities() if backend is None else capabilities_of(backend)


async def _agreed(repl: Repl) -> bool:
    """Ask the person at the terminal.

    Raises:
        UsageError: If there is none.
    """
    keyboard = persons_keyboard()
    if keyboard is None:
        raise UsageError("there is no terminal to ask at", hint="add --yes")
    with keyboard.ready():
        repl.screen.note("Contact them? [y/N]")
        line = await keyboard.line()
    return line is not None and line.strip().lower() in {"y", "yes"}


def _parsed(call: Call, action: str, rest: str) -> dict[str, Any] | None:
    """Return the arguments of an action, read by the command line's own rules; ``None`` if help was asked for.

    Raises:
        UsageError: If they are wrong.
    """
    try:
        with nodes.commands[action].make_context(f"/nodes {action}", split_words(rest)) as context:
            values = dict(context.params)
    except click.ClickException as exc:
        message = exc.format_message().rstrip(".")
        raise call.wrong(message[:1].lower() + message[1:]) from exc
    except click.exceptions.Exit:  # of --help, which has been shown
        return None
    for option, name in (("--config", "config"), ("--set", "overrides"), ("--json", "json")):
        if values.pop(name, None):
            raise call.wrong(f"{option} is for the command line: synaptic nodes {action}")
    return values


def _apply(repl: Repl) -> None:
    """Let a changed file apply at once; what was set to ``nodes`` since the start makes way for it."""
    try:
        repl.use(repl.sources.without_change("nodes"))
    except ConfigError as exc:
        repl.fail(exc)
