"""The prompt: questions, slash commands, a conversation. ``start`` is all that others need."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
