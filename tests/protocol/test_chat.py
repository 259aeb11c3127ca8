"""gemma/chat and gemma/explainImage with the shipped binary: what streams, what stops, what is remembered."""

import base64
import itertools
import os
import pathlib

import pytest

import server

REQUEST_CANCELLED = -32800
REQUEST_FAILED = -32803
PICTURE = pathlib.Path(__file__).parent.parent / "fixtures/golden/paligemma/image.png"
_tokens = itertools.count()


class Asked:
    """A question on its way, with tokens of its own."""

    def __init__(self, running, method="gemma/chat", **params):
        self.running = running
        self.text, self.work = f"text{next(_tokens)}", f"work{next(_tokens)}"
        params = {"partialResultToken": self.text, "workDoneToken": self.work, **params}
        self.id = running.start(method, params)

    def told(self, token=None) -> list:
        """What was told so far."""
        token = token or self.text
        return [params["value"] for params in self.running.said("$/progress") if params["token"] == token]

    def streamed(self) -> str:
        """The text so far."""
        return "".join(value["text"] for value in self.told() if value["kind"] == "text")

    def until_text(self) -> "Asked":
        """Waits until the answer has begun."""
        self.running.until(self.streamed, "text")
        return self

    def answer(self) -> dict:
        """Waits for the answer."""
        answer = self.running.answer(self.id)
        assert "error" not in answer, answer
        return answer["result"]


def idle(running):
    """Waits until nothing is computed any more."""
    while running.status()["engine"]["running"]:
        pass


def question(uri, **more) -> dict:
    """A question about a document that any model has something to say to."""
    return {"chatId": "c", "question": "What does this file do?", "textDocument": {"uri": uri}, "maxTokens": 24, **more}


def test_an_answer_streams_whole_and_before_it_is_given(real):
    uri = real.open()
    asked = Asked(real, **question(uri))
    answer = asked.answer()
    assert answer["text"] and asked.streamed().strip() == answer["text"]
    assert answer["context"]["lines"] == {"first": 1, "last": 7, "of": 7}
    assert {"kind": "context", "context": answer["context"]} in asked.told()
    kinds = [value["kind"] for value in asked.told(asked.work)]
    assert kinds[0] == "begin" and kinds[-1] == "end" and set(kinds[1:-1]) == {"report"}
    assert real.status()["chat"]["state"] == "ready"


def test_a_follow_up_computes_what_is_new_and_forgetting_forgets(real):
    uri = real.open()
    first = Asked(real, **question(uri)).answer()
    second = Asked(real, **question(uri, question="Why?")).answer()
    assert second["context"]["turns"] == 1
    assert second["timings"]["cached_tokens"] >= first["context"]["promptTokens"]
    assert second["timings"]["prefill_tokens"] < 32
    assert real.request("gemma/forgetChat", {"chatId": "c"}) is None
    assert Asked(real, **question(uri)).answer()["context"]["turns"] == 0


def test_unsaved_text_is_what_is_talked_about(real, tmp_path):
    path = tmp_path / "notes.py"
    path.write_text("a = 1\n")
    uri = path.as_uri()
    closed = Asked(real, **question(uri)).answer()
    assert closed["context"]["lines"]["of"] == 1 and closed["context"]["version"] is None
    real.open("a = 1\nb = 2\nc = 3\n", uri)
    opened = Asked(real, **question(uri)).answer()
    assert opened["context"]["lines"]["of"] == 3 and opened["context"]["version"] == 1


@pytest.mark.parametrize("how", ["request", "token", "next question"])
def test_what_nobody_wants_is_not_computed(real, how):
    uri = real.open()
    asked = Asked(real, **question(uri, maxTokens=4000)).until_text()
    if how == "request":
        real.notify("$/cancelRequest", {"id": asked.id})
        assert real.answer(asked.id)["error"]["code"] == REQUEST_CANCELLED
    elif how == "token":
        real.notify("window/workDoneProgress/cancel", {"token": asked.work})
        assert asked.answer()["finishReason"] == "cancelled"
    else:
        assert Asked(real, **question(uri)).answer()["context"]["turns"] == 1
        assert asked.answer()["finishReason"] == "cancelled"
    idle(real)
    # What was said until then stays in the conversation.
    assert Asked(real, **question(uri, maxTokens=1)).answer()["context"]["turns"] >= 1


def test_a_keystroke_does_not_wait_for_a_chat(real):
    uri = real.open()
    asked = Asked(real, **question(uri, maxTokens=2000)).until_text()
    completed = real.request("textDocument/inlineCompletion", server.inline(uri))
    assert server.items(completed) or real.status()["completions"]["last"]["reason"] == "empty"
    assert asked.id not in real.answers, "the chat ended first"
    real.notify("$/cancelRequest", {"id": asked.id})


def test_clients_without_custom_requests_use_commands(real):
    uri = real.open()
    command = {"command": "gemma.chat", "arguments": [question(uri)]}
    assert real.request("workspace/executeCommand", command)["text"]
    assert real.request("workspace/executeCommand", {"command": "gemma.status"})["model"]["state"] == "ready"


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("file:///home/me/.env", "may hold secrets"),
        ("file:///no/such/file.py", "no such file"),
        ("untitled:Untitled-1", "not open"),
    ],
)
def test_what_cannot_be_talked_about_is_said(real, document, part):
    error = real.answer(Asked(real, **question(document)).id)["error"]
    assert error["code"] == REQUEST_FAILED and part in error["message"]


def test_a_missing_chat_model_is_said_and_completion_goes_on(start):
    running = start(model=server.model(), chatModel="/no/such/model.gguf", **server.UNHURRIED)
    running.initialize()
    running.ready()
    uri = running.open()
    error = running.answer(Asked(running, **question(uri)).id)["error"]
    assert error["code"] == REQUEST_FAILED and "/no/such/model.gguf" in error["message"]
    running.request("textDocument/inlineCompletion", server.inline(uri))
    assert running.status()["model"]["state"] == "ready"


@pytest.fixture
def seeing(start):
    """A server whose chat model is the tiny PaliGemma, which sees."""
    folder = os.environ.get("GEMMA_LS_TEST_PALIGEMMA", "")
    assert os.path.isdir(folder), "run tests/run, or write a folder with tiny-paligemma and name it"
    running = start(model=server.model(), chatModel=folder)
    running.initialize()
    return running.ready()


def test_a_screenshot_is_explained_and_a_second_question_encodes_nothing(seeing):
    data = base64.b64encode(PICTURE.read_bytes()).decode()
    asked = Asked(seeing, "gemma/explainImage", data=data, question="What is it?")
    first = asked.answer()
    assert (first["width"], first["height"], first["tiles"]) == (121, 87, 6)
    assert first["text"] and asked.streamed().strip() == first["text"]
    assert first["timings"]["image_tokens"] > 0
    # The same picture as a file.
    second = Asked(seeing, "gemma/explainImage", uri=PICTURE.as_uri(), question="Why?").answer()
    assert second["timings"]["image_tokens"] == 0
    assert seeing.status()["pictures"]["name"] == "paligemma"


@pytest.mark.parametrize(
    ("picture", "part"),
    [
        ({"data": "no base64!"}, "base64"),
        ({"data": base64.b64encode(b"no picture").decode()}, "the picture"),
        ({"uri": "file:///no/such.png"}, "such.png"),
    ],
)
def test_a_broken_picture_is_said_in_a_line(seeing, picture, part):
    error = seeing.answer(Asked(seeing, "gemma/explainImage", **picture).id)["error"]
    assert error["code"] == REQUEST_FAILED and part in error["message"] and "\n\n" not in error["message"]
    assert seeing.status()["pictures"] is None, "no model was loaded for it"


def test_a_second_model_takes_nothing_from_the_first(seeing):
    uri = seeing.open()

    def cached(version: int) -> int:
        """Types at the end of the document, completes there, and tells how much of the prompt was there already."""
        begun = f"{'abcd'[version - 2]} = fibonacci({version ** 5} + "
        text = server.SAMPLE + begun
        seeing.change(uri, version, text)
        end = {"line": text.count("\n"), "character": len(begun)}
        seeing.request("textDocument/inlineCompletion", server.inline(uri, end, 1))
        last = seeing.status()["completions"]["last"]
        assert last["timings"], last
        return last["timings"]["cached_tokens"]

    cached(2)
    before = cached(3)
    assert before > 50
    Asked(seeing, "gemma/explainImage", uri=PICTURE.as_uri()).answer()
    assert cached(4) >= before
    assert seeing.status()["model"]["state"] == "ready"
