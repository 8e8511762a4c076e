from .budget import BudgetMeter as BudgetMeter
from .retrying import Retrying as Retrying
from .stacks import Bounds as Bounds
from .stacks import Stacks as Stacks
from .timed import Timed as Timed
from .wrapper import BackendWrapper as BackendWrapper
from .wrapper import as_generator as as_generator
