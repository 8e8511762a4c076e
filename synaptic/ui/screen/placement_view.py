"""How a placement is shown: a bar of the layers, what each worker holds, what is predicted, and why. Pure functions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from synaptic.backends.distributed import PlannedWorker, device_name, kept_bytes
from synaptic.text import gib, one_line, plural, rough_seconds
from synaptic.ui.screen.coordinator_view import UNICODE, BarGlyphs, Segment, layer_bar, layer_span
from synaptic.ui.screen.output import table_lines

if TYPE_CHECKING:
    from synaptic.backends.distributed import Placement, Share

_NAME_CELLS = 60
_INDENT = "  "
_MILLISECONDS = 1000


def placement_lines(placement: Placement, width: int, glyphs: BarGlyphs = UNICODE) -> list[str]:
    """Return the lines that show a placement.

    Args:
        placement: What to show.
        width: Of the terminal, in cells; the bar is no wider, and lines are not broken.
        glyphs: What the bar is drawn with.
    """
    lines = [headline(placement)]
    if bar := layer_bar(segments(placement), width - len(_INDENT), glyphs):
        lines += [f"{_INDENT}{bar}"]
    lines += [f"{_INDENT}{line}" for line in share_rows(placement)]
    lines += [f"{_INDENT}coordinator: {coordinator_words(placement)}", f"{_INDENT}predicted: {predicted(placement)}"]
    return [*lines, "workers:", *(f"{_INDENT}{line}" for line in verdict_rows(placement))]


def headline(placement: Placement) -> str:
    """Return ``llama3.1:70b: 80 layers, 39.6 GiB of Q4_K_M, for 4 calls at once of 8192 tokens``."""
    shape, needs = placement.shape, placement.needs
    name = shape.file.name if shape.name.endswith(".gguf") else shape.name
    return (
        f"{one_line(name, _NAME_CELLS)}: {plural(len(shape.layers), 'layer')}, {gib(shape.weight_bytes)} of "
        f"{shape.quantization}, for {plural(needs.slots, 'call')} at once of {needs.context} tokens"
    )


def segments(placement: Placement) -> list[Segment]:
    """Return the parts of the bar: one a share, as wide as it has layers."""
    return [
        Segment(max(share.layers, 1), 1.0, lost=False, labels=_labels(number, share))
        for number, share in enumerate(placement.shares, start=1)
    ]


def share_rows(placement: Placement) -> list[str]:
    """Return a line a share: who, which layers, how many bytes of what, how long a token is there."""
    rows = [
        (
            str(number),
            _name(share),
            held(share),
            _memory_words(share),
            f"{share.seconds_per_token * _MILLISECONDS:.3g} ms a token",
        )
        for number, share in enumerate(placement.shares, start=1)
    ]
    return table_lines((), rows)


def held(share: Share) -> str:
    """Return ``layers 0-39 + output``; an asterisk where a person chose the number."""
    word = "layers " if share.layers > 1 else "layer " if share.layers else ""
    return f"{word}{layer_span(share)}" + (" (as ordered)" if share.overridden else "")


def coordinator_words(placement: Placement) -> str:
    """Return what the coordinator will hold, and what of the model is in that."""
    embeddings, output = not placement.shares[0].embeddings, placement.output_here
    kept = kept_bytes(placement.shape, embeddings=embeddings, output=output)
    names = [*(["token embeddings"] if embeddings else []), *(["output"] if output else [])]
    of_model = f"{gib(kept)} of the model, its {' and '.join(names)}" if names else "no weights"
    why = "; the way back is too slow for logits" if output else ""
    return f"{gib(placement.coordinator_bytes)} on this machine, with {of_model}{why}"


def predicted(placement: Placement) -> str:
    """Return the predicted speed and load time, or what has to be done to know them."""
    if placement.tokens_per_second is None or placement.load_seconds is None:
        return "nothing, because a worker was never measured; --measure does that"
    copied = placement.drafted_tokens_per_second
    most = "" if copied is None else f" (up to {copied:.1f} where it repeats a text, by drafts)"
    loaded = f"loaded in about {rough_seconds(placement.load_seconds)}"
    return f"{placement.tokens_per_second:.1f} tok/s for one call{most}, {loaded}"


def verdict_rows(placement: Placement) -> list[str]:
    """Return a line a device that was offered: whether it is used, and why."""
    rows = [
        (
            "used" if verdict.used else "not used",
            one_line(device_name(verdict.endpoint, verdict.device), _NAME_CELLS),
            one_line(verdict.reason, 400),
        )
        for verdict in placement.verdicts
    ]
    return table_lines((), rows)


def placement_document(placement: Placement) -> dict[str, Any]:
    """Return a placement as a JSON object for programs; sizes in bytes, times in seconds."""
    shape, needs = placement.shape, placement.needs
    return {
        "model": shape.name,
        "file": str(shape.file),
        "architecture": shape.architecture,
        "quantization": shape.quantization,
        "layers": len(shape.layers),
        "weight_bytes": shape.weight_bytes,
        "context": needs.context,
        "slots": needs.slots,
        "ubatch": needs.ubatch,
        "coordinator_bytes": placement.coordinator_bytes,
        "output_here": placement.output_here,
        "tokens_per_second": placement.tokens_per_second,
        "drafted_tokens_per_second": placement.drafted_tokens_per_second,
        "load_seconds": placement.load_seconds,
        "shares": [_share_document(share) for share in placement.shares],
        "verdicts": [
            {**asdict(verdict), "endpoint": device_name(verdict.endpoint, 0)} for verdict in placement.verdicts
        ],
    }


def _share_document(share: Share) -> dict[str, Any]:
    return {
        **asdict(share),
        "endpoint": device_name(share.endpoint, 0),
        "memory_bytes": share.memory_bytes,
        "to_be_started": isinstance(share.endpoint, PlannedWorker),
    }


def _memory_words(share: Share) -> str:
    parts = (
        f"{gib(share.weight_bytes)} weights, {gib(share.kv_bytes)} keys and values, {gib(share.compute_bytes)} scratch"
    )
    return f"{gib(share.memory_bytes)}: {parts}"


def _name(share: Share) -> str:
    return one_line(device_name(share.endpoint, share.device), _NAME_CELLS)


def _labels(number: int, share: Share) -> tuple[str, ...]:
    name = _name(share)
    return (f"{number}: {name}, {plural(share.layers, 'layer')}", f"{number}: {name}", str(number))
