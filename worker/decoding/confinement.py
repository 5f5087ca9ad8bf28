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
#: A thread needs these as well. Pillow starts none; libde265, which decodes HEIC pictures, always starts one.
THREAD_CALLS: Final = ("set_robust_list", "rseq", "prctl")
#: A 60-scan JPEG of the largest size takes about 20 s.
CPU_S_PER_IMAGE: Final = 30
#: This is added to the memory for images, because freed memory leaves gaps.
SPARE_BYTES: Final = 300_000_000

_LIBRARY: Final = "libseccomp.so.2"
_KILL_PROCESS: Final = 0x80000000  # SCMP_ACT_*, from <seccomp.h>
_ALLOW: Final = 0x7FFF0000
_ERROR_NO_SUCH_CALL: Final = 0x00050000 | errno.ENOSYS
_EQUAL: Final = 4
_EQUAL_WHERE_MASKED: Final = 7
#: From <sched.h>: what makes a thread of this process, and what would give it namespaces of its own.
_CLONE_THREAD: Final = 0x00010000
_CLONE_NAMESPACES: Final = 0x7E020080


def confine(memory_bytes: int, *, threads: bool = False) -> bool:
    """Set resource limits and, where libseccomp is usable, have the kernel kill this process at any other system call.

    Args:
        memory_bytes: memory for images, in addition to what this process already uses.
        threads: whether it may start threads, if the kernel filters its system calls.

    Returns:
        Whether system calls are filtered.
    """
    try:
        seccomp = ctypes.CDLL(_LIBRARY)
    except OSError:
        seccomp = None
    _limit(memory_bytes, threads=threads and seccomp is not None)  # only now: afterwards it can open no library
    return seccomp is not None and _filter_system_calls(seccomp, threads=threads)


def _limit(memory_bytes: int, *, threads: bool) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():  # only Linux enforces this limit
        pages = int(statm.read_text().split()[0])
        _set(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes + SPARE_BYTES)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        _set(kind, 0)
    if not threads:  # to the kernel a thread is a process, too
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
    # It may change only its own limit of CPU time.
    mine = (_Argument(0, _EQUAL, 0), _Argument(1, _EQUAL, resource.RLIMIT_CPU))
    allowed: list[tuple[str, int, tuple[_Argument, ...]]] = [(name, _ALLOW, ()) for name in SYSTEM_CALLS]
    allowed.append(("prlimit64", _ALLOW, mine))
    if threads:
        flags = _Argument(0, _EQUAL_WHERE_MASKED, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD)
        allowed += [(name, _ALLOW, ()) for name in THREAD_CALLS]
        # A filter cannot read the flags of clone3, so the C library is told to use clone.
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
