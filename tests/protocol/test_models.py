"""gemma/models and gemma/pullModel: what is here, and getting more, from a hub of our own."""

import pathlib

import pytest

import hub
import server

REQUEST_CANCELLED = -32800
REQUEST_FAILED = -32803


@pytest.fixture
def fake():
    """A hub that answers."""
    fake = hub.Hub()
    yield fake
    fake.close()


@pytest.fixture
def running(start_in, fake, tmp_path):
    """A session whose models lie in a folder of the test; its own model cannot be loaded, and need not be."""
    folder = tmp_path / "models"
    places = {"GEMMA_LS_MODELS": folder, "HF_HUB_CACHE": tmp_path / "none", "OLLAMA_MODELS": tmp_path / "none"}
    environment = {**{name: str(path) for name, path in places.items()}, "HOME": str(tmp_path), **fake.environment}
    running = start_in(environment, model="/none")
    running.initialize()
    running.folder = folder
    return running


def pull(running, token="t") -> int:
    """Begins to pull."""
    return running.start("gemma/pullModel", {"name": hub.SPEC, "workDoneToken": token})


def progress(running, token="t") -> list:
    """What was told on a token."""
    return [params["value"] for params in running.said("$/progress") if params["token"] == token]


def test_a_model_arrives_with_per_cent(running):
    pulled = running.answer(pull(running))["result"]
    path = pathlib.Path(pulled["path"])
    assert (pulled["name"], path) == ("tiny", running.folder / "tiny.gguf")
    assert path.read_bytes() == hub.BYTES
    first, *steps, last = progress(running)
    assert (first["kind"], first["percentage"], first["cancellable"], last["kind"]) == ("begin", 0, True, "end")
    assert "hf:someone" in first["title"]
    percents = [step["percentage"] for step in steps if "percentage" in step]
    assert percents == sorted(percents) and percents[-1] == 100
    assert all(step["kind"] == "report" and step["message"] for step in steps)


def test_a_pull_can_be_cancelled_and_gone_on_with(running, fake):
    fake.hold.set()
    id = pull(running)
    running.until(lambda: any(step.get("percentage", 0) > 0 for step in progress(running)), "per cent")
    running.notify("$/cancelRequest", {"id": id})
    assert running.answer(id)["error"]["code"] == REQUEST_CANCELLED
    running.until(lambda: progress(running)[-1]["kind"] == "end", "end of the progress")
    fake.hold.clear()
    fake.go_on.set()
    assert "result" in running.answer(pull(running, "again"))
    assert (running.folder / "tiny.gguf").read_bytes() == hub.BYTES
    first, second = fake.ranges
    assert first is None and int(second.removeprefix("bytes=").rstrip("-")) > 0


def test_the_stop_button_of_the_progress_stops_it(running, fake):
    fake.hold.set()
    id = pull(running)
    running.until(lambda: any(step.get("percentage", 0) > 0 for step in progress(running)), "per cent")
    running.notify("window/workDoneProgress/cancel", {"token": "t"})
    # What was said before an answer has been heard: else the rest might arrive first.
    running.status()
    fake.go_on.set()
    error = running.answer(id)["error"]
    assert error["code"] == REQUEST_CANCELLED and "go on" in error["message"]
    assert not (running.folder / "tiny.gguf").exists()


def test_the_end_of_the_session_waits_for_no_download(running, fake):
    fake.hold.set()
    id = pull(running)
    running.until(lambda: any(step.get("percentage", 0) > 0 for step in progress(running)), "per cent")
    assert running.request("shutdown") is None
    assert running.answer(id)["error"]["code"] == REQUEST_CANCELLED
    running.notify("exit")
    assert running.wait() == 0


@pytest.mark.parametrize("name", ["no-such-model", "hf:../secret", "hf:someone/tiny-GGUF/other.gguf"])
def test_what_cannot_be_pulled_says_why(running, name):
    error = running.answer(running.start("gemma/pullModel", {"name": name, "workDoneToken": "t"}))["error"]
    assert error["code"] == REQUEST_FAILED and name.removeprefix("hf:") in error["message"]
    assert progress(running)[-1]["kind"] == "end"


def test_what_is_here_and_what_could_be(running):
    answer = running.request("gemma/models", {})
    assert answer["current"] is None
    assert not any(model["installed"] for model in answer["models"])
    by_name = {model["name"]: model for model in answer["models"]}
    licensed, code = by_name["gemma-3-1b-it"], by_name["codegemma-2b"]
    assert licensed["instructed"] and licensed["page"].startswith("https://") and not licensed["infill"]
    assert code["infill"] and not code["instructed"] and code["bytes"] > 10**9
    assert "page" not in by_name["default"]


def test_a_model_that_is_here_comes_first(real, start_in):
    answer = real.request("gemma/models")
    assert answer["current"] == pathlib.Path(server.model()).stem
    there = start_in({"GEMMA_LS_MODELS": str(pathlib.Path(server.model()).parent)}, model="/none")
    there.initialize()
    command = {"command": "gemma.models"}
    models = there.request("workspace/executeCommand", command)["models"]
    first = next(model for model in models if model["path"] == server.model())
    assert models.index(first) < next(n for n, model in enumerate(models) if not model["installed"])
    facts = {name: first[name] for name in ("installed", "infill", "instructed", "pictures")}
    assert facts == {"installed": True, "infill": False, "instructed": False, "pictures": False}
    assert "default" not in [model["name"] for model in models]
