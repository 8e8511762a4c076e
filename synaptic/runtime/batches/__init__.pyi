from .items import read_items as read_items
from .results import Results as Results
from .work import HOPELESS as HOPELESS
from .work import Batch as Batch
from .work import BatchCount as BatchCount
from .work import made_by as made_by
