"""Many runs of one pipeline: their inputs, their results, and what is left to do after a kill."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
