"""Tools: Python functions of the person's own that a pipeline may call, with typed arguments."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
