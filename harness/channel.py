"""Messages between the runner and its workers: lines of JSON over a socket."""

from __future__ import annotations

import json
import socket
from typing import Any

from harness.errors import BadOutput

MAX_LINE = 16 << 20
"""Bytes of a message: a curve of 400,000 points. What Python makes of it takes some twenty times as much."""


class Channel:
    """Lines of JSON over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._looked = 0  # how much of it has no end of a message

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message. Raises `OSError` when the other side is gone."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message, waiting for it; None when the other side is gone."""
        while True:
            message = self.take()
            if message is not None:
                return message
            if not self.fill():
                return None

    def fill(self) -> bool:
        """Read what is there; False when the other side is gone. Blocks when nothing is there yet."""
        try:
            chunk = self._connection.recv(1 << 16)
        except ConnectionError:
            return False
        self._buffer += chunk
        if len(self._buffer) > MAX_LINE:
            raise BadOutput(f"a message of more than {MAX_LINE >> 20} MiB")
        return bool(chunk)

    def take(self) -> dict[str, Any] | None:
        """A whole message that has been read already, or None. Raises `BadOutput` when it is none of ours."""
        end = self._buffer.find(b"\n", self._looked)
        if end < 0:
            self._looked = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._looked = 0
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadOutput(f"a message that is not JSON: {error}") from None
        if not isinstance(message, dict):
            raise BadOutput("a message that is not an object")
        return message

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
