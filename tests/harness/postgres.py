"""A PostgreSQL server for the tests, from the programs that Debian's packages install."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A server that listens on a socket in its own folder.

    Attributes:
        programs: folder of ``pg_ctl``.
        folder: where its files are.
        user: who it runs as; None for whoever runs the tests. It refuses to run as root.
    """

    programs: Path
    folder: Path
    user: str | None

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://harness@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=40"
        self._do("pg_ctl", "-D", self.data, "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash would: connections are cut."""
        self._do("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def initialise(self) -> None:
        """Make its files."""
        self._do("initdb", "-D", self.data, "-U", "harness", "-A", "trust", "-E", "UTF8", "--no-sync")

    @property
    def data(self) -> str:
        """Folder of its databases."""
        return str(self.folder / "data")

    def _do(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            user=self.user,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; None where they are not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parent.parent.name))
    return there[-1].parent if there else None


def why_not() -> str | None:
    """Why there can be no server here; None where there can."""
    if programs() is None:
        return "needs a PostgreSQL server: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "needs psycopg: python -m pip install 'paper-harness[postgres]'"
    return None


@contextmanager
def server() -> Iterator[Server]:
    """A server while it is needed."""
    where = programs()
    assert where is not None
    # Not in the folder of the tests: that one is its owner's alone, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="harness-pg-"))
    user = None
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, user)
    made = Server(where, folder, user)
    # Tests may be killed, and a server must not outlive them: their end, however it comes, closes this one's input.
    ending = f"cat >/dev/null; '{where}/pg_ctl' -D '{made.data}' -m immediate -w stop; rm -rf '{folder}'"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        ["sh", "-c", ending], stdin=subprocess.PIPE, cwd="/", user=user, start_new_session=True, **silent
    ):
        made.initialise()
        made.start()
        yield made
    shutil.rmtree(folder, ignore_errors=True)
