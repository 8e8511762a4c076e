from .nodes import absolute as absolute
from .nodes import nodes as nodes
from .support import load as load
