"""What checks the parts of one pipeline file: its templates, names and values, each mistake at its place."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
