"""S3 requests with a time limit, and uploads that send their body at once and without a copy.

The driver asks before every upload whether the server accepts the body (`Expect: 100-continue`) and
waits for the answer without a time limit. A lost answer stops the program for as long as the server
keeps the connection, an hour or more. The question also costs one round trip. Bodies have at most
100 MB here, so little is lost if the server rejects a body that was sent unasked.

The HTTP client below the driver copies the whole body before it sends it, and blocks every other
thread meanwhile. Here the body is sent from the memory in which it lies.

This module subclasses internals of aiobotocore and aiohttp, because neither has a setting for the
time limit or the copy. The tests run it against a local S3 server, so that an update of the
libraries that breaks it is noticed.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from botocore.exceptions import HTTPClientError

ANSWER_SECONDS = 60.0
"""time limit for a free connection, the way to the server and the head of its answer"""
SLOWEST_BYTES_A_SECOND = 20_000
"""lowest upload speed; a connection that is slower is taken for dead"""
_PIECE_BYTES = 1 << 18
"""bytes handed to the connection at once; other tasks of the event loop run in between"""


class NoAnswer(HTTPClientError):
    """The server did not answer in time.

    s3fs signs and sends the request again. botocore, below it, must not retry as well, or both
    together would try for half an hour: this class is one that botocore does not know.
    """

    fmt = "no answer within {seconds:.0f} s"


class Body(Payload):
    """The bytes of an upload, sent piece by piece. They can be sent several times."""

    _autoclose = True

    def __init__(self, content: bytes):
        super().__init__(content)
        self._size = len(content)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content as text."""
        return self._value.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the content."""
        return self._value

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the whole content."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Send the first `content_length` bytes, or the whole content if None."""
        content = memoryview(self._value)[:content_length]
        for first in range(0, len(content), _PIECE_BYTES):
            await writer.write(content[first : first + _PIECE_BYTES])
            await asyncio.sleep(0)


class BoundedSession(AIOHTTPSession):
    """The driver's session with a time limit for the head of every answer.

    For the body of an answer the driver has a limit of its own (`read_timeout`).
    """

    async def send(self, request: Any) -> Any:
        """Send a request and return its answer.

        Raises
        ------
        NoAnswer
            The server did not answer in time.
        """
        # The signature does not cover this header, so it may be removed.
        request.headers.pop("Expect", None)
        length = int(request.headers.get("Content-Length") or 0)
        limit = ANSWER_SECONDS + length / SLOWEST_BYTES_A_SECOND
        body = request.body
        if isinstance(body, io.BytesIO):
            # getvalue() returns the bytes that the buffer was made from, without a copy.
            request.body = Body(body.getvalue())
        try:
            return await asyncio.wait_for(super().send(request), limit)
        except TimeoutError:
            raise NoAnswer(seconds=limit) from None
        finally:
            # The retry layer rewinds the body before it sends the request again.
            request.body = body
