"""Servers for tests: raw ones by the dozen, and a typed client with the real model for a whole run."""

import asyncio
import functools

import pytest
import pytest_asyncio
from lsprotocol import types
from pytest_lsp import LanguageClient, client_capabilities
from pytest_lsp.client import make_test_lsp_client

import server


@pytest.fixture
def start(start_in):
    """Starts servers with these settings; all are ended with the test."""
    return functools.partial(start_in, {})


@pytest.fixture
def start_in(tmp_path):
    """Starts servers with these environment variables and settings; all are ended with the test."""
    running = []

    def begin(variables: dict, **settings) -> server.Server:
        home = tmp_path / f"server{len(running)}"
        home.mkdir()
        running.append(server.Server(home, settings, variables))
        return running[-1]

    yield begin
    for one in running:
        one.close()
    assert not any(one.panicked() for one in running), [one.tail() for one in running]


@pytest.fixture
def real(start):
    """A raw server with the real model, loaded, and a session opened."""
    running = start(model=server.model(), **server.UNHURRIED)
    running.initialize()
    return running.ready()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(tmp_path_factory):
    """pytest-lsp's client, connected to one server that has loaded the real model."""
    client = make_test_lsp_client()
    home = tmp_path_factory.mktemp("client")
    await client.start_io(server.binary(), "lsp", env=server.environment(home))
    params = types.InitializeParams(
        capabilities=_capabilities(),
        initialization_options={"model": server.model(), **server.UNHURRIED},
    )
    client.initialize_result = await client.initialize_session(params)
    await asyncio.wait_for(_ready(client), server.PATIENCE)
    yield client
    await client.shutdown_session()
    assert client._server.returncode == 0
    await client.stop()


def _capabilities() -> types.ClientCapabilities:
    """What VS Code can, and inline completion, which it learnt later."""
    capabilities = client_capabilities("visual_studio_code")
    capabilities.text_document.inline_completion = types.InlineCompletionClientCapabilities()
    return capabilities


async def _ready(client: LanguageClient):
    while (await status(client))["model"]["state"] != "ready":
        await asyncio.sleep(0.05)


async def status(client: LanguageClient) -> dict:
    """What the server says of itself."""
    return plain(await client.protocol.send_request_async("gemma/status", {}))


def plain(value):
    """What pygls makes of an object of no type that it knows, as the JSON that it was."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value
