from .backend import launch as launch
from .backend import require_engine as require_engine
from .backend import usable_threads as usable_threads
from .server_process import SPIN_COUNT as SPIN_COUNT
from .server_process import Parameters as Parameters
