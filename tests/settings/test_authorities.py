"""Files of certificates: what curl takes with ``--cacert`` is taken, the rest is refused by what it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from synaptic.backends.http.client import get_json, new_client
from synaptic.backends.http.origin import Origin
from synaptic.errors import BackendUnavailable, ConfigError
from synaptic.settings import load_settings
from synaptic.settings.authorities import MOST_BYTES, authorities_file
from synaptic.settings.edit import read_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is what it is compared with")

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
BAD_FILE = 77
"""How curl ends where it cannot use the file (``CURLE_SSL_CACERT_BADFILE``)."""


def openssl(*words: str | Path, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], input=data, check=True, capture_output=True, timeout=60)
    return done.stdout


class Made:
    """An authority, one in the middle that it has signed, a server's certificate of that, and an expired one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = self._signs_itself("root", "-addext", "basicConstraints=critical,CA:TRUE")
        self.alone = self._signs_itself(
            "alone", "-addext", "basicConstraints=CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"
        )
        self.middle = self._signed("middle", "root", "basicConstraints=critical,CA:TRUE\n")
        self.leaf = self._signed("leaf", "middle", "subjectAltName=IP:127.0.0.1\n")
        request = self._request("old")
        self.expired = openssl("x509", "-req", "-in", request, "-signkey", folder / "old.key", "-days", "-1")

    def key(self, name: str) -> bytes:
        return (self.folder / f"{name}.key").read_bytes()

    def chain(self, *parts: bytes, key: str) -> tuple[Path, Path]:
        path = self.folder / "chain.pem"
        path.write_bytes(b"".join(parts))
        return path, self.folder / f"{key}.key"

    def _signs_itself(self, name: str, *more: str) -> bytes:
        out = self.folder / f"{name}.pem"
        openssl(
            *("req", "-x509", *NEW_KEY, "-nodes", "-days", "2", "-subj", f"/CN={name}", *more),
            *("-keyout", self.folder / f"{name}.key", "-out", out),
        )
        return out.read_bytes()

    def _request(self, name: str) -> Path:
        out = self.folder / f"{name}.csr"
        key = self.folder / f"{name}.key"
        openssl("req", "-new", *NEW_KEY, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", out)
        return out

    def _signed(self, name: str, by: str, extensions: str) -> bytes:
        text, out = self.folder / f"{name}.ext", self.folder / f"{name}.pem"
        text.write_text(extensions)
        signer = ("-CA", self.folder / f"{by}.pem", "-CAkey", self.folder / f"{by}.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", self._request(name), *signer, "-days", "2", "-extfile", text, "-out", out)
        return out.read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("authorities"))


@asynccontextmanager
async def https_server(files: tuple[Path, Path]) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 11\r\n\r\n{"ok":true}')
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def curl(url: str, ca_file: Path) -> int:
    words = ("curl", "--noproxy", "*", "--silent", "--cacert", str(ca_file), f"{url}/x")
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL)
    async with asyncio.timeout(60):
        return await process.wait()


async def ask(url: str, ca_file: Path) -> bool:
    async with new_client(url, ca_file=ca_file) as client:
        try:
            return await get_json(client, "/x", origin=Origin("test", url)) == {"ok": True}
        except BackendUnavailable:
            return False


ACCEPTED: dict[str, Callable[[Made], bytes]] = {
    "alone": lambda made: made.root,
    "without an end of line": lambda made: made.root.rstrip(),
    "carriage returns": lambda made: made.root.replace(b"\n", b"\r\n"),
    "byte order mark": lambda made: b"\xef\xbb\xbf" + made.root,
    "text around": lambda made: b"# Office\n\nIssuer: us\n" + made.root + b"\nthe end \xe4 \x00\n",
    "blanks at the ends of lines": lambda made: made.root.replace(b"\n", b"  \n"),
    "explained by openssl": lambda made: openssl("x509", "-text", data=made.root),
    "trusted": lambda made: openssl("x509", "-trustout", data=made.root),
    "old label": lambda made: made.root.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-"),
    "after another one": lambda made: made.alone + made.root,
    "with an expired one": lambda made: made.expired + made.root,
    "with its key": lambda made: made.key("root") + made.root,
    "with a locked key": lambda made: (
        openssl("pkey", "-traditional", "-aes128", "-passout", "pass:x", data=made.key("root")) + made.root
    ),
    "with a request": lambda made: (made.folder / "old.csr").read_bytes() + made.root,
    "the one in the middle": lambda made: made.middle,
    "the server's own": lambda made: made.leaf,
}


@needs_curl
@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_curl_takes_is_taken(made: Made, tmp_path: Path, case: str) -> None:
    path = tmp_path / "office.pem"
    path.write_bytes(ACCEPTED[case](made))
    async with https_server(made.chain(made.leaf, made.middle, key="leaf")) as url:
        assert await curl(url, path) == 0, "curl takes it"
        assert await ask(url, path)
    assert authorities_file(str(path)) == path


@needs_curl
async def test_a_certificate_that_signs_itself_and_nothing_else(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "office.pem"
    path.write_bytes(made.alone)
    async with https_server(made.chain(made.alone, key="alone")) as url:
        assert await curl(url, path) == 0, "curl takes it"
        assert await ask(url, path)
        path.write_bytes(made.expired)
        assert await curl(url, path) not in {0, BAD_FILE}
        assert authorities_file(str(path)) == path
        assert not await ask(url, path), "what the file does not vouch for is not believed"


REFUSED: dict[str, tuple[Callable[[Made], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "blank": (lambda _: b"\n \n", "is empty"),
    "text": (lambda _: b"hello\n", "has no certificate in PEM"),
    "binary": (lambda _: bytes(range(256)) * 8, "has no certificate in PEM"),
    "key": (lambda made: made.key("root"), "holds a private key and no certificate"),
    "public key": (lambda made: openssl("pkey", "-pubout", data=made.key("root")), "holds a public key and no"),
    "request": (lambda made: (made.folder / "old.csr").read_bytes(), "holds a request for a certificate and no"),
    "DER": (lambda made: openssl("x509", "-outform", "der", data=made.root), "is a certificate in DER"),
    "PKCS#12": (
        lambda made: openssl(
            "pkcs12", "-export", "-nokeys", "-passout", "pass:x", "-in", str(made.folder / "root.pem")
        ),
        "is binary, and no certificate in PEM",
    ),
    "PKCS#7": (
        lambda made: openssl("crl2pkcs7", "-nocrl", "-certfile", str(made.folder / "root.pem")),
        r"holds a PKCS#7 archive and no",
    ),
    "UTF-16": (lambda made: made.root.decode().encode("utf-16"), "is text in UTF-16"),
    "cut": (lambda made: made.root[:300], "has a damaged certificate"),
    "a damaged one behind a good one": (lambda made: made.root + made.alone[:300], "has a damaged certificate"),
    "too short": (
        lambda _: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "has a damaged certificate",
    ),
}


@needs_curl
@pytest.mark.parametrize("case", REFUSED)
async def test_what_curl_refuses_is_refused_by_what_it_is(made: Made, tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "office.pem"
    path.write_bytes(content(made))
    async with https_server(made.chain(made.leaf, made.middle, key="leaf")) as url:
        assert await curl(url, path) == BAD_FILE
    with pytest.raises(ConfigError, match=rf"office\.pem {message}") as caught:
        authorities_file(str(path))
    assert caught.value.hint
    with pytest.raises(ConfigError, match=message):
        new_client("https://node:1", ca_file=path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    long = tmp_path / "long"
    with long.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for name, message in (
        (tmp_path / "none.pem", r"there is no file .*none\.pem"),
        (tmp_path, "is a directory"),
        (pipe, "it is a pipe, not a regular file"),
        (long, "is longer than 16 MiB"),
        (tmp_path / "none.pem" / "x", "there is no file"),
        ("a\0b", "cannot be read: it is no path"),
    ):
        with pytest.raises(ConfigError, match=message):
            authorities_file(str(name))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "office.pem"
    path.touch(mode=0o000)
    with pytest.raises(ConfigError, match="cannot be read: permission denied"):
        authorities_file(str(path))


def test_it_is_said_when_the_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    config = tmp_path / "settings.json"
    config.write_text(
        '{\n  "nodes": [\n    "http://127.0.0.1:1",\n'
        f'    {{"url": "https://desk", "ca_file": "{tmp_path}/empty.pem"}},\n'
        f'    {{"url": "https://attic", "ca_file": "{tmp_path}/none.pem"}}\n  ]\n}}\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(config_path=config, environ={}, cwd=tmp_path)
    first, second = caught.value.problems
    assert (first.source, first.line) == (str(config), 4)
    assert first.message == f"nodes[1].ca_file: {tmp_path}/empty.pem is empty"
    assert (second.line, second.message) == (5, f"nodes[2].ca_file: there is no file {tmp_path}/none.pem")
    hidden = load_settings(config_path=config, overrides=["nodes=http://127.0.0.1:2"], environ={}, cwd=tmp_path)
    assert [node.url for node in hidden.settings.nodes] == ["http://127.0.0.1:2"]


def test_it_is_said_before_a_node_is_added(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*none\.pem"):
        read_node({"url": "https://desk", "ca_file": str(tmp_path / "none.pem")})
