"""The list of system calls that a sandboxed program may make, as a filter for the kernel.

libseccomp turns names into numbers of this machine's architecture and conditions into the kernel's instructions. What
is not listed fails with EPERM, which Python shows as `PermissionError`: network, new processes, signals to others,
tracing, mounts, changes of mode and owner, and every call that a later kernel brings.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from functools import lru_cache

from harness.errors import Unavailable

_READ = (
    "read readv pread64 preadv preadv2 lseek close close_range dup dup2 dup3 pipe pipe2 stat fstat lstat newfstatat"
    " statx access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir getdents getdents64"
)
_WRITE = (
    "write writev pwrite64 pwritev pwritev2 mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink"
    " symlinkat ftruncate fallocate fsync fdatasync umask flock sendfile copy_file_range"
)
_MEMORY = "mmap mprotect munmap mremap madvise brk msync membarrier"
_THREADS = (
    "futex set_robust_list get_robust_list rseq set_tid_address sched_yield sched_getaffinity sched_getparam"
    " sched_getscheduler gettid exit exit_group"
)
_SELF = (
    "getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid uname sysinfo"
    " getrandom getrlimit getrusage times"
)
_TIME = (
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time setitimer getitimer alarm pause"
    " restart_syscall rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack"
)
_WAIT = "select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2"

# Of a pair that `socketpair` made, the one socket that there is: asyncio wakes itself by it.
_PAIR = "sendto recvfrom getsockname getsockopt shutdown"

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED = 4, 7

# fcntl(2): no F_SETOWN and F_SETSIG, by which a descriptor sends signals to other processes, and no leases.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
# ioctl(2): is it a terminal, how much is there to read, close on exec, do not block, the window's size.
_IOCTL = (0x5401, 0x541B, 0x5451, 0x5450, 0x5421, 0x5413)
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


def _equal(argument: int, value: int) -> _Comparison:
    # The kernel looks at 32 bits of these; the rest of the register may hold anything.
    return _Comparison(argument, _MASKED, 0xFFFFFFFF, value)


def _conditions() -> list[tuple[str, list[_Comparison]]]:
    """Calls that are allowed with some arguments only; several entries of a name are alternatives."""
    found = [("fcntl", [_equal(1, command)]) for command in _FCNTL]
    found += [("ioctl", [_equal(1, command)]) for command in _IOCTL]
    # A stream's ends reach each other and nothing else; a datagram could be sent to any address.
    kind = _Comparison(1, _MASKED, 0xF, socket.SOCK_STREAM)
    found.append(("socketpair", [_equal(0, socket.AF_UNIX), kind]))
    found.append(("clone", [_Comparison(0, _MASKED, _CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD)]))
    found.append(("prlimit64", [_equal(0, 0), _Comparison(2, _EQUAL, 0, 0)]))
    for name, place in (("open", 1), ("openat", 2)):
        # Before its version 3, landlock lets a file be emptied that is opened to be read.
        found.append((name, [_Comparison(place, _MASKED, os.O_TRUNC, 0)]))
        for access in (os.O_WRONLY, os.O_RDWR):
            found.append((name, [_Comparison(place, _MASKED, os.O_ACCMODE, access)]))
    return found


@lru_cache(maxsize=1)
def compiled() -> bytes:
    """The filter as the kernel takes it: an array of ``struct sock_filter``.

    Raises:
        Unavailable: libseccomp is not installed or does not do what is asked of it.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unavailable(
            "the sandbox needs libseccomp: apt-get install libseccomp2, or dnf install libseccomp"
        ) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise Unavailable("the sandbox cannot be used: libseccomp does not know this machine's architecture")
    try:
        names = " ".join((_READ, _WRITE, _MEMORY, _THREADS, _SELF, _TIME, _WAIT, _PAIR)).split()
        rules: list[tuple[str, int, list[_Comparison]]] = [(name, _ALLOW, []) for name in names]
        rules += [(name, _ALLOW, conditions) for name, conditions in _conditions()]
        # The C library starts a thread by the older call when it is told that there is no newer one.
        rules.append(("clone3", _ERRNO | errno.ENOSYS, []))
        for name, action, conditions in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                continue  # an older call that this architecture never had
            array = (_Comparison * len(conditions))(*conditions)
            code = library.seccomp_rule_add_array(context, action, number, len(conditions), array)
            if code:
                raise Unavailable(f"the sandbox cannot be used: libseccomp refuses a rule for {name} ({code})")
        target = os.memfd_create("filter")
        with open(target, "r+b") as stream:
            if code := library.seccomp_export_bpf(context, target):
                raise Unavailable(f"the sandbox cannot be used: libseccomp cannot export its filter ({code})")
            stream.seek(0)
            return stream.read()
    finally:
        library.seccomp_release(context)
