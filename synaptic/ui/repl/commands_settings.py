"""Commands that show and change settings: ``/model``, ``/pipeline``, ``/set``, ``/config``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import BackendError, SynapticError, UsageError
from synaptic.models import did_you_mean_model, has_model
from synaptic.pipeline import Pipeline, builtin_pipelines
from synaptic.settings import decode_setting, describe, set_value, settings_path
from synaptic.ui.actions import doubts_about, refuse_unknown, show_models
from synaptic.ui.repl.arguments import quoted, take_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.messages import ModelInfo
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_CURRENT: Final = "*"
_OTHER: Final = " "


async def model_command(repl: Repl, call: Call) -> None:
    """Show the models, or set the one that is used."""
    words = call.words(1)
    if not words:
        await _show_models(repl)
        return
    if decode_setting("model", words[0]) is not None:
        await _check_model(repl, words[0])
    repl.change("model", words[0])
    repl.screen.note(f"model: {_model_name(repl)}{_how_to_keep('model', words[0])}")


async def pipeline_command(repl: Repl, call: Call) -> None:
    """Show the pipelines, or set the one that answers questions."""
    words = call.words(1)
    if words:
        await _refuse_unknown(repl, "pipeline", words[0])
        repl.change("pipeline", words[0])
        repl.screen.note(f"pipeline: {words[0]}{_how_to_keep('pipeline', words[0])}")
        return
    current = repl.settings.pipeline
    if current is None:
        with contextlib.suppress(SynapticError):
            await repl.sessions.ask_route(repl.settings)
        current = repl.pipeline_name
    rows = [
        (_mark(name, current), name, Pipeline.load(path).spec.description) for name, path in builtin_pipelines().items()
    ]
    if current and current not in builtin_pipelines():
        rows.append((_CURRENT, current, Pipeline.find(current).spec.description))
    repl.screen.table(rows, ("", "pipeline", "description"))


async def set_command(repl: Repl, call: Call) -> None:
    """Change a setting for as long as the program runs."""
    key, raw = take_assignment(call.rest)
    if not key or not raw:
        raise call.wrong("it needs a setting and a value")
    await _refuse_unknown(repl, key, raw)
    repl.change(key, raw)
    shown = {name: _shown(value) for name, value, _ in describe(repl.loaded)}
    name = key.partition(".")[0]
    repl.screen.note(f"{name}: {shown.get(name, raw)}{_how_to_keep(key, raw)}")


async def config_command(repl: Repl, call: Call) -> None:
    """Show the settings, name the file, or write to it."""
    action, rest = take_word(call.rest)
    if action == "set":
        await _keep(repl, call, rest)
        return
    if rest or action not in {"", "show", "path"}:
        raise call.wrong(f"{call.rest!r} is not understood")
    if action == "path":
        repl.screen.say(str(settings_path(repl.sources.config_path)))
        return
    repl.screen.table(
        [(name, origin, _shown(value)) for name, value, origin in describe(repl.loaded)], ("setting", "origin", "value")
    )


def take_assignment(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY VALUE`` or ``KEY=VALUE``; quotes around a whole value are taken off."""
    key, rest = take_word(text)
    name, equals, value = key.partition("=")
    if equals:
        return name, text.partition("=")[2].strip() if rest else value
    rest = rest.removeprefix("=").strip()
    word, more = take_word(rest)
    return key, rest if more else word


async def _keep(repl: Repl, call: Call, rest: str) -> None:
    key, raw = take_assignment(rest)
    if not key or not raw:
        raise call.wrong("'set' needs a setting and a value")
    path = settings_path(repl.sources.config_path)
    await _refuse_unknown(repl, key, raw)
    set_value(path, key, raw)
    repl.use(repl.sources.without_change(key))
    repl.screen.note(f"{key} is kept in {path}")
    name = key.partition(".")[0]
    origin = repl.loaded.origins.get(name, "")
    if not origin.startswith(str(path)):
        repl.screen.warn(f"{name} comes from {origin} now, which goes before the file")


async def _show_models(repl: Repl) -> None:
    models = await repl.models()
    route = await repl.sessions.ask_route(repl.settings)
    current = repl.settings.model or route.model
    if models:
        doubts = await asyncio.to_thread(doubts_about, models, route, repl.settings)
        show_models(repl.screen, models, current, doubts)
    else:
        repl.screen.say(f"{route.backend} names no models")
    repl.screen.note(f"{route.backend}: {route.reason}")


async def _check_model(repl: Repl, name: str) -> None:
    """Refuse a name that the backend surely does not know: every question would fail by it.

    Raises:
        UsageError: If the backend names its models and this is none of them.
    """
    try:
        models: Sequence[ModelInfo] = await repl.models()
    except BackendError:
        return
    known = [model.name for model in models]
    if not known or has_model(models, name):
        return
    meant = did_you_mean_model(name, known) or f"known: {', '.join(known)}."
    raise UsageError(f"the backend has no model {name!r}", hint=f"{meant} To set it all the same: /set model {name}")


async def _refuse_unknown(repl: Repl, key: str, raw: str) -> None:
    """Refuse what :func:`refuse_unknown` does, and a pipeline that could not run: every question would say so.

    Raises:
        UsageError: With every mistake.
    """
    if key == "pipeline" and decode_setting(key, raw) is not None:
        (await repl.sessions.get(repl.settings)).check(raw)
    else:
        refuse_unknown(key, raw)


def _mark(name: str, current: str | None) -> str:
    return _CURRENT if current == name else _OTHER


def _model_name(repl: Repl) -> str:
    return repl.settings.model or "what the backend chooses"


def _how_to_keep(key: str, raw: str) -> str:
    return f"   (until you leave; to keep it: /config set {key} {quoted(raw)})"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
