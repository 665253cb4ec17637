"""What Linux says about processes: who listens on a port, CPU time, memory. Works for programs in a chroot: nothing but /proc is read."""

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def listening_inodes(table: str, port: int) -> set[str]:
    """The inodes of the sockets that listen on `port`, from the text of /proc/net/tcp or tcp6."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port}


def listeners(port: int) -> tuple[int, ...]:
    """The processes that listen on TCP `port`, in order of their ids; a forked child that holds the same socket is one of them."""
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        table = PROC / "net" / name
        if table.exists():
            inodes |= listening_inodes(table.read_text(), port)
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return tuple(sorted(pid for pid in _pids() if wanted & set(_open_files(pid)))) if wanted else ()


def family(roots: Iterable[int]) -> set[int]:
    """`roots` and all their descendants that are alive."""
    children: dict[int, list[int]] = {}
    alive = list(_pids())
    for pid in alive:
        fields = _stat(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in set(alive)]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the family, all threads; of children that have ended too, once their parent has waited for them."""
    ticks = 0
    for pid in family(roots):
        fields = _stat(pid)
        ticks += sum(int(field) for field in fields[11:15])  # utime stime cutime cstime: fields 14 to 17 of proc(5), two were cut off
    return ticks / TICKS_PER_SECOND


def memory_kb(roots: Iterable[int]) -> int:
    """Resident memory of the family in KB. Pages that its processes share count once (PSS), so forked workers add up right."""
    return sum(_resident_kb(pid) for pid in family(roots))


def _resident_kb(pid: int) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = (PROC / str(pid) / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1])
    return 0


def _pids() -> Iterable[int]:
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def _open_files(pid: int) -> Iterable[str]:
    """What the descriptors of `pid` point to; nothing if it is gone or not ours to look at."""
    folder = PROC / str(pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(folder / name)
        except OSError:
            continue


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (the name before it may hold blanks and parentheses); [] if it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
