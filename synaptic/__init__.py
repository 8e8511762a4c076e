"""SynapticLlamas: a graph of agents answers your question on the machines you own.

The whole public interface; everything else may change between versions. Names are imported when they are
first used, so that the command line starts fast. ``__init__.pyi`` beside this file lists them, as in every package
here: it is the package's one door, and other packages import through it only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
