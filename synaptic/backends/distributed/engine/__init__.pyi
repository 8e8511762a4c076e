from .architectures import check_engine_knows as check_engine_knows
from .engine import Engine as Engine
from .store import chosen_files as chosen_files
from .store import current_engine as current_engine
from .tools import find_tool as find_tool
from .tools import search_path as search_path
