"""How requests go to an S3 storage: none waits for ever, bodies go with their heads, uncopied.

The driver asks with every upload whether its body is welcome (``Expect: 100-continue``) and waits
for the answer without a limit of time; one lost answer then stops a program for as long as the
server keeps the connection, an hour and more. The question also costs one more way to the server
and back. Bodies are at most 100 MB here, so that nothing is lost by sending them unasked.

The HTTP client below the driver copies the whole body before it sends it, with every other thread
of the program waiting; here it goes out of the memory in which it lies.
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
"""for a free connection, the way there and the head of the answer"""
SLOWEST_BYTES_A_SECOND = 20_000
"""of a body on its way; a connection below it is taken for dead"""


_PIECE_BYTES = 1 << 18
"""of a body that are handed to the connection at once; between two of them others have a turn"""


class NoAnswer(HTTPClientError):
    """A server that stands still.

    s3fs sends the request again, signed anew; the client below it does not know this error: both
    together would try for half an hour.
    """

    fmt = "no answer within {seconds:.0f} s"


class Body(Payload):
    """Bytes that are sent piece by piece, as often as the request is."""

    _autoclose = True

    def __init__(self, content: bytes):
        super().__init__(content)
        self._size = len(content)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content as text."""
        return self._value.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The content."""
        return self._value

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Send the first ``content_length`` bytes, or all."""
        content = memoryview(self._value)[:content_length]
        for first in range(0, len(content), _PIECE_BYTES):
            await writer.write(content[first : first + _PIECE_BYTES])
            await asyncio.sleep(0)


class BoundedSession(AIOHTTPSession):
    """The driver's session, with an end to the wait for every answer.

    Bodies of answers have the driver's own limit on a silence (``read_timeout``).
    """

    async def send(self, request: Any) -> Any:
        """Send a request and wait for its answer.

        Raises
        ------
        NoAnswer
            None came in time.
        """
        # The signature does not cover this header.
        request.headers.pop("Expect", None)
        length = int(request.headers.get("Content-Length") or 0)
        limit = ANSWER_SECONDS + length / SLOWEST_BYTES_A_SECOND
        body = request.body
        if isinstance(body, io.BytesIO):
            # The bytes themselves, where the buffer was made of bytes.
            request.body = Body(body.getvalue())
        try:
            return await asyncio.wait_for(super().send(request), limit)
        except TimeoutError:
            raise NoAnswer(seconds=limit) from None
        finally:
            # Who sends the request again winds its body back.
            request.body = body
