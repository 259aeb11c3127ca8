"""A working session, through a typed client that knows the protocol: what an editor's user sees."""

import itertools

import pytest
from lsprotocol import types
from pytest_lsp import LanguageClient

import server
from conftest import plain, status

CONTROL = ["<start_of_turn>", "<end_of_turn>", "<eos>", "<bos>", "<|fim", "<|file_separator|>", "<pad>", "<unk>"]
_numbers = itertools.count()


def open_document(client: LanguageClient, text: str, name: str = "sample.py", language: str = "python") -> str:
    """Opens a document of its own for each test."""
    uri = f"file:///home/me/session{next(_numbers)}/{name}"
    item = types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
    client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))
    return uri


def type_text(client: LanguageClient, uri: str, version: int, at: types.Position, text: str):
    """Inserts text at a place, as typing does."""
    change = types.TextDocumentContentChangePartial(range=types.Range(start=at, end=at), text=text)
    document = types.VersionedTextDocumentIdentifier(uri=uri, version=version)
    client.text_document_did_change(
        types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
    )


async def suggestions(client: LanguageClient, uri: str, at: types.Position, **context) -> list:
    """Asks for inline completions as an editor does on its own."""
    kind = types.InlineCompletionTriggerKind.Automatic
    result = await client.text_document_inline_completion_async(
        types.InlineCompletionParams(
            context=types.InlineCompletionContext(trigger_kind=kind, **context),
            text_document=types.TextDocumentIdentifier(uri=uri),
            position=at,
        )
    )
    items = list(result.items if isinstance(result, types.InlineCompletionList) else result or [])
    for item in items:
        text = item.insert_text
        assert isinstance(text, str) and text
        assert not any(token in text for token in CONTROL), text
        assert item.range.start.line == item.range.end.line
        assert item.range.start <= at <= item.range.end
    return items


def line_after(line: str, item) -> str:
    """A line of ASCII with an item's first line put into it."""
    text = item.insert_text.split("\n")[0]
    return line[: item.range.start.character] + text + line[item.range.end.character :]


CURSOR = types.Position(line=server.CURSOR["line"], character=server.CURSOR["character"])
LINE = server.SAMPLE.split("\n")[CURSOR.line]


async def test_the_server_says_what_it_can(client):
    capabilities = client.initialize_result.capabilities
    sync = capabilities.text_document_sync
    assert sync.open_close and sync.change == types.TextDocumentSyncKind.Incremental
    assert capabilities.inline_completion_provider
    assert capabilities.completion_provider is not None
    assert capabilities.position_encoding in (None, "utf-16")
    assert client.initialize_result.server_info.name == "gemma-ls"
    assert client.initialize_result.server_info.version


async def test_loading_was_shown_as_progress(client):
    reports = [values for values in client.progress_reports.values() if values]
    assert reports, "no progress while the model was loaded"
    kinds = [value.kind for value in reports[0]]
    assert kinds[0] == "begin" and kinds[-1] == "end", kinds


async def test_a_suggestion_where_the_cursor_stands(client):
    uri = open_document(client, server.SAMPLE)
    items = await suggestions(client, uri, CURSOR)
    assert items, await status(client)
    assert "fibonacci(n" in items[0].insert_text


async def test_typing_into_the_suggestion_keeps_it(client):
    uri = open_document(client, server.SAMPLE)
    first = (await suggestions(client, uri, CURSOR))[0]
    whole = line_after(LINE, first)
    for version, typed in enumerate("fibo", start=2):
        at = types.Position(CURSOR.line, CURSOR.character + version - 2)
        type_text(client, uri, version, at, typed)
        after = types.Position(at.line, at.character + 1)
        line = LINE[: CURSOR.character] + "fibo"[: version - 1]
        items = await suggestions(client, uri, after)
        assert items, f"nothing behind {line!r}"
        assert line_after(line, items[0]) == whole


async def test_the_completion_menu_offers_it_too(client):
    uri = open_document(client, server.SAMPLE)
    result = await client.text_document_completion_async(
        types.CompletionParams(
            text_document=types.TextDocumentIdentifier(uri=uri),
            position=CURSOR,
            context=types.CompletionContext(trigger_kind=types.CompletionTriggerKind.Invoked),
        )
    )
    items = result.items if isinstance(result, types.CompletionList) else result
    assert items
    text = items[0].text_edit.new_text if items[0].text_edit else items[0].insert_text
    assert "fibonacci(n" in text
    assert items[0].label.strip()


async def test_a_suggestion_extends_what_the_menu_has_selected(client):
    uri = open_document(client, "import os\n\nprint(os.pa)\n")
    selected = types.SelectedCompletionInfo(
        range=types.Range(types.Position(2, 9), types.Position(2, 11)), text="path"
    )
    items = await suggestions(client, uri, types.Position(2, 11), selected_completion_info=selected)
    for item in items:
        assert line_after("print(os.pa)", item).startswith("print(os.path")


async def test_an_unknown_document_has_no_suggestions(client):
    assert await suggestions(client, "file:///home/me/never-opened.py", CURSOR) == []


async def test_a_place_outside_the_document_is_moved_into_it(client):
    uri = open_document(client, server.SAMPLE)
    kind = types.InlineCompletionTriggerKind.Invoked
    for line, character in [(4, 100_000), (100_000, 0), (2**31 - 1, 2**31 - 1)]:
        await client.text_document_inline_completion_async(
            types.InlineCompletionParams(
                context=types.InlineCompletionContext(trigger_kind=kind),
                text_document=types.TextDocumentIdentifier(uri=uri),
                position=types.Position(line, character),
            )
        )


async def test_a_closed_document_is_forgotten(client):
    uri = open_document(client, server.SAMPLE)
    client.text_document_did_close(
        types.DidCloseTextDocumentParams(text_document=types.TextDocumentIdentifier(uri=uri))
    )
    assert await suggestions(client, uri, CURSOR) == []


async def test_the_status_is_also_a_command(client):
    custom = await status(client)
    command = await client.workspace_execute_command_async(
        types.ExecuteCommandParams(command="gemma.status", arguments=[])
    )
    assert plain(command)["model"]["state"] == custom["model"]["state"] == "ready"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "language", "before"),
    [
        ("count.rs", "rust", "fn count(words: &[&str]) -> usize {\n    words."),
        ("count.ts", "typescript", "export function count(words: string[]): number {\n  return words."),
        ("count.go", "go", "package main\n\nfunc count(words []string) int {\n\treturn "),
        ("plain.txt", "plaintext", "The capital of France is"),
    ],
)
async def test_many_languages_and_line_endings(client, name, language, before, newline):
    text = before.replace("\n", newline)
    uri = open_document(client, text, name, language)
    last = before.split("\n")[-1]
    items = await suggestions(client, uri, types.Position(before.count("\n"), len(last)))
    assert len(items) <= 1
    for item in items:
        assert "\r" not in item.insert_text.replace("\r\n", "")
