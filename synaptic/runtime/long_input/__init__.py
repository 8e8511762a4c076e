"""Inputs that are too long for the prompts that they go into: read in parts first, and known before the first call."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
