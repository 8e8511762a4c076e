"""What one client can take of a server of ours: connections, time and memory. The same for every API in front.

Three things use it: the application (:func:`limited`), whoever reads a body (:func:`read_request`), and whoever
listens (:func:`listening`). ``server_limits`` holds the figures, ``admission`` decides who stays, as pure functions;
``client_connections``, ``request_bodies`` and ``listening`` do what was decided.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
