"""Bodies of uploads to an S3 storage."""

from __future__ import annotations

import asyncio
import os
import tracemalloc

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from pipelines.storage import places, s3
from pipelines.storage.s3 import Body
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.object_storage import S3Server, in_environment, s3_server

__all__ = ["s3_server"]

PIECE = s3._PIECE_BYTES


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7])
def test_a_body_that_is_sent_twice_arrives_unchanged_both_times(size: int):
    content, body = os.urandom(size), None

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def send() -> list[bytes]:
        nonlocal body
        body = Body(content)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_put("/", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        answers = []
        async with ClientSession(timeout=ClientTimeout(120)) as session:
            for _ in range(2):
                async with session.put(f"http://127.0.0.1:{port}/", data=body) as answer:
                    answers.append(await answer.read())
        await runner.cleanup()
        return answers

    assert asyncio.run(send()) == [content, content]
    assert body is not None
    assert body.size == size


def test_an_upload_does_not_copy_its_body(s3_server: S3Server):
    place, content = f"{s3_server.bucket()}/object", os.urandom(48 << 20)
    places.write_bytes(f"{place}-first", b"the first upload fills caches of the driver")
    tracemalloc.start()
    try:
        places.write_bytes(place, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(content) / 4
    assert places.read_bytes(place) == content


def test_a_rejected_upload_is_sent_again_as_a_whole(s3_server: S3Server):
    folder, content = s3_server.bucket(), os.urandom(3 * PIECE + 11)
    relay = LatencyProxy(s3_server.port, 0.0, slow_down_every=2)
    try:
        with in_environment({"AWS_ENDPOINT_URL": relay.endpoint}):
            for number in range(4):
                places.write_bytes(f"{folder}/{number}", content)
    finally:
        relay.close()
    assert relay.counts()["503"] > 0
    assert [places.read_bytes(f"{folder}/{number}") for number in range(4)] == [content] * 4
