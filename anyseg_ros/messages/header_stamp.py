"""The stamp of a serialized message that begins with a std_msgs/Header, read and set without decoding the rest."""

from __future__ import annotations

import struct

from anyseg_core.runtime.time_units import NS_PER_S

_AT, _BYTES = 4, 8
"""Where it lies: after the 4 bytes of encapsulation, as int32 seconds and uint32 nanoseconds."""
_INT32 = 2**31


def header_stamp_ns(cdr: bytes | memoryview) -> int | None:
    """The stamp in nanoseconds; None of a stump."""
    if len(cdr) < _AT + _BYTES:
        return None
    seconds, nanoseconds = struct.unpack_from(_format(cdr), cdr, _AT)
    return seconds * NS_PER_S + nanoseconds


def with_header_stamp(cdr: bytes | memoryview, stamp_ns: int) -> bytes | memoryview:
    """Another stamp, as near as a message can say it; a stump stays as it is."""
    if len(cdr) < _AT + _BYTES:
        return cdr
    seconds, nanoseconds = divmod(stamp_ns, NS_PER_S)
    stamped = bytearray(cdr)
    struct.pack_into(_format(cdr), stamped, _AT, min(max(seconds, -_INT32), _INT32 - 1), nanoseconds)
    return bytes(stamped)


def _format(cdr: bytes | memoryview) -> str:
    """The encapsulation's second byte is odd where the message is little-endian."""
    return "<iI" if cdr[1] & 1 else ">iI"
