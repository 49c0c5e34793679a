"""How requests go to an S3 storage: none waits for ever, and bodies go with their heads.

The driver asks with every upload whether its body is welcome (``Expect: 100-continue``) and waits
for the answer without a limit of time; one lost answer then stops a program for as long as the
server keeps the connection, an hour and more. The question also costs one more way to the server
and back. Bodies are at most 100 MB here, so that nothing is lost by sending them unasked.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import HTTPClientError

ANSWER_SECONDS = 60.0
"""for a free connection, the way there and the head of the answer"""
SLOWEST_BYTES_A_SECOND = 20_000
"""of a body on its way; a connection below it is taken for dead"""


class NoAnswer(HTTPClientError):
    """A server that stands still.

    s3fs sends the request again, signed anew; the client below it does not know this error: both
    together would try for half an hour.
    """

    fmt = "no answer within {seconds:.0f} s"


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
        try:
            return await asyncio.wait_for(super().send(request), limit)
        except TimeoutError:
            raise NoAnswer(seconds=limit) from None
