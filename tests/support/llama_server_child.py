"""A real ``llama-server`` with the embedded model, in a process of its own that can be killed: the engine's, by hand.

    python llama_server_child.py MODEL open|closed|legacy

``open`` is how it comes: a last message of the assistant is continued. ``closed`` was started with
``--no-prefill-assistant``, ``legacy`` with ``--no-jinja --chat-template chatml``: both end that turn.
"""

from __future__ import annotations

import sys

import xllamacpp


def main(model: str, kind: str) -> None:
    """Serve until standard input is closed."""
    options = xllamacpp.CommonParams()
    options.model.path = model
    options.hostnames = ["127.0.0.1"]
    options.port = 0
    options.ui = False
    options.n_parallel = 1
    options.n_ctx = 2048
    options.verbosity = 1
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.prefill_assistant = kind != "closed"
    if kind == "legacy":
        options.use_jinja = False
        options.chat_template = "chatml"
    server = xllamacpp.Server(options)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
