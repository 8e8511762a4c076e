from .backend import launch as launch
from .backend import processors as processors
from .backend import require_engine as require_engine
from .backend import usable_threads as usable_threads
from .context_size import MOST_OF_MEMORY as MOST_OF_MEMORY
from .context_size import available_memory as available_memory
from .server_process import SPIN_COUNT as SPIN_COUNT
from .server_process import Parameters as Parameters
