from .agent import CompiledAgent as CompiledAgent
from .choose import CompiledChoose as CompiledChoose
from .kind import Picture as Picture
from .repeat import CompiledRepeat as CompiledRepeat
from .table import KINDS as KINDS
from .tool import CompiledTool as CompiledTool
from .use import CompiledUse as CompiledUse
