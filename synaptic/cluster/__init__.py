"""Several machines: reached over SSH, lent an engine, and used as workers through the connection."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
