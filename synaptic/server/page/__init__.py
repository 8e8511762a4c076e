"""The page of the gateway, and the data behind it: what runs now, where, and what has run before."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
