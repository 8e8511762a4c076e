"""The part of Ollama's API that a client of a node needs, in front of the embedded engine, on this machine only.

What is said is decided in pure modules (``names``, ``durations``, ``options``, ``requests``, ``replies``),
what is done in the others: ``engine`` is one child with one model, ``loading`` decides which run, ``prompts`` and
``generation`` make a reply, ``app`` speaks HTTP, ``serving`` runs until it is told to end.

It follows Ollama's source of August 2026 (``server/routes.go``, ``server/sched.go``, ``llm/llama_server.go``,
``api/types.go``, ``envconfig/config.go``), also where that is odd.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
