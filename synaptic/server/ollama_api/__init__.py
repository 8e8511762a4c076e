"""Ollama's dialect: in front of the embedded engine, which it drives as Ollama does its own, or of any backend.

What is said is decided in pure modules (``tagged_names``, ``durations``, ``generation_options``, ``requests``,
``chat_reading``, ``replies``), what is done in the others: ``embedded_engine`` is one child with one model, ``loading``
decides which run, ``prompts`` and ``generation`` make a reply, ``embedded_host`` and ``backend_host`` have the models,
``ollama_routes`` speaks HTTP.

It follows Ollama's source of August 2026 (``server/routes.go``, ``server/sched.go``, ``llm/llama_server.go``,
``api/types.go``, ``envconfig/config.go``), also where that is odd.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
