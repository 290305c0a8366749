"""What SQLite asks of its files, recorded, and what a power cut may leave of it.

`recording` puts a layer between SQLite and the operating system, by way of the library's own interface for that (a
VFS), called through ctypes: whoever opens a database meanwhile, the product's real code among them, is recorded, and
needs not know. `PowerCuts` replays a recording: what was synced is on the disk, of everything since then each write may
have happened, may not, or may have happened for some of its sectors only, whatever its order.

The index of the write-ahead log ("-shm") is memory that SQLite rebuilds after a crash, hence not part of an image.
Source: https://sqlite.org/c3ref/vfs.html, https://sqlite.org/c3ref/io_methods.html.
"""

import _sqlite3
import ctypes
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
DROPPED_SHARE, TORN_SHARE = 0.4, 0.3  # of the unsynced writes; the rest happened
SQLITE_OK = 0
LOGS = ("-wal", "-journal")

_Address = ctypes.c_void_p
_Int, _Long, _Text = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_OPEN = ctypes.CFUNCTYPE(_Int, _Address, _Address, _Address, _Int, _Address)
_DELETE = ctypes.CFUNCTYPE(_Int, _Address, _Text, _Int)
_CLOSE = ctypes.CFUNCTYPE(_Int, _Address)
_WRITE = ctypes.CFUNCTYPE(_Int, _Address, _Address, _Int, _Long)
_TRUNCATE = ctypes.CFUNCTYPE(_Int, _Address, _Long)
_SYNC = ctypes.CFUNCTYPE(_Int, _Address, _Int)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", _Int),
        ("file_size", _Int),
        ("path_max", _Int),
        ("next", _Address),
        ("name", _Text),
        ("data", _Address),
        ("open", _Address),
        ("delete", _Address),
        ("others", _Address * 14),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", _Int),
        ("close", _Address),
        ("read", _Address),
        ("write", _Address),
        ("truncate", _Address),
        ("sync", _Address),
        ("others", _Address * 13),
    ]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was asked of a file.

    Attributes:
        kind: "write", "truncate", "sync", "delete", or "note": what the test wants to remember at this place.
        file: its name within its folder; empty for a note.
        at: offset of a write, size after a truncation, 1 for a deletion whose folder is synced, or what is noted.
        data: what is written.
    """

    kind: str
    file: str
    at: int = 0
    data: bytes = b""


def library():
    """The SQLite that Python's sqlite3 uses, or None where its interface cannot be reached from outside."""
    try:
        found = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        found.sqlite3_libversion.restype = _Text
        found.sqlite3_vfs_find.restype = _Address
    except (AttributeError, OSError):
        return None
    return found if found.sqlite3_libversion().decode() == sqlite3.sqlite_version else None


class Recording:
    """The operations so far, in order.

    Attributes:
        operations: all of them.
    """

    def __init__(self):
        self.operations = []
        self._names = {}  # of open files, by the address of SQLite's handle
        self._kept = []  # what SQLite holds addresses of must not be collected

    def note(self, value):
        """Remember `value` at this place of the recording."""
        self.operations.append(Operation("note", "", value))

    def vfs_over(self, lower):
        """A VFS that does what `lower` does, and records it."""
        upper = _Vfs.from_buffer_copy(lower)
        upper.name = b"recording"
        lower_open, lower_delete = _OPEN(lower.open), _DELETE(lower.delete)

        def open_file(_vfs, path, file, flags, flags_out):
            code = lower_open(ctypes.addressof(lower), path, file, flags, flags_out)
            if code == SQLITE_OK and path:
                self._names[file] = Path(ctypes.string_at(path).decode()).name
                methods = ctypes.cast(file, ctypes.POINTER(_Address))
                methods[0] = ctypes.addressof(self._methods_over(_Methods.from_address(methods[0])))
            return code

        def delete(_vfs, path, sync_folder):
            code = lower_delete(ctypes.addressof(lower), path, sync_folder)
            if code == SQLITE_OK:
                self._record("delete", Path(path.decode()).name, sync_folder)
            return code

        upper.open = self._address(_OPEN, open_file)
        upper.delete = self._address(_DELETE, delete)
        self._kept += [upper, lower_open, lower_delete]
        return upper

    def _methods_over(self, lower):
        upper = _Methods.from_buffer_copy(lower)
        close, write = _CLOSE(lower.close), _WRITE(lower.write)
        truncate, sync = _TRUNCATE(lower.truncate), _SYNC(lower.sync)

        def recorded_write(file, data, size, at):
            code = write(file, data, size, at)
            return self._done(code, "write", file, at, ctypes.string_at(data, size))

        def recorded_truncate(file, size):
            return self._done(truncate(file, size), "truncate", file, size)

        def recorded_sync(file, flags):
            return self._done(sync(file, flags), "sync", file)

        def recorded_close(file):
            self._names.pop(file, None)
            return close(file)

        upper.write = self._address(_WRITE, recorded_write)
        upper.truncate = self._address(_TRUNCATE, recorded_truncate)
        upper.sync = self._address(_SYNC, recorded_sync)
        upper.close = self._address(_CLOSE, recorded_close)
        self._kept += [upper, close, write, truncate, sync]
        return upper

    def _address(self, prototype, function):
        callback = prototype(function)
        self._kept.append(callback)
        return ctypes.cast(callback, _Address)

    def _done(self, code, kind, file, at=0, data=b""):
        if code == SQLITE_OK:
            self._record(kind, self._names[file], at, data)
        return code

    def _record(self, kind, name, at=0, data=b""):
        self.operations.append(Operation(kind, name, at, data))


@contextmanager
def recording():
    """Record every database that is opened meanwhile; all have to be closed before it ends."""
    sqlite = library()
    lower = _Vfs.from_address(sqlite.sqlite3_vfs_find(None))
    made = Recording()
    upper = made.vfs_over(lower)
    assert sqlite.sqlite3_vfs_register(ctypes.byref(upper), 1) == SQLITE_OK
    try:
        yield made
    finally:
        sqlite.sqlite3_vfs_unregister(ctypes.byref(upper))
        assert sqlite.sqlite3_vfs_register(ctypes.byref(lower), 1) == SQLITE_OK
        assert made._names == {}


class PowerCuts:
    """What a power cut may leave, at one place of the recording after the other.

    A file that was never synced need not be there, and one that was deleted may be back, until its folder is synced:
    SQLite does that with a deletion where it asks for it, and with the first sync of a new log.
    """

    def __init__(self, operations):
        self._operations = operations
        self._synced = {}  # content on the disk for certain, by file
        self._unsynced = {}  # operations since then, by file
        self._deleted = {}  # content of files that may be back
        self._place = 0
        self.noted = None

    def advance_to(self, place):
        """Let everything before `place` happen, an index of the recording not before the last one."""
        for operation in self._operations[self._place : place]:
            name = operation.file
            if operation.kind == "note":
                self.noted = operation.at
            elif operation.kind == "delete":
                content = self._synced.pop(name, None)
                self._unsynced.pop(name, None)
                if content is not None and not operation.at:
                    self._deleted[name] = content
            elif operation.kind == "sync":
                if name not in self._synced and name.endswith(LOGS):
                    self._deleted.clear()
                content = self._synced.setdefault(name, bytearray())
                for waiting in self._unsynced.pop(name, ()):
                    _apply(content, waiting)
            else:
                self._unsynced.setdefault(name, []).append(operation)
        self._place = place

    def unsynced(self):
        """How many operations a cut at this place may lose."""
        return sum(map(len, self._unsynced.values()))

    def leave(self, folder, rng):
        """Write into `folder` what a cut at this place leaves, by the chances of `rng`."""
        for name in {*self._synced, *self._unsynced}:
            content = bytearray(self._synced.get(name, b""))
            for operation in self._unsynced.get(name, ()):
                chance = rng.random()
                if chance >= DROPPED_SHARE + TORN_SHARE:
                    _apply(content, operation)
                elif chance >= DROPPED_SHARE and operation.kind == "write":
                    for sector in _sectors(operation):
                        if rng.random() < 0.5:
                            _apply(content, sector)
            if name in self._synced or content:
                (folder / name).write_bytes(content)
        for name, content in self._deleted.items():
            if not (folder / name).exists() and rng.random() < 0.5:
                (folder / name).write_bytes(content)


def _apply(content, operation):
    if operation.kind == "truncate":
        del content[operation.at :]
        return
    end = operation.at + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[operation.at : end] = operation.data


def _sectors(operation):
    """A write as writes of one sector or a part of one each."""
    at, end = operation.at, operation.at + len(operation.data)
    while at < end:
        until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield Operation("write", operation.file, at, operation.data[at - operation.at : until - operation.at])
        at = until
