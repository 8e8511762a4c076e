"""Backends: what turns a :class:`~synaptic.messages.ChatRequest` into a stream of chunks."""
