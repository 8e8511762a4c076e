from .serving import ServeSettings as ServeSettings
from .serving import check_alias as check_alias
from .serving import check_host as check_host
from .serving import check_keep_alive as check_keep_alive
from .serving import from_environment as from_environment
from .serving import serve as serve
