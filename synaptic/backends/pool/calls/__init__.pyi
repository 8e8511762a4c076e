from .embedding import embed_texts as embed_texts
from .pool_call import PoolCall as PoolCall
from .pool_call import PoolServices as PoolServices
from .retry_budget import RetryBudget as RetryBudget
from .sentinel import Sentinel as Sentinel
from .waiter import Lease as Lease
from .waiter import Waiter as Waiter
