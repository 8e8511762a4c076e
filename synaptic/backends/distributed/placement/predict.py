"""What a stage of a model costs: seconds a token, seconds to load, bytes of memory. Pure arithmetic, no search.

A token passes through the stages one after the other, and between two of them through the coordinator, so that the
times add up (llama.cpp, ``ggml-rpc.cpp`` and ``ggml-backend.cpp`` of build b11434, RPC protocol 7.0.0)::

    T = sum over stages d [ bytes read of its layers / B_d + keys and values read / B_d + o * layers_d
                            + RTT_d + in_d / U_d + out_d / D_d ] + T_coordinator
    in_d  = 4 n_embd (three times for the first stage) + 2 n_kv + headers
    out_d = 4 n_embd, or 4 n_vocab from the last stage

``B_d`` is what :mod:`rpc_measure` found in matrix-vector products, ``U_d`` and ``D_d`` are the bandwidths up and down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement.types import PlannedWorker
from synaptic.backends.distributed.workers import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds
    from synaptic.models import LayerShape, ModelShape

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

ASSUMED_LOCAL: Final = Measurement(round_trip=50e-6, upload=1e9, download=1e9, weight_reading=())
"""What is assumed of the way to a worker of this machine that was never measured."""
ASSUMED_REMOTE: Final = Measurement(round_trip=1e-3, upload=117e6, download=117e6, weight_reading=())
"""What is assumed of the way to any other: gigabit Ethernet through a switch or two."""
ASSUMED_READING: Final = 10e9
"""Bytes of weights a second, of a device that was never measured: a desktop's memory with two channels."""
READING_HERE: Final = 5e9
"""Bytes of weights a second that the coordinator's one thread reads, assumed: any core of the last ten years does."""
PROCESSOR_READING: Final = 60e9
"""What reads faster is taken for a graphics card, to which more rows at once cost nothing."""
OPERATIONS_A_BYTE: Final = 6
"""Floating-point operations of a processor while it reads a byte (measured: 35e9 a second of a core that reads 6e9)."""

PREDICTED_CONTEXT: Final = 256
"""How much context a token is predicted with; llama.cpp rounds what is in use up to this."""
CONTEXT_UNIT: Final = 256
"""llama.cpp rounds a call's context up to a multiple of it."""

LAYER_SECONDS: Final = 40e-6
"""What a layer costs however small it is: the start and the end of some twenty operations on all threads."""
COORDINATOR_SECONDS: Final = 0.5e-3
"""The coordinator's part of a token: looking up its embedding, sampling, sending it to the client."""
UNKNOWN_TOKEN_SECONDS: Final = 0.2
"""What a token is taken to need where nothing was measured: five of them a second."""
HEADER_BYTES: Final = 2560
"""Eight ``SET_TENSOR`` headers of 313 bytes and the order to compute."""
FIRST_STAGE_VECTORS: Final = 3
"""The first stage is sent the embedding under three names (``embd``, ``node_1``, ``inp_mixed_embd``)."""
FLOAT: Final = 4
HALF: Final = 2

READING_SECONDS_PER_BYTE: Final = 1 / 1e9
"""The coordinator reads and hashes what it sends, in one thread: about 1 GB a second."""
START_SECONDS: Final = 0.7
"""From the start of ``llama-server`` to its first tensor, and from its last one to the first token."""

MOST_MARGIN: Final = GIB
MARGIN_SHARE: Final = 0.1

COORDINATOR_FLOOR: Final = 25 * MIB
"""A ``llama-server`` that holds nothing of a model."""
DRAFT_TABLE: Final = 16 * MIB
"""What a ``llama-server`` looks drafts up in: four million tokens (``ngram-mod``)."""
VOCABULARY_BYTES: Final = 256
"""What a token of the vocabulary takes in the tokenizer, its text, its number and the merges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What is believed of a device and of the way to it.

    Attributes:
        round_trip: In seconds.
        upload: To it, bytes a second.
        download: From it, bytes a second.
        reading: Bytes of weights a second.
        measured: Whether its worker was ever measured; else all of it is assumed.
    """

    round_trip: float
    upload: float
    download: float
    reading: float
    measured: bool


def speed_of(offer: Offer) -> Speed:
    """Return what is believed of a device; what was not measured is assumed."""
    host = "" if isinstance(offer.endpoint, PlannedWorker) else offer.endpoint.host
    local = offer.managed or host == "localhost" or host.startswith("127.")
    known = offer.measurement or (ASSUMED_LOCAL if local else ASSUMED_REMOTE)
    reading = known.weight_reading[offer.device] if offer.device < len(known.weight_reading) else None
    return Speed(
        round_trip=known.round_trip,
        upload=known.upload,
        download=known.download,
        reading=reading or ASSUMED_READING,
        measured=offer.measurement is not None,
    )


def context_per_slot(needs: ServingNeeds) -> int:
    """Return the tokens of context that a slot really gets."""
    return -(-needs.context // CONTEXT_UNIT) * CONTEXT_UNIT


def most_rows(needs: ServingNeeds) -> int:
    """Return the most tokens of a pass that does not read a prompt: those of all calls, and of their drafts."""
    return needs.slots * (1 + needs.draft)


def usual_rows(needs: ServingNeeds) -> int:
    """Return the tokens of a pass where half of the calls have a draft, which the place of the output is chosen for."""
    return needs.slots * (2 + needs.draft) // 2


# --- seconds


def token_seconds(speed: float | None, placement: Placement | None) -> float:
    """Return what generating a token takes: as measured, else as predicted, else a guess on the long side.

    ``speed`` is in tokens a second.
    """
    believed = speed or (placement.tokens_per_second if placement else None)
    return 1 / believed if believed else UNKNOWN_TOKEN_SECONDS


def layer_seconds(layer: LayerShape, speed: Speed) -> float:
    """Return what a token spends in one layer, in seconds."""
    read = layer.active_bytes + layer.kv_bytes_per_token * PREDICTED_CONTEXT + layer.state_bytes
    return read / speed.reading + LAYER_SECONDS


def stage_seconds(shape: ModelShape, speed: Speed) -> float:
    """Return what a stage in the middle costs a token before it has any layer: its network, in seconds."""
    hidden = FLOAT * shape.embedding_length
    sent = hidden + HALF * PREDICTED_CONTEXT + HEADER_BYTES
    return speed.round_trip + sent / speed.upload + hidden / speed.download


def first_seconds(shape: ModelShape, speed: Speed) -> float:
    """Return what it costs a token in addition that a stage is the first, in seconds."""
    return (FIRST_STAGE_VECTORS - 1) * FLOAT * shape.embedding_length / speed.upload


def last_seconds(shape: ModelShape, speed: Speed) -> float:
    """Return what it costs a token in addition that a stage is the last: the head, and logits instead of a state.

    It may be negative, where the vocabulary is smaller than a hidden state.
    """
    instead = FLOAT * shape.embedding_length / speed.download
    return output_seconds(shape, speed, 1, here=False) - instead


def head_seconds(shape: ModelShape, reading: float, rows: int = 1) -> float:
    """Return what norm and head take for the tokens of so many calls at once, in seconds.

    Args:
        shape: The model.
        reading: Bytes of weights a second, of the device that has them.
        rows: Calls. The first is bound by memory; each further one costs a processor its operations.
    """
    operations = 2 * shape.embedding_length * shape.vocabulary * (rows - 1)
    further = operations / (OPERATIONS_A_BYTE * reading) if reading < PROCESSOR_READING else 0.0
    return shape.output_bytes / reading + further


def output_seconds(shape: ModelShape, last: Speed, rows: int, *, here: bool) -> float:
    """Return what it takes to get from the last hidden states of so many calls to logits at the coordinator.

    ``rows`` is the calls at once; ``here``, whether the coordinator has the head, and not the ``last`` worker.
    """
    reading, values = (READING_HERE, shape.embedding_length) if here else (last.reading, shape.vocabulary)
    return head_seconds(shape, reading, rows) + rows * FLOAT * values / last.download


def row_seconds(shape: ModelShape, layers: Sequence[LayerShape], speed: Speed) -> float:
    """Return what one token more in a pass costs in a stage, in seconds: its operations, and its way there and back.

    A graphics card has operations to spare while it reads the weights.
    """
    held = sum(layer.active_bytes for layer in layers)
    weights = held * shape.parameters / max(shape.weight_bytes, 1)
    operations = 2 * weights / (OPERATIONS_A_BYTE * speed.reading) if speed.reading < PROCESSOR_READING else 0.0
    hidden = FLOAT * shape.embedding_length
    return operations + hidden / speed.upload + hidden / speed.download


def load_seconds(sent: Iterable[tuple[int, Speed]]) -> float:
    """Return how long loading takes, in seconds: one thread reads the file and sends to one worker after the other.

    Args:
        sent: For each stage, the bytes of its weights and what is believed of the way to it. A worker's tensor cache
            would make it faster; it is not counted on.
    """
    return START_SECONDS + sum(size * (READING_SECONDS_PER_BYTE + 1 / speed.upload) for size, speed in sent)


# --- bytes


def layer_bytes(layer: LayerShape, needs: ServingNeeds) -> int:
    """Return what a layer takes on its worker: weights, and keys and values of all slots."""
    return layer.weight_bytes + layer_kv_bytes(layer, needs)


def layer_kv_bytes(layer: LayerShape, needs: ServingNeeds) -> int:
    """Return what keys and values, and recurrent states, of all slots take in a layer."""
    return needs.slots * (layer.kv_bytes_per_token * context_per_slot(needs) + layer.state_bytes)


def compute_bytes(shape: ModelShape, needs: ServingNeeds, *, last: bool) -> int:
    """Return an estimate of a stage's scratch memory, in bytes.

    ggml reuses the memory of intermediate results, so that a stage needs about what is alive at once in its largest
    layer, for all tokens of a micro-batch: the hidden state under several names and the feed-forward's wide vectors,
    together at most 16 hidden states (measured for a llama of 30 layers: 11), and the attention mask, 2 bytes for each
    token of the micro-batch and of a slot's context. Of logits there is one row a slot in the last stage, and one more
    for each token that may be drafted. This holds without the copies of pipeline parallelism, which
    :mod:`server_arguments` turns off.
    """
    context = context_per_slot(needs)
    states = 16 * FLOAT * shape.embedding_length
    logits = FLOAT * shape.vocabulary * most_rows(needs) if last else 0
    return _batch(needs) * (states + HALF * context) + logits


def margin_bytes(memory_bytes: int) -> int:
    """Return what of a device's memory is left free.

    llama.cpp's own ``--fit`` leaves 1 GiB, for what drivers, fragmentation and others take. Of a small machine that
    would be most of what it has, so it is never more than a tenth.
    """
    return min(MOST_MARGIN, int(memory_bytes * MARGIN_SHARE))


def room_bytes(memory_bytes: int) -> int:
    """Return what of a device's memory may be used: all but the margin."""
    return memory_bytes - margin_bytes(memory_bytes)


def kept_bytes(shape: ModelShape, *, embeddings: bool, output: bool) -> int:
    """Return the bytes of weights that the coordinator keeps; a tied head is its token embeddings once more."""
    return (shape.input_bytes if embeddings else 0) + (shape.output_bytes if output and not shape.tied else 0)


def coordinator_bytes(shape: ModelShape, needs: ServingNeeds, *, embeddings: bool, output: bool = False) -> int:
    """Return what the coordinator holds once the model is loaded, in bytes; an estimate.

    Token embeddings unless a worker has them, the inputs of a micro-batch (masks, embeddings), rows of logits, the
    vocabulary, what drafts are looked up in, and the program itself. While it loads, a buffer of twice the largest
    tensor comes on top.
    ``embeddings`` and ``output`` say whether it has the token embeddings, and norm and head.
    """
    inputs = _batch(needs) * (2 * FLOAT * shape.embedding_length + HALF * context_per_slot(needs))
    logits = FLOAT * shape.vocabulary * most_rows(needs)
    vocabulary = VOCABULARY_BYTES * shape.vocabulary
    own = vocabulary + COORDINATOR_FLOOR + (DRAFT_TABLE if needs.draft else 0)
    return kept_bytes(shape, embeddings=embeddings, output=output) + inputs + logits + own


def _batch(needs: ServingNeeds) -> int:
    """Return how many tokens are computed at once."""
    return min(needs.ubatch, context_per_slot(needs) * needs.slots)
