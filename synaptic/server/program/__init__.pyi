from .application import gateway_application as gateway_application
from .renewal import current_tls as current_tls
from .running import serve as serve
