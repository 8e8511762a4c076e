from .listening import listening as listening
from .log_rate import LogRate as LogRate
from .request_bodies import body_pieces as body_pieces
from .request_bodies import hold as hold
from .request_bodies import read_request as read_request
from .server_limits import ServerLimits as ServerLimits
from .server_room import BodyRefused as BodyRefused
from .server_room import limited as limited
