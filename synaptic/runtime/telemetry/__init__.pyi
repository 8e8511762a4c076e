from .request_spans import RequestEnd as RequestEnd
from .switch import RequestTeller as RequestTeller
from .switch import Teller as Teller
from .switch import open_telemetry as open_telemetry
