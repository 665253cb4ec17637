"""The engines, by the name that the configuration uses. The one place outside their packages that names them."""

from typing import Final

from dualpool.mysql import ENGINE as MYSQL
from dualpool.postgres import ENGINE as POSTGRES
from dualpool.protocol import Engine

ENGINES: Final[dict[str, Engine]] = {"postgres": POSTGRES, "mysql": MYSQL}
