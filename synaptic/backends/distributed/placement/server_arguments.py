"""What ``llama-server`` is told so that a placement becomes true. Pure; checked against llama.cpp b11434."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement.predict import context_per_slot
from synaptic.backends.drafts import LONGEST, SHORTEST, SPEC_TYPE, match_for

if TYPE_CHECKING:
    from synaptic.backends.distributed.placement.types import Placement, Share, WorkerName

MATCH_OPTION: Final = "--spec-ngram-mod-n-match"
"""An engine that knows this one knows all that drafts need."""
_NO_PIPELINE: Final = "^no-tensor-has-this-name$=CPU"
"""Any override turns pipeline parallelism off. It would keep every input four times, which doubles scratch memory and
makes a token slower; it speeds up nothing but long prompts of several micro-batches."""


def server_arguments(placement: Placement, *, drafts: bool = False) -> list[str]:
    """Return the arguments: model, workers, layers, slots, drafts. Address and key are the caller's.

    ``--fit`` is off because it would connect to each worker several times to find what is known already. Load mode
    ``none`` reads tensor by tensor into one buffer, so that the file is never mapped whole, and ``--cache-ram 0``
    keeps no prompts: both for a coordinator that holds nothing. Flash attention halves the masks that are sent.
    One thread is enough for what is left to do here, on the one core that it is kept on (:mod:`one_core`). Batches are
    one micro-batch, so that progress through a prompt is told often; the token that proves a load warms it up.
    ``-lv 4`` has it tell the sizes of its buffers (:mod:`buffer_report`).
    """
    needs = placement.needs
    return [
        "--model",
        str(placement.shape.file),
        "--rpc",
        ",".join(str(endpoint) for endpoint in placement.endpoints),
        "--device",
        ",".join(_device_names(placement)),
        "--split-mode",
        "layer",
        "--tensor-split",
        ",".join(str(count) for count in split(placement)),
        "--gpu-layers",
        str(sum(split(placement))),
        "--override-tensor",
        _override(placement),
        "--fit",
        "off",
        "--flash-attn",
        "on",
        "--load-mode",
        "none",
        "--cache-ram",
        "0",
        "--ctx-size",
        str(context_per_slot(needs) * needs.slots),
        "--parallel",
        str(needs.slots),
        "--batch-size",
        str(needs.ubatch),
        "--ubatch-size",
        str(needs.ubatch),
        "--no-warmup",
        "--threads",
        "1",
        "--log-verbosity",
        "4",
        "--offline",
        "--no-webui",
        *(draft_arguments(match_for(placement.draft_cost)) if drafts else ()),
    ]


def draft_arguments(match: int) -> list[str]:
    """Return the arguments that have ``llama-server`` draft. Its own lengths are for long texts and hardly ever draft.

    No draft model is named: ``--spec-draft-device`` would put it on the workers, by default.
    """
    return [
        "--spec-type",
        SPEC_TYPE,
        MATCH_OPTION,
        str(match),
        "--spec-ngram-mod-n-min",
        str(SHORTEST),
        "--spec-ngram-mod-n-max",
        str(LONGEST),
    ]


def split(placement: Placement) -> list[int]:
    """Return how many layers each share has as llama.cpp counts them: the output is one more, of the last.

    It counts there even where an override keeps it at the coordinator.
    """
    counts = [share.layers for share in placement.shares]
    counts[-1] += 1
    return counts


def buffer_name(share: Share) -> str:
    """Return what llama.cpp calls the memory of a device: ``RPC0[10.0.0.4:50052]``, numbered within its worker."""
    return f"RPC{share.device}[{share.endpoint}]"


def _device_names(placement: Placement) -> list[str]:
    """Return what llama.cpp calls the devices: ``RPC`` and a number that goes on over all devices of all workers.

    A worker's devices that are not used count as well; each of them has a verdict.
    """
    counts: dict[WorkerName, int] = {}
    devices = {(share.endpoint, share.device) for share in placement.shares}
    devices |= {(verdict.endpoint, verdict.device) for verdict in placement.verdicts}
    for endpoint, device in devices:
        counts[endpoint] = max(counts.get(endpoint, 0), device + 1)
    firsts: dict[WorkerName, int] = {}
    total = 0
    for endpoint in placement.endpoints:
        firsts[endpoint] = total
        total += counts[endpoint]
    return [f"RPC{firsts[share.endpoint] + share.device}" for share in placement.shares]


def _override(placement: Placement) -> str:
    first = placement.shares[0]
    overrides = [f"^token_embd={buffer_name(first)}"] if first.embeddings else []
    if placement.output_here:
        # A head that shares the token embeddings goes by their name.
        overrides += ["^output=CPU", *(["^token_embd=CPU"] if placement.shape.tied else [])]
    return ",".join(overrides) or _NO_PIPELINE
