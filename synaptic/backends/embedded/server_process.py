"""What runs in the embedded engine's child process: llama.cpp's own HTTP server, for one model, on loopback.

It reads one line of JSON from standard input (:class:`Parameters`), loads the model, writes one line of JSON to
standard output (``{"url": ..., "pid": ...}``), and serves until its standard input is closed, it is told to end, or
its parent is gone. Only the standard library and the engine are imported here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from synaptic.processes import die_with_parent, exit_at_end_of_input

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT_BATCH = 256  # tokens; the compute buffer grows with it, and four slots never decode more than four at once
HTTP_THREADS_OVER_SLOTS = 4  # so that health and cancellation are heard while every slot streams
STREAM_TIMEOUT = 3600  # seconds; the policies of the parent bound a call
QUIET = 1  # llama.cpp's verbosity: errors only
SPIN_COUNT = "1000"
"""How often a thread looks whether the others are done before it sleeps; libgomp's own choice where it knows of too few
processors. Its usual 300 000 are no faster when the machine is ours alone, and when another busy program shares it the
threads burn the time of the one they wait for: two engines on two cores took 50 s instead of 3 s each."""


class Parameters(NamedTuple):
    """How to serve. Every start makes a new key, which travels through a pipe that no other process can read.

    Attributes:
        parent: Process id of who started the child.
        model: Path of the GGUF file.
        alias: The name that the server gives the model.
        slots: Calls at once.
        slot_context: Tokens of context for each of them.
        threads: Threads that compute.
        embeddings: Whether texts can be embedded too, by the state of their last token.
        context_shift: Whether a reply that fills the context goes on, the older half of it forgotten.
        drafts: Tokens that have to be the same for a draft, the fewest and the most of a draft; ``None`` for none.
    """

    parent: int
    model: str
    alias: str
    api_key: str
    slots: int
    slot_context: int
    threads: int
    embeddings: bool = False
    context_shift: bool = False
    drafts: Sequence[int] | None = None

    def to_line(self) -> str:
        """Return them as the line that the child reads."""
        return json.dumps(self._asdict())

    @classmethod
    def from_line(cls, line: str | bytes) -> Parameters:
        """Read back what :meth:`to_line` made."""
        return cls(**json.loads(line))


def main(_arguments: Sequence[str] = ()) -> None:
    """Serve until told to end."""
    reply = _take_standard_output()
    parameters = Parameters.from_line(_read_line())
    die_with_parent(parameters.parent)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    exit_at_end_of_input()
    server = serve(parameters)
    os.write(reply, json.dumps({"url": server.listening_address, "pid": os.getpid()}).encode() + b"\n")
    while True:
        os.read(awake, 1)  # unlike a lock, it does not sleep through a signal that comes just before it


def serve(parameters: Parameters) -> Any:
    """Load the model and return the running server."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when the library is loaded
    import xllamacpp  # noqa: PLC0415 - after the lifeline is tied: loading it can crash

    options = xllamacpp.CommonParams()
    options.model.path = parameters.model
    options.model_alias = {parameters.alias}
    options.hostnames = ["127.0.0.1"]
    options.port = 0
    options.api_keys = [parameters.api_key]
    options.cors_origins = ""
    options.cors_credentials = False
    options.ui = False
    options.n_parallel = parameters.slots
    options.n_ctx = parameters.slots * parameters.slot_context
    options.n_batch = options.n_ubatch = PROMPT_BATCH
    # Half the memory of the KV cache; 1 % slower, and no difference to be seen in what the model says.
    options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    options.cache_ram_mib = 0
    options.ctx_shift = parameters.context_shift
    if parameters.embeddings:
        options.embedding = True
        options.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    if parameters.drafts is not None:
        options.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
        lengths = options.speculative.ngram_mod
        lengths.n_match, lengths.n_min, lengths.n_max = parameters.drafts
    options.n_threads_http = parameters.slots + HTTP_THREADS_OVER_SLOTS
    options.timeout_read = options.timeout_write = STREAM_TIMEOUT
    options.verbosity = QUIET
    for cpu in (options.cpuparams, options.cpuparams_batch):
        cpu.n_threads = parameters.threads
        cpu.poll = 0  # a thread that waits sleeps: it must not take the processor from the parent
    return xllamacpp.Server(options)


def _take_standard_output() -> int:
    """Return a private descriptor for the reply; what libraries print goes to standard error from now on."""
    reply = os.dup(1)
    os.dup2(2, 1)
    return reply


def _read_line() -> bytes:
    """Read up to the first end of line, and not a byte more: the rest of the pipe belongs to the lifeline."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    return line


def _exit(_number: int, _frame: object) -> None:
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
