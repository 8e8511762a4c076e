"""The gateway as a program: its dialects put together behind one guard, served until it is told to end."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
