"""Anthropic's dialect: messages as blocks, streams as events in their documented order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
