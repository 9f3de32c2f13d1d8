"""Fuzzed bytes as numbers, choices and payloads."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import TypeVar

UINT32_MAX = 2**32 - 1
ODD_NUMBERS = (0, 1, 2, 3, 2**15, 2**16, 2**31 - 1, 2**31, UINT32_MAX)
"""Where sizes and offsets overflow, wrap and divide by zero."""

_Item = TypeVar("_Item")


class ByteSource:
    """Fuzzed bytes, read as numbers and choices; what is missing at the end reads as zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        self._at += count
        return self._data[self._at - count : self._at]

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def integer(self, low: int, high: int) -> int:
        size = (int(high - low).bit_length() + 7) // 8
        return low + int.from_bytes(self.take(size), "little") % (high - low + 1)

    def chance(self, one_in: int) -> bool:
        return self.integer(0, one_in - 1) == 1

    def choice(self, items: Sequence[_Item]) -> _Item:
        return items[self.integer(0, len(items) - 1)]

    def near(self, right: int) -> int:
        """A uint32: mostly `right`, else one beside it, an odd number, or any."""
        kind = self.integer(0, 31)
        if kind < 29:
            return right
        if kind == 29:
            return max(0, right + self.integer(-2, 2))
        return self.choice(ODD_NUMBERS) if kind == 30 else self.integer(0, UINT32_MAX)

    def payload(self, size: int) -> bytes | array.array[int]:
        """A message's data of about that many bytes, in one of the types that rclpy and rosbags deliver."""
        wanted = min(self.near(size), size + 4096)
        pattern = self.take(min(wanted, 256)) or b"\0"
        data = (pattern * (wanted // len(pattern) + 1))[:wanted]
        return array.array("B", data) if self.chance(2) else data
