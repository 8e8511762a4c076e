from .habits import Habits as Habits
from .reply_filter import ReplyFilter as ReplyFilter
