"""What the language knows of each kind of step; one file a kind, and a table of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
