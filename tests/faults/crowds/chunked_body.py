"""Bodies of responses that come in any pieces, for clients that check what they read."""

from __future__ import annotations


class Body:
    """The body of a response, in chunks (RFC 9112, 7.1)."""

    __slots__ = ("_head", "_left", "_raw", "has_begun", "is_over")

    def __init__(self) -> None:
        self.has_begun = False  #: the head of the response has come
        self.is_over = False  #: the last chunk has come
        self._head = b""
        self._raw = b""
        self._left = 0  # bytes of this chunk, with the line end after it

    def take(self, data: bytes) -> bytes:
        """Return the part of the body that came with these data."""
        if not self.has_begun:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return b""
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head:
                raise ValueError(f"got {head!r} and {data[:1000]!r}")
            self.has_begun = True
        return self._unchunked(data)

    def _unchunked(self, data: bytes) -> bytes:
        if self._raw:
            data, self._raw = self._raw + data, b""
        parts: list[bytes] = []
        at, left, size = 0, self._left, len(data)
        while at < size:
            if not left:
                line = data.find(b"\r\n", at)
                if line < 0:
                    self._raw = data[at:]
                    break
                left = int(data[at:line], 16) + 2
                if left == 2:
                    self.is_over = True
                    break
                at = line + 2
            if left > 2:
                parts.append(data[at : at + left - 2])
            taken = min(left, size - at)
            at += taken
            left -= taken
        self._left = left
        return parts[0] if len(parts) == 1 else b"".join(parts)
