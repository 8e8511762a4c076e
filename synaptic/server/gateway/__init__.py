"""What every dialect of the gateway shares: who may ask, what a body may be, what an error is, how a reply is sent."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
