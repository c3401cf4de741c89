"""A pytest plugin for the moved clock: setting a variable never frees the list of variables that another thread reads.

`setenv` of glibc before 2.41 frees the old list, and libfaketime reads it at every `getpid` and `getrandom`, in every
thread. A test that set a new variable while a server ran in a thread of the same process crashed it (SIGSEGV,
2026-11-30). Here each change makes a list of its own, in memory that nobody frees.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None)
_libc.malloc.restype = _libc.strdup.restype = ctypes.c_void_p
_libc.malloc.argtypes, _libc.strdup.argtypes = (ctypes.c_size_t,), (ctypes.c_char_p,)
_list = ctypes.c_void_p.in_dll(_libc, "environ")


def _entry(key: bytes, value: bytes) -> int:
    copy: int = _libc.strdup(key + b"=" + value)
    return copy


_entries = {key: _entry(key, value) for key, value in os.environb.items()}


def _publish() -> None:
    size = len(_entries) + 1
    address = _libc.malloc(size * ctypes.sizeof(ctypes.c_void_p))
    (ctypes.c_void_p * size).from_address(address)[:] = [*_entries.values(), None]
    _list.value = address


def _putenv(key: bytes | str, value: bytes | str) -> None:
    _entries[os.fsencode(key)] = _entry(os.fsencode(key), os.fsencode(value))
    _publish()


def _unsetenv(key: bytes | str) -> None:
    _entries.pop(os.fsencode(key), None)
    _publish()


# `os.environ` looks these two names up in its module at each change.
os.putenv, os.unsetenv = _putenv, _unsetenv
