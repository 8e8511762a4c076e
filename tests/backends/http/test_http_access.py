"""Credentials and certificates of a server, over real TLS."""

from __future__ import annotations

import asyncio
import base64

import psutil
import pytest
from certificates import Certificate, https_server, needs_openssl, self_signed
from fault_server import FaultServer, json_reply

from synaptic.backends.http.client import authorization, get_json, new_client, post_json
from synaptic.backends.http.origin import Origin
from synaptic.errors import BackendUnavailable, ConfigError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for 127.0.0.1 that signs itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@needs_openssl
async def test_a_node_with_its_own_authority(certificate: Certificate) -> None:
    async with https_server(certificate) as url, new_client(url, ca_file=certificate[0]) as client:
        for _ in range(2):
            assert await post_json(client, "/x", {}, origin=Origin("test", url)) == {"ok": True}


@needs_openssl
async def test_a_certificate_that_nobody_vouches_for(certificate: Certificate) -> None:
    async with https_server(certificate) as url:
        async with new_client(url) as client:
            with pytest.raises(BackendUnavailable, match=r"no secure connection to https://.*(?i:certificate)"):
                await get_json(client, "/x", origin=Origin("test", url))
        async with new_client(url, verify=False) as trusting:
            assert await get_json(trusting, "/x", origin=Origin("test", url)) == {"ok": True}


@needs_openssl
async def test_a_certificate_for_another_name(certificate: Certificate) -> None:
    async with https_server(certificate) as url:
        other = url.replace("127.0.0.1", "localhost")
        async with new_client(other, ca_file=certificate[0]) as client:
            with pytest.raises(BackendUnavailable, match="no secure connection"):
                await get_json(client, "/x", origin=Origin("test", other))


@needs_openssl
async def test_cancelled_over_tls_at_any_step(certificate: Certificate) -> None:
    """An orderly end of TLS would wait for the server, which may have stopped."""
    async with https_server(certificate) as url:
        async with new_client(url, ca_file=certificate[0]) as client:
            await get_json(client, "/x", origin=Origin("test", url))
        await asyncio.sleep(0.05)
        before = psutil.Process().num_fds()
        for count in range(0, 120, 3):
            async with new_client(url, ca_file=certificate[0]) as client:
                call = asyncio.ensure_future(get_json(client, "/hang", origin=Origin("test", url)))
                for _ in range(count):
                    await asyncio.sleep(0.0001)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        async with asyncio.timeout(60):
            while psutil.Process().num_fds() > before:
                await asyncio.sleep(0.01)


async def test_credentials_are_sent() -> None:
    async with FaultServer(json_reply({})) as server:
        for headers in (authorization(token="geheim\n"), authorization(user="me", password="pä:ss"), {}):
            async with new_client(server.url, headers=headers) as client:
                await get_json(client, "/x", origin=Origin("test", server.url))
                assert "geheim" not in repr(client)
        bearer, basic, none = (request.headers.get("authorization") for request in server.requests)
    assert bearer == "Bearer geheim"
    assert basic == "Basic " + base64.b64encode("me:pä:ss".encode()).decode()
    assert none is None


async def test_credentials_in_the_address_are_sent_and_not_shown() -> None:
    async with FaultServer(json_reply({})) as server:
        async with new_client(server.url.replace("//", "//me:geh%20eim@")) as client:
            await get_json(client, "/x", origin=Origin("test", server.url))
            await client.get("/y")
            assert "eim" not in repr(client)
        expected = "Basic " + base64.b64encode(b"me:geh eim").decode()
        assert [request.headers.get("authorization") for request in server.requests] == [expected, expected]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"token": "geheim", "user": "me"}, "a token and a password"),
        ({"token": "  "}, "token of a node is empty"),
        ({"token": "geheim\nx"}, "character that no token can have"),
        ({"token": "geh eim"}, "character that no token can have"),
        ({"token": "gehéim"}, "character that no token can have"),
        ({"password": "geheim"}, "but no user"),
        ({"user": "a:b", "password": "geheim"}, "has a ':' in it"),
    ],
)
def test_credentials_that_cannot_be_sent(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        authorization(**given)
    assert "geh" not in str(caught.value)


def test_a_header_that_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="the header 'X-Key' has a character that cannot be sent") as caught:
        new_client("http://node:1", headers={"X-Key": "geheim\r\nx: y"})
    assert "geheim" not in str(caught.value)
