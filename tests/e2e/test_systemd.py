"""conf/dualpool.service and conf/dualpool.socket, with systemd's own programs where they are installed. See also test_restart.py."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import psycopg
import pymysql

from dualpool.config import load
from tests.e2e.postgres_world import DEADLINE
from tests.e2e.test_restart import configuration
from tests.helpers.ports import reserved_port
from tests.helpers.servers import Servers

CONF: Final = Path(__file__).parents[2] / "conf"


def units(folder: Path) -> list[Path]:
    """The unit files, with a program that is there."""
    written = []
    for name in ("dualpool.service", "dualpool.socket"):
        text = (CONF / name).read_text().replace("/usr/local/bin/dualpool", f"{sys.executable} -m dualpool")
        written.append(folder / name)
        written[-1].write_text(text)
    return written


def test_the_sockets_are_those_of_the_example() -> None:
    streams = re.findall(r"^ListenStream=(.*)$", (CONF / "dualpool.socket").read_text(), re.MULTILINE)
    assert streams == [str(bind) for listener in load(CONF / "dualpool.toml").listeners.values() for bind in listener.bind]


if shutil.which("systemd-analyze"):

    def test_systemd_understands_the_units(tmp_path: Path) -> None:
        done = subprocess.run(
            ["systemd-analyze", "verify", *map(str, units(tmp_path))], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


if shutil.which("systemd-socket-activate"):

    def test_the_first_client_starts_it(servers: Servers, tmp_path: Path) -> None:
        """systemd-socket-activate(1) holds the sockets, and becomes dualpool when somebody connects: nobody is refused."""
        config = tmp_path / "dualpool.toml"
        config.write_text(configuration(servers.postgres(15), servers.mariadb(), tmp_path))
        ports = {"postgres": reserved_port(), "mysql": reserved_port()}
        command = ["systemd-socket-activate", *(f"--listen=127.0.0.1:{port}" for port in ports.values()), f"--fdname={':'.join(ports)}"]
        process = subprocess.Popen([*command, sys.executable, "-m", "dualpool", "run", str(config)], stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            for _ in ports:
                assert process.stderr.readline().startswith(b"Listening on ")
            place = {"host": "127.0.0.1", "user": "app", "password": "app"}
            deadline = int(DEADLINE)
            with psycopg.connect(**place, port=ports["postgres"], dbname="app", connect_timeout=deadline) as client:
                assert client.execute("SELECT 1").fetchone() == (1,)
            with contextlib.closing(
                pymysql.connect(**place, port=ports["mysql"], database="app", connect_timeout=deadline)  # type: ignore[arg-type]
            ) as other:
                assert other.cursor().execute("SELECT 1") == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            process.communicate()
