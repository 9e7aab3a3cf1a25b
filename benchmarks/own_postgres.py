"""A PostgreSQL server of one's own for a benchmark or a test run, gone at its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob


class Absent(Exception):
    """There is no PostgreSQL to start."""


@contextmanager
def server(options: str = "") -> Iterator[str]:
    """The address of a new server with PostgreSQL's defaults and these ``options`` of ``postgres``, on a socket alone.

    It is stopped and its files are removed when the context is left, whatever for: whoever may get SIGTERM turns it
    into SystemExit. Raises Absent where Debian's package is not installed.
    """
    programs = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not programs:
        raise Absent("PostgreSQL is not installed: apt-get install postgresql.")
    # PostgreSQL refuses to run as root; a socket's path must be short.
    run_as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = subprocess.check_output([*run_as, "mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip()
    control = [*run_as, f"{programs[-1]}/pg_ctl", "-D", f"{folder}/data", "-w", "-t", "120"]

    def run(*words: str, check: bool = True) -> None:
        errors = None if check else subprocess.DEVNULL
        subprocess.run(words, check=check, cwd="/", stdout=subprocess.DEVNULL, stderr=errors)

    try:
        run(*run_as, f"{programs[-1]}/initdb", "-D", f"{folder}/data", "-U", "owner", "-A", "trust", "-N")
        where = f"-c listen_addresses='' -c unix_socket_directories={folder} {options}"
        run(*control, "-o", where, "-l", f"{folder}/log", "start")
        yield f"postgresql://owner@/postgres?host={folder}"
    finally:
        run(*control, "-m", "immediate", "stop", check=False)
        run(*run_as, "rm", "-rf", folder, check=False)
