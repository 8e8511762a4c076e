from .backoff import Backoff as Backoff
from .backoff import RestartRule as RestartRule
from .backoff import Restarts as Restarts
from .backoff import Rules as Rules
from .priority_queue import PATIENCE as PATIENCE
from .priority_queue import Entry as Entry
from .priority_queue import PriorityQueue as PriorityQueue
