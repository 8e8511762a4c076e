from .map import run_map as run_map
from .table import RUNS as RUNS
