from .backend import launch as launch
from .backend import require_engine as require_engine
from .backend import usable_threads as usable_threads
from .child import SPIN_COUNT as SPIN_COUNT
from .child import Parameters as Parameters
