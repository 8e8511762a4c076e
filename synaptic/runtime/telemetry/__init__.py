"""Telemetry: runs and the gateway's calls as spans and metrics of OpenTelemetry, for those who switch it on.

:mod:`conventions` has every name. :mod:`run_spans` and :mod:`request_spans` say, as plain data, which spans there are;
:mod:`otlp` does what they say with OpenTelemetry's SDK and is all that imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
