"""The journal: every run's events and values in one file, so that nothing is lost and nothing is paid twice.

A run is an append-only list of events; texts are kept once, named by their content, whatever runs and steps they are
in. Who writes is the :class:`Recorder`, a listener to events; who reads is the :class:`Journal`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
