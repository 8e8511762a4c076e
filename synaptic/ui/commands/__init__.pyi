from .nodes import absolute as absolute
from .nodes import nodes as nodes
from .support import load as load
from .workers import engine_version as engine_version
from .workers import given_workers as given_workers
