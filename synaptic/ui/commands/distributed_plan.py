"""``synaptic distributed plan``: which worker would hold which layers of a model, before anything is started."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from synaptic.backends.distributed import (
    Endpoint,
    PlannedWorker,
    current_engine,
    place,
    serving_needs,
    unblocked,
    workers,
)
from synaptic.errors import ConfigError, UsageError
from synaptic.messages import ignore_report
from synaptic.models import open_model
from synaptic.text import did_you_mean
from synaptic.ui.commands.support import load, named_model
from synaptic.ui.options import given, json_option, settings_options
from synaptic.ui.screen import (
    ascii_only,
    glyphs,
    placement_document,
    placement_lines,
    terminal_width,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.backends.distributed import Offer, Placement, WorkerName
    from synaptic.settings import Settings

_EPILOG = """\b
As in:
  synaptic distributed plan llama3.1:70b
  synaptic distributed plan ~/models/big.gguf --context 8192 --slots 2
  synaptic distributed plan llama3.1:70b --layers 10.0.0.4:50052=20
  synaptic distributed plan llama3.1:70b --measure --json

\b
MODEL is a tag of Ollama's or the path of a GGUF file; without it, the setting model.
Nothing is loaded. Workers that no coordinator holds are asked what they are. What --layers says
is tried here only; to have it so: write "layers" beside the worker in rpc_backends.

\b
Exit codes: 0 it fits, 2 wrong usage or settings, 3 it does not fit, or cannot be read."""


@click.command(epilog=_EPILOG, short_help="Show how a model would be spread; nothing is started.")
@click.argument("model", required=False, metavar="[MODEL|GGUF]")
@click.option("--context", "tokens", type=click.IntRange(256), help="Tokens of one call, prompt and reply together.")
@click.option("--slots", type=click.IntRange(1, 64), help="Calls at once.")
@click.option(
    "--layers",
    "orders",
    metavar="HOST:PORT=N",
    multiple=True,
    help="Layers that a worker is to have, 0 for none; repeatable.",
)
@click.option("--measure", is_flag=True, help="Measure workers that never were; some seconds each.")
@settings_options
@json_option
@click.pass_context
def plan(
    context: click.Context,
    /,
    model: str | None,
    *,
    tokens: int | None,
    slots: int | None,
    orders: tuple[str, ...],
    measure: bool,
    **values: Any,
) -> None:
    """Show which worker would hold which layers of MODEL, how fast that would be, and why; nothing is started."""
    options = given(context, **values)
    settings = load(options).settings
    name = named_model(model, settings, "distributed plan")
    ordered = parse_orders(orders)

    async def run() -> Placement:
        shape = await unblocked(settings, open_model(name))
        wanted = serving_needs(shape, settings, context=tokens, slots=slots)
        offers = with_orders(await _offers(settings, measure=measure), ordered)
        return await asyncio.to_thread(place, shape, offers, wanted)

    placement = asyncio.run(run())
    if options.json:
        write_json(placement_document(placement))
    else:
        _show(placement)


def parse_orders(words: Sequence[str]) -> dict[WorkerName, int]:
    """Return how many layers each worker is to have.

    Raises:
        UsageError: If one of the words is not ``HOST:PORT=N``, or a worker stands there twice.

    """
    found: dict[WorkerName, int] = {}
    for word in words:
        address, equals, number = word.rpartition("=")
        if not equals or not (number.isascii() and number.isdigit()):
            raise UsageError(
                f"--layers {word!r} is not HOST:PORT=N", hint="as in: --layers 10.0.0.4:50052=20, 0 for no layers"
            )
        try:
            endpoint = Endpoint.parse(address)
        except ConfigError as error:
            raise UsageError(f"--layers {word!r}: {address!r} {error.message}", hint=error.hint) from error
        if endpoint in found:
            raise UsageError(f"--layers names {endpoint} twice", hint="keep one of them")
        found[endpoint] = int(number)
    return found


def with_orders(offers: Sequence[Offer], orders: Mapping[WorkerName, int]) -> list[Offer]:
    """Return the offers with the orders in them, instead of those of the settings.

    An order is for a worker: the first of its devices takes the layers and the others none.

    Raises:
        UsageError: If an order is for a worker that there is not.

    """
    names = sorted({str(offer.endpoint) for offer in offers if not isinstance(offer.endpoint, PlannedWorker)})
    for endpoint in orders:
        if str(endpoint) not in names:
            hint = did_you_mean(str(endpoint), names) if names else "name it in rpc_backends first"
            raise UsageError(f"--layers: the settings name no worker {endpoint}", hint=hint)
    firsts = {endpoint: min(offer.device for offer in offers if offer.endpoint == endpoint) for endpoint in orders}
    return [
        offer
        if offer.endpoint not in orders
        else replace(offer, layers=orders[offer.endpoint] if offer.device == firsts[offer.endpoint] else 0)
        for offer in offers
    ]


async def _offers(settings: Settings, *, measure: bool) -> list[Offer]:
    """Return what there is to place layers on: the workers of the settings, and those that would be started here."""
    engine = await current_engine()
    count = workers.local_worker_count(settings)
    if measure and count:
        # All of them are alike: one is started for the time of its measurement, which is kept.
        own, *_ = workers.local_workers(settings, engine, report=ignore_report)
        try:
            await own.start()
            await workers.gather_offers(settings.model_copy(update={"rpc_backends": []}), engine, [own], measure=True)
        finally:
            await own.stop()
    return await workers.gather_offers(settings, engine, measure=measure, planned_local=count)


def _show(placement: Placement) -> None:
    for line in placement_lines(placement, terminal_width(sys.stdout), glyphs(ascii_only(sys.stdout))):
        write_text(line)
