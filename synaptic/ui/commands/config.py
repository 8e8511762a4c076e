"""``synaptic config``: what the settings are, where they come from, and changing them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import click

from synaptic.errors import UsageError
from synaptic.settings import WHERE_LISTED, describe, set_value, settings_path, unset_value
from synaptic.settings import migrate as migrate_file
from synaptic.text import did_you_mean
from synaptic.ui.actions import doubtful_inputs, leading_nowhere, refuse_unknown
from synaptic.ui.commands.support import CliVoice, load_with_notices, mention_origin, note
from synaptic.ui.options import config_option, json_option, settings_options, with_options
from synaptic.ui.screen import write_json, write_table, write_text

if TYPE_CHECKING:
    from synaptic.ui.options import Options

_NEGATIVE: Final = re.compile(r"-[0-9][0-9.]*[a-z]*")


@click.group()
def config() -> None:
    """Show, change and check the settings.

    A flag goes before --set, that before SYNAPTIC_* variables, ./synapticllamas.json, ~/.synapticllamas.json and
    the default.
    """


@config.command()
@click.argument("key", required=False)
@settings_options
@json_option
@with_options
def show(options: Options, key: str | None) -> None:
    """Print every setting, or the one called KEY: its value and where that came from."""
    rows = describe(load_with_notices(options))
    if key is not None:
        names = [name for name, _, _ in rows]
        if key not in names:
            raise UsageError(f"unknown setting {key!r}", hint=did_you_mean(key, names, listing=WHERE_LISTED))
        rows = [row for row in rows if row[0] == key]
    if options.json:
        write_json({key: {"value": value, "origin": origin} for key, value, origin in rows})
    else:
        texts = [(key, origin, json.dumps(value, ensure_ascii=False)) for key, value, origin in rows]
        write_table(("setting", "origin", "value"), texts)


@config.command()
@config_option
@with_options
def path(options: Options) -> None:
    """Print the path of the settings file."""
    write_text(str(settings_path(options.config_path)))


class _TakesNegative(click.Command):
    """A command whose value may be a number below zero, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move such a number behind ``--``."""
        number = next((word for word in args if _NEGATIVE.fullmatch(word)), None)
        if number is not None and "--" not in args:
            args = [*(word for word in args if word != number), "--", number]
        return super().parse_args(ctx, args)


@config.command("set", cls=_TakesNegative, epilog="As in: synaptic config set model llama3.1:8b")
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="VALUE", required=False)
@config_option
@with_options
def set_(options: Options, key: str, value: str | None) -> None:
    """Write one setting into the settings file; every other key stays as it is. KEY=VALUE is understood, too."""
    file = settings_path(options.config_path)
    if value is None:
        key, sign, value = key.partition("=")
        if not sign:
            message = f"config set {key}: it needs a value, too"
            raise UsageError(message, hint=f"write {click.get_current_context().command_path} {key} VALUE")
    refuse_unknown(key, value)
    set_value(file, key, value)
    note(options, f"{file}: {key} is set")
    mention_origin(options, file, key.partition(".")[0])


@config.command()
@click.argument("key")
@config_option
@with_options
def unset(options: Options, key: str) -> None:
    """Remove one setting from the settings file, so that its default counts again."""
    file = settings_path(options.config_path)
    removed = unset_value(file, key)
    note(options, f"{file}: {key} {'is removed' if removed else 'was not set'}")


@config.command()
@settings_options
@with_options
def validate(options: Options) -> None:
    """Check every source of settings; a mistake is named with its file and line."""
    loaded = load_with_notices(options)
    if problems := leading_nowhere(loaded):
        raise UsageError.of(problems)
    for line in doubtful_inputs(loaded.settings):
        CliVoice(options).warn(line)
    count = sum(origin != "default" for origin in loaded.origins.values())
    differ = "1 setting differs" if count == 1 else f"{count} settings differ"
    write_text(f"ok ({differ} from the default)" if count else "ok (all defaults)")


@config.command()
@config_option
@with_options
def migrate(options: Options) -> None:
    """Write the settings file of the older program in today's form, beside a backup."""
    for line in migrate_file(settings_path(options.config_path)).lines():
        write_text(line)
