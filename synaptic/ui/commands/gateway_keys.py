"""``synaptic keys``: the keys of the gateway's clients."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from synaptic.runtime import USAGE_COLUMNS, Journal, timestamp
from synaptic.server.gateway import SCOPES, KeyFile
from synaptic.text import plural, when, written_duration
from synaptic.ui.commands.support import CliVoice, read_written
from synaptic.ui.options import json_option, with_options
from synaptic.ui.screen import write_json, write_table, write_text

if TYPE_CHECKING:
    from synaptic.runtime import UsageColumn, UsageSum
    from synaptic.server.gateway import ClientKey
    from synaptic.ui.options import Options

MOST_TOKENS = 1_000_000_000_000


@click.group("keys")
def keys() -> None:
    """Make, list and revoke the keys that 'synaptic serve' demands of its clients, once there is one.

    And show what its clients have used.
    """


@keys.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What it is for; repeatable. [models, pipelines]",
)
@click.option(
    "--models", metavar="PATTERN", multiple=True, help="What it may ask: qwen3:*, pipeline/*; repeatable. [everything]"
)
@click.option("--per-minute", type=click.IntRange(1, 1_000_000), help="Requests that it may make in a minute.")
@click.option("--tokens-a-day", type=click.IntRange(1, MOST_TOKENS), help="Tokens that it may use in a day of UTC.")
@click.option("--at-once", type=click.IntRange(1, 10_000), help="Requests that it may have under way.")
@json_option
@with_options
def add(options: Options, name: str, **bounds: Any) -> int:
    """Make a key and write it to standard output: it is shown this once, and kept as a hash."""
    key = KeyFile().add(name, **bounds)
    if options.json:
        write_json({"name": name, "key": key})
    else:
        write_text(key)
    return 0


@keys.command("list")
@json_option
@with_options
def list_keys(options: Options) -> int:
    """List them, revoked ones included."""
    found = KeyFile().all()
    if options.json:
        write_json([_facts(key) for key in found])
    elif found:
        rows = [
            (
                key.name,
                f"{key.shown}…",
                ", ".join(key.scopes),
                ", ".join(key.models) or "everything",
                str(key.per_minute or ""),
                str(key.at_once or ""),
                str(key.tokens_a_day or ""),
                when(key.created),
                "" if key.revoked is None else when(key.revoked),
            )
            for key in found
        ]
        write_table(("name", "key", "for", "may ask", "a minute", "at once", "tokens a day", "made", "revoked"), rows)
    else:
        write_text("there is no key yet: synaptic keys add NAME")
    return 0


@keys.command("revoke")
@click.argument("name")
def revoke(name: str) -> int:
    """Make a key useless, at once, also for a gateway that runs."""
    write_text(f"revoked {KeyFile().revoke(name).name}")
    return 0


@keys.command("usage")
@click.option("--since", metavar="AGE", help="Only calls that began since then: 2d, 12h, 30min.")
@click.option(
    "--by", type=click.Choice(USAGE_COLUMNS), multiple=True, help="What is added up by; repeatable. [key, model]"
)
@json_option
@with_options
def usage(options: Options, since: str | None, by: tuple[UsageColumn, ...]) -> int:
    """Show what clients have used: calls and tokens, added up by key and model or by what is named."""
    after = 0.0 if since is None else time.time() - read_written(written_duration, "--since", since)
    columns = tuple(dict.fromkeys(by)) or ("key", "model")
    with Journal() as journal:
        found, damaged = journal.usage(*columns, after=after), journal.damaged_calls(after=after)
    if damaged:
        CliVoice(options).warn(f"damaged in the record, and not counted: {plural(damaged, 'call')}")
    if options.json:
        write_json([{**used.group, **_counts(used)} for used in found])
    elif found:
        rows = [(*map(_shown, used.group.values()), *map(str, _counts(used).values())) for used in found]
        write_table((*columns, "calls", "prompt tokens", "completion tokens", "estimated tokens", "seconds"), rows)
    else:
        write_text("no call of a client is noted")
    return 0


def _counts(used: UsageSum) -> dict[str, float]:
    return {
        "calls": used.calls,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "estimated_tokens": used.estimated_tokens,
        "seconds": round(used.seconds, 3),
    }


def _shown(value: str | None) -> str:
    return "–" if value is None else value


def _facts(key: ClientKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "key": f"{key.shown}…",
        "scopes": list(key.scopes),
        "models": list(key.models),
        "per_minute": key.per_minute,
        "at_once": key.at_once,
        "tokens_a_day": key.tokens_a_day,
        "created": timestamp(key.created),
        "revoked": None if key.revoked is None else timestamp(key.revoked),
    }
