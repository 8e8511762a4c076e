"""Waiting: in a queue, until a deadline, before another try, and what becomes of a text that broke off."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
