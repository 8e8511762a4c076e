"""``synaptic distributed plan``: which worker would hold which layers of a model, before anything is started."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

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
from synaptic.shared_bounds import LONGEST_CONTEXT
from synaptic.text import did_you_mean
from synaptic.ui.actions import machine_endpoints
from synaptic.ui.commands.support import load, named_model, note, progress
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import (
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
    from synaptic.messages import Reporter
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

_EPILOG = """\b
As in:
  synaptic distributed plan llama3.1:70b
  synaptic distributed plan ~/models/big.gguf --context 8192 --slots 2
  synaptic distributed plan llama3.1:70b --layers 10.0.0.4:50052=20
  synaptic distributed plan llama3.1:70b --measure --json

\b
MODEL is a tag of Ollama's or the path of a GGUF file; without it, the setting model.
Nothing is loaded. Workers that no coordinator holds are asked what they are; those of machines
(synaptic machines list) run for as long as that takes. What --layers says is tried here only; to
have it so: write "layers" beside the worker in rpc_backends.

\b
Exit codes: 0 it fits, 2 wrong usage or settings, 3 it does not fit, or cannot be read."""


@click.command(epilog=_EPILOG, short_help="Show how a model would be spread; nothing is started.")
@click.argument("model", required=False, metavar="[MODEL|GGUF]")
@click.option(
    "--context",
    "tokens",
    type=click.IntRange(256, LONGEST_CONTEXT),
    help="Tokens of one call, prompt and reply together.",
)
@click.option("--slots", type=click.IntRange(1, 64), help="Calls at once.")
@click.option(
    "--layers",
    "orders",
    metavar="HOST:PORT=N",
    multiple=True,
    help="Layers that a worker, or a machine by its name, is to have, 0 for none; repeatable.",
)
@click.option("--measure", is_flag=True, help="Measure workers that never were; some seconds each.")
@settings_options
@json_option
@with_options
def plan(
    options: Options,
    model: str | None,
    *,
    tokens: int | None,
    slots: int | None,
    orders: tuple[str, ...],
    measure: bool,
) -> None:
    """Show which worker would hold which layers of MODEL, how fast that would be, and why; nothing is started."""
    settings = load(options).settings
    name = named_model(model, settings, "distributed plan")
    machines = machine_endpoints()
    ordered = parse_orders(orders, machines)

    async def run() -> Placement:
        shape = await unblocked(settings, open_model(name))
        wanted = serving_needs(shape, settings, context=tokens, slots=slots)
        with progress(options) as report:
            offers, unreached = await _offers(settings, report, measure=measure)
        return await asyncio.to_thread(place, shape, with_orders(offers, ordered), wanted, unreached=unreached)

    placement = asyncio.run(run())
    if options.json:
        write_json(placement_document(placement))
    else:
        _show(placement)
        offered = {str(verdict.endpoint) for verdict in placement.verdicts}
        for machine, endpoint in machines.items():
            if str(endpoint) in offered:
                note(options, f"{endpoint} is the machine {machine}")


def parse_orders(words: Sequence[str], machines: Mapping[str, Endpoint] | None = None) -> dict[WorkerName, int]:
    """Return how many layers each worker is to have.

    Args:
        words: As a person wrote them.
        machines: Where the workers of machines are, by the machines' names, which may stand for them.

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
            endpoint = (machines or {}).get(address) or Endpoint.parse(address)
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


async def _offers(settings: Settings, report: Reporter, *, measure: bool) -> tuple[list[Offer], list[str]]:
    """Return what there is to place layers on: the workers of the settings and of machines, and those to be started.

    The second list says why further machines are not reached.
    """
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
    elsewhere = workers.Elsewhere(report)
    try:
        await elsewhere.start(settings, engine)
        joined = elsewhere.joined_to(settings)
        offers = await workers.gather_offers(joined, engine, measure=measure, planned_local=count)
        return offers, elsewhere.unreached()
    finally:
        await elsewhere.aclose()


def _show(placement: Placement) -> None:
    for line in placement_lines(placement, terminal_width(sys.stdout), glyphs(sys.stdout)):
        write_text(line)
