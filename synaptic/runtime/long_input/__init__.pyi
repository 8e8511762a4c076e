from .division import divisions as divisions
from .reading import Reading as Reading
