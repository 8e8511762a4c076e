from .call import Call as Call
from .call import Parts as Parts
from .lease import Lease as Lease
from .retry_budget import RetryBudget as RetryBudget
from .sentinel import Sentinel as Sentinel
from .waiter import Waiter as Waiter
