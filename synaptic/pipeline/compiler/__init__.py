"""A pipeline and what it names to a graph: references, types and dependencies, all checked before any call."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
