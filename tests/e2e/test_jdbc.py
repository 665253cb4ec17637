"""JDBC, as Java applications use it: prepared statements from the first run on, time zones, savepoints around statements, batches, cursors,
limits of time, and the console. The checks are in jdbc/Traffic.java.

The drivers are those of Debian's packages libpostgresql-jdbc-java and libmariadb-java.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.admin.world import configuration
from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, Servers

JARS: Final = tuple(Path("/usr/share/java") / name for name in ("postgresql.jar", "mariadb-java-client.jar"))
PROGRAM: Final = Path(__file__).parent / "jdbc" / "Traffic.java"
CHECKS: Final = 16
SECONDS: Final = 300


@pytest.fixture(scope="module")
def java() -> str:
    """The program `java` of a JDK: it compiles what it runs."""
    found = shutil.which("java")
    if found is None or shutil.which("javac") is None or not all(jar.exists() for jar in JARS):
        pytest.skip("jdbc: there is no JDK here, or not both of libpostgresql-jdbc-java and libmariadb-java")
    return found


def test_jdbc(servers: Servers, java: str, mysql_server: MySQLServer) -> None:
    with Pooler(configuration(servers.postgres(15).url, mysql_server.url, pool_size=1)) as pooler:
        postgres, mysql = f"jdbc:postgresql://127.0.0.1:{pooler.port()}", f"jdbc:mariadb://127.0.0.1:{pooler.port('mysql')}"
        account = "?user=app&password=app"
        urls = [f"{postgres}/app{account}", f"{mysql}/shop{account}", f"{postgres}/pgbouncer{account}", f"{mysql}/dualpool{account}"]
        command = [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, JARS)), str(PROGRAM), *urls]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == CHECKS
