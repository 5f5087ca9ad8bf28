"""Irrevocable limits that a decoder process sets for itself before it reads untrusted bytes."""

from __future__ import annotations

import ctypes
import errno
import math
import resource
import time
from pathlib import Path
from typing import Final

#: Python, its allocator and Pillow need these calls, which can open no file or socket, start no process, and reach no
#: other process's memory.
SYSTEM_CALLS: Final = (
    *("read", "readv", "write", "close", "fstat", "newfstatat", "lseek"),  # on descriptors that are open already
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise"),
    *("futex", "sched_yield", "restart_syscall"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("clock_gettime", "gettimeofday", "getrandom", "getpid", "gettid"),
    *("exit", "exit_group"),
)
#: Starting a thread needs these as well. Pillow starts no thread; libde265, which decodes HEIC pictures, always does.
THREAD_CALLS: Final = ("set_robust_list", "rseq", "prctl")
#: The slowest image of 50 million pixels, a CMYK JPEG with 18 scans, takes 4 s on a free core. `NAMESHOT_MAX_PIXELS`
#: may be larger, and a core slower.
CPU_S_PER_IMAGE: Final = 30
#: A process may use this much memory in addition to that for images, because freed memory leaves gaps.
SPARE_BYTES: Final = 300_000_000

_LIBRARY: Final = "libseccomp.so.2"
_KILL_PROCESS: Final = 0x80000000  # SCMP_ACT_*, from <seccomp.h>
_ALLOW: Final = 0x7FFF0000
_ERROR_NO_SUCH_CALL: Final = 0x00050000 | errno.ENOSYS
_EQUAL: Final = 4
_EQUAL_WHERE_MASKED: Final = 7
#: From <sched.h>: the flag of clone that makes the child a thread of this process, and the flags that would give the
#: child namespaces of its own.
_CLONE_THREAD: Final = 0x00010000
_CLONE_NAMESPACES: Final = 0x7E020080


def confine(memory_bytes: int, *, threads: bool = False) -> bool:
    """Set resource limits; where libseccomp is usable, have the kernel kill this process at any unneeded system call.

    Args:
        memory_bytes: memory for images, in addition to what this process already uses.
        threads: whether this process may start threads; without libseccomp it never may.

    Returns:
        Whether system calls are filtered.
    """
    try:
        seccomp = ctypes.CDLL(_LIBRARY)
    except OSError:
        seccomp = None
    _limit(memory_bytes, threads=threads and seccomp is not None)  # from now on this process can open no library
    return seccomp is not None and _filter_system_calls(seccomp, threads=threads)


def _limit(memory_bytes: int, *, threads: bool) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():  # only Linux enforces this limit
        pages = int(statm.read_text().split()[0])
        _set(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes + SPARE_BYTES)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        _set(kind, 0)
    if not threads:  # this limit counts threads too
        _set(resource.RLIMIT_NPROC, 0)


def renew_cpu_time(limit_s: int) -> None:
    """Allow this process ``limit_s`` more seconds of CPU time, after which the kernel sends SIGXCPU."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + limit_s, hard))


def _filter_system_calls(seccomp: ctypes.CDLL, *, threads: bool) -> bool:
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_KILL_PROCESS)))
    if not rules:
        return False
    # This process may change only its own limit of CPU time.
    mine = (_Argument(0, _EQUAL, 0), _Argument(1, _EQUAL, resource.RLIMIT_CPU))
    allowed: list[tuple[str, int, tuple[_Argument, ...]]] = [(name, _ALLOW, ()) for name in SYSTEM_CALLS]
    allowed.append(("prlimit64", _ALLOW, mine))
    if threads:
        flags = _Argument(0, _EQUAL_WHERE_MASKED, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD)
        allowed += [(name, _ALLOW, ()) for name in THREAD_CALLS]
        # A filter cannot read the flags of clone3; this error makes the C library use clone instead.
        allowed += [("clone", _ALLOW, (flags,)), ("clone3", _ERROR_NO_SUCH_CALL, ())]
    for name, action, arguments in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # not every architecture has every call
            conditions = (_Argument * len(arguments))(*arguments)
            if seccomp.seccomp_rule_add_array(rules, ctypes.c_uint32(action), number, len(arguments), conditions):
                return False
    return bool(seccomp.seccomp_load(rules) == 0)


class _Argument(ctypes.Structure):
    """``struct scmp_arg_cmp``: a condition on an argument of a system call."""

    _fields_ = (
        ("number", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def _set(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
