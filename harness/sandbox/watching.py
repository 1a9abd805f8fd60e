"""What a sandboxed program uses of what the kernel does not limit by itself: threads, files, processor time in all."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What was seen of a running process and those below it."""

    threads: int = 0
    cpu_time: float = 0.0
    hidden: int = 0
    """Bytes of files that are open and have been removed from their folder."""


def look_inside(pid: int) -> Seen:
    """Look at a process and those below it, as far as they are still there."""
    seen = Seen()
    # Below bubblewrap is the program; a program itself has nothing below it.
    waiting = [str(pid)]
    while waiting:
        process = waiting.pop()
        # It may end while it is looked at.
        with contextlib.suppress(OSError):
            waiting += Path(f"/proc/{process}/task/{process}/children").read_text().split()
            # After the name, which may hold anything: state, parent, ...; see proc(5).
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            seen.threads = max(seen.threads, int(fields[17]))
            seen.cpu_time += (int(fields[11]) + int(fields[12])) / _TICKS
            for name in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{process}/fd/{name}")
                    if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                        seen.hidden += status.st_blocks * 512
    return seen


def usage(folder: Path, most: int) -> tuple[int, int]:
    """Bytes and entries under `folder`; it stops counting above `most` entries. Links are not followed."""
    size = entries = 0
    waiting = [str(folder)]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as found:
                for entry in found:
                    entries += 1
                    if entries > most:
                        return size, entries
                    # An entry may go while it is looked at.
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except PermissionError:
            continue  # a folder made with no rights has nothing in it
        except OSError:
            return size, most + 1  # deeper than a path can be long
    return size, entries
