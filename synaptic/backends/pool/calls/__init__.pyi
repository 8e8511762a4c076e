from .call import PoolCall as PoolCall
from .call import PoolServices as PoolServices
from .lease import Lease as Lease
from .retry_budget import RetryBudget as RetryBudget
from .sentinel import Sentinel as Sentinel
from .waiter import Waiter as Waiter
