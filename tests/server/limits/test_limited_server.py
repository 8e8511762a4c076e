"""What clients can take of a real server in a process of its own: connections, time and memory."""

import asyncio
import errno
import gzip
import io
import json
import resource
import signal
import socket
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from hostile_clients import OtherClient, SlowClients, exchange, host_and_port, malformed, statuses

CHILD = Path(__file__).parents[2] / "support" / "limited_server_child.py"
WITHIN = 60.0  # seconds; the machine may be busy
SHORT = {"header_time": 1.0, "idle_time": 1.0, "body_time": 1.0, "linger_time": 0.5, "unread_time": 1.0}
OK, BAD_REQUEST, TIMEOUT, TOO_LARGE, BUSY = 200, 400, 408, 413, 503


class Server:
    def __init__(self, process, address):
        self.process, self.address = process, address
        self.info = psutil.Process(process.pid)

    async def post(self, data, **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.post(
                self.address + "/count", data=io.BytesIO(data) if isinstance(data, bytes) else data, headers=names
            ) as reply,
        ):
            return reply.status, await reply.json()

    async def is_empty(self):
        """Wait until no client is connected any more."""
        async with asyncio.timeout(WITHIN):
            while any(one.status == psutil.CONN_ESTABLISHED for one in self.info.net_connections()):
                await asyncio.sleep(0.1)


@asynccontextmanager
async def serving(files=None, **limits):
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        CHILD,
        json.dumps(limits),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=few_files if files else None,
    )
    try:
        server = Server(process, (await process.stdout.readline()).decode().strip())
        yield server
    finally:
        if process.returncode is None:
            process.stdin.close()
        server.said = (await process.communicate())[1].decode()


async def test_slow_clients_are_closed_and_others_are_served_meanwhile():
    slow = SlowClients()
    async with serving(**SHORT, connections=100) as server:
        async with OtherClient(server.address, "/wait/0", 0.02) as other:
            await slow.attack(server.address, 300, WITHIN)

        assert slow.open == 0
        assert len(slow.ages) == 300
        assert float("inf") not in other.took
        await server.is_empty()
    assert "Traceback" not in server.said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel keeps fewer")
async def test_those_who_come_while_the_server_has_no_time_wait_in_the_kernel_and_need_not_ask_again():
    with open_files(4096), ExitStack() as closing:
        async with serving(connections=100) as server:
            server.process.send_signal(signal.SIGSTOP)
            waiting = [closing.enter_context(socket.socket()) for _ in range(1500)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(host_and_port(server.address))  # over loopback it is done when this returns
            kept = [one for one in waiting if one.connect_ex(host_and_port(server.address)) in {0, errno.EISCONN}]
            server.process.send_signal(signal.SIGCONT)
            assert len(kept) == len(waiting)
            assert await exchange(server.address, b"GET /wait/0 HTTP/1.0\r\n\r\n") == OK


@contextmanager
def open_files(count):
    """Be allowed to have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if -1 < hard < count or int(Path("/proc/sys/net/core/somaxconn").read_text()) < count:
        pytest.skip("this machine does not allow so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_accept_loop_without_files_goes_on_and_says_so_a_few_times():
    slow = SlowClients()
    async with serving(files=60, **SHORT, connections=100) as server:  # more connections than there are files
        async with OtherClient(server.address, "/wait/0", 0.02) as other:
            await slow.attack(server.address, 200, WITHIN)

        assert float("inf") not in other.took
        assert await exchange(server.address, b"GET /wait/0 HTTP/1.0\r\n\r\n") == OK
    assert "no connection can be taken: Too many open files" in server.said
    assert len(server.said.splitlines()) < 50
    assert "Traceback" not in server.said


async def test_what_takes_long_for_a_good_reason_goes_on():
    async with serving(**SHORT, body_rate=100) as server, aiohttp.ClientSession() as session:

        async def steady():
            yield b"["
            for _ in range(25):
                await asyncio.sleep(0.1)
                yield b" " * 50
            yield b"1]"

        async def wait():
            async with session.get(server.address + "/wait/2.5") as reply:
                return await reply.text()

        async def drip():
            async with session.get(server.address + "/drip/25") as reply:
                return len((await reply.text()).splitlines())

        async def slow_reader():
            async with session.get(server.address + "/pour") as reply:
                for _ in range(25):
                    await asyncio.sleep(0.1)
                    await reply.content.readexactly(3_000_000)  # more than all buffers on the way
                reply.close()
                return True

        found = await asyncio.gather(server.post(steady()), wait(), drip(), slow_reader())

        assert found == [(OK, {"items": 1}), "waited", 25, True]


async def test_a_client_that_does_not_read_its_reply_is_cut_off():
    async with serving(**SHORT) as server:
        reader, writer = await asyncio.open_connection(*host_and_port(server.address), limit=1024)
        writer.write(b"GET /pour HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await reader.read(100)
        writer.transport.pause_reading()

        await server.is_empty()
        writer.transport.abort()


async def test_a_body_that_comes_too_slowly_gets_words():
    async with serving(**SHORT) as server:

        async def never():
            yield b"["
            await asyncio.sleep(WITHIN)

        status, said = await server.post(never())

        assert status == TIMEOUT
        assert said["error"].startswith("the body came too slowly: 1 bytes in 1 s")


async def test_one_client_cannot_take_all_places_and_gets_words():
    async with serving(connections=4) as server, aiohttp.ClientSession() as session:
        answered = [await session.get(server.address + "/drip/100000") for _ in range(3)]

        assert await exchange(server.address, b"GET /wait/0 HTTP/1.0\r\n\r\n") == BUSY
        other = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with (
            aiohttp.ClientSession(connector=other) as elsewhere,
            elsewhere.get(server.address + "/wait/0") as other,
        ):
            assert other.status == OK
        for reply in answered:
            reply.close()


@pytest.mark.parametrize(
    ("make", "encoding", "status", "said"),
    [
        pytest.param(lambda: gzip.compress(b"[1, 2]"), "gzip", OK, None, id="packed"),
        pytest.param(
            lambda: gzip.compress(b"[" + b" " * 240_000_000 + b"]"), "gzip", TOO_LARGE, "longer than 32 MB", id="bomb"
        ),
        pytest.param(lambda: b"{}", "br", BAD_REQUEST, "not known here; send gzip, deflate", id="unknown"),
        pytest.param(lambda: b"{}", "gzip", BAD_REQUEST, "is not gzip", id="not packed"),
        pytest.param(lambda: b"[" + b"[]," * 8_000_000 + b"1]", "", BAD_REQUEST, "more than 500000 items", id="wide"),
        pytest.param(lambda: b"[" * 200 + b"]" * 200, "", BAD_REQUEST, "deeper than 128", id="deep"),
        pytest.param(lambda: b'{"a": "' + b"\\n" * 15_000_000 + b'"}', "", OK, None, id="long text"),
        pytest.param(lambda: b" " * 63_000_000, "", TOO_LARGE, "longer than 32 MB", id="long"),
    ],
)
async def test_a_body_costs_no_more_than_it_may(make, encoding, status, said):
    async with serving() as server:
        before, data = server.info.memory_info().rss, make()
        async with OtherClient(server.address, "/wait/0", 0.02) as other:
            found, body = await server.post(data, content_encoding=encoding)

        assert (found, said or "") == (status, said or "")
        assert (said or "") in body.get("error", "")
        assert float("inf") not in other.took
        assert server.info.memory_info().rss - before < 300_000_000


async def test_many_large_bodies_at_once_get_503_and_short_ones_go_on():
    async with serving(bodies_size=1_000_000) as server:
        large, status, halves = b" " * 500_000 + b"[]", OK, []
        async with asyncio.timeout(WITHIN):
            while status == OK:  # until the half body was there first
                halves.append((await asyncio.open_connection(*host_and_port(server.address)))[1])
                halves[-1].write(b"POST /count HTTP/1.1\r\nhost: x\r\ncontent-length: 990000\r\n\r\n" + b" " * 980_000)
                await halves[-1].drain()
                status, _ = await server.post(large)
        assert status == BUSY
        assert await server.post(b"[]") == (OK, {"items": 0})
        for half in halves:
            half.transport.abort()
        async with asyncio.timeout(WITHIN):
            while (await server.post(large))[0] != OK:
                await asyncio.sleep(0.05)


async def test_malformed_requests_cost_nothing_that_stays():
    async with serving(header_time=5.0, body_time=5.0) as server:
        found = await statuses(server.address, malformed(600))

        assert set(found) <= {None, *range(200, 500)}
        assert found[BAD_REQUEST] > 200
        await server.is_empty()
    assert len(server.said.splitlines()) < 200
    assert "Traceback" not in server.said
