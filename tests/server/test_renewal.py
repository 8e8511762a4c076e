"""What SIGHUP reads again, in this process: the certificate and the settings of a gateway that serves."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from certificates import needs_openssl, self_signed
from tool_node import MODEL, tool_node

from synaptic.errors import UsageError
from synaptic.models import ModelStore
from synaptic.server.gateway import TlsFiles
from synaptic.server.ollama_api import ServeSettings
from synaptic.server.program import serve
from synaptic.server.program.renewal import Renewal, renewed
from synaptic.settings.load import Settings
from synaptic.ui.commands.serve import settings_again
from synaptic.ui.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.messages import BackendReport


class Heard:
    """What was reported."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, report: BackendReport) -> None:
        self.said.append(getattr(report, "message", ""))

    async def until(self, text: str) -> None:
        async with asyncio.timeout(60):
            while not any(text in line for line in self.said):
                await asyncio.sleep(0.005)


async def test_each_thing_is_renewed_and_what_is_wrong_is_said() -> None:
    heard = Heard()

    def fails(error: UsageError) -> Renewal:
        async def renew() -> str:
            raise error

        return Renewal("it stays", renew)

    async def done() -> str:
        return "renewed it"

    things = [fails(UsageError("wrong")), fails(UsageError("worse", hint="mend it")), Renewal("", done)]
    with renewed(things, heard):
        signal.raise_signal(signal.SIGHUP)
        await heard.until("renewed it")
    assert heard.said == ["it stays: wrong", "it stays: worse; mend it", "renewed it"]
    with renewed([], heard):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


async def test_what_was_read_last_serves_however_many_signals_come() -> None:
    heard, may_go_on = Heard(), asyncio.Event()
    content, serves, reads = "old", "", 0

    async def renew() -> str:
        nonlocal serves, reads
        reads += 1
        read = content
        await may_go_on.wait()  # the first one is slow
        serves = read
        return f"read {read}"

    with renewed([Renewal("", renew)], heard):
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
        content = "new"
        for _ in range(5):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0.001)
        may_go_on.set()
        await heard.until("read new")
    assert (serves, reads, heard.said) == ("new", 2, ["read old", "read new"])


def test_a_settings_file_that_is_gone_is_not_one_that_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    options = Options(config=str(file))
    file.write_text('{"model": "m"}')
    assert settings_again(options, None, file).model == "m"
    file.unlink()
    with pytest.raises(UsageError, match="is gone"):
        settings_again(options, None, file)


@needs_openssl
@pytest.mark.parametrize("embedded", [False, True])
async def test_a_gateway_reads_its_certificate_and_settings_again(tmp_path: Path, *, embedded: bool) -> None:
    certificate = self_signed(tmp_path)
    heard = Heard()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with tool_node() as node:
        nodes = Settings.model_validate({"nodes": [{"url": node.url}], "model": MODEL})
        chosen = Settings.model_validate({"backend": "embedded"}) if embedded else nodes
        again: Callable[[], Settings] = lambda: chosen  # noqa: E731 - it has a type so
        settings = ServeSettings(port=0, tls=TlsFiles(*certificate), drain=0.1)
        store = ModelStore(tmp_path / "models")
        serving = asyncio.create_task(
            serve(settings, chosen, store, lambda url, _: ready.set_result(url), heard, again=again)
        )
        try:
            async with asyncio.timeout(60):
                assert (await ready).startswith("https://127.0.0.1:")
            signal.raise_signal(signal.SIGHUP)
            await heard.until("read the certificate again" if embedded else "read the settings again")
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                await serving
        finally:
            serving.cancel()
    assert ("read the settings again: ollama serves" in heard.said) is not embedded
