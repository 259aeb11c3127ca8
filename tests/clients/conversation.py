"""What an editor and the server said to each other, read from what tap.py kept."""

import dataclasses
import json
import pathlib
import re

# The error of a request that its client cancelled.
CANCELLED = -32800


class Conversation:
    """A conversation that may be going on."""

    def __init__(self, log: pathlib.Path):
        self.log = log

    def asked(self, method: str) -> list:
        """The editor's requests and notifications of one method, in order."""
        return [message for message in self._messages("in") if message.get("method") == method]

    def answers(self, method: str) -> list:
        """Pairs of a request of the editor's and what the server answered: (params, result)."""
        results = self._results()
        return [(m["params"], results[m["id"]]) for m in self.asked(method) if m["id"] in results]

    def failures(self) -> list:
        """The server's answers that are errors; cancelled requests are none."""
        errors = [m["error"] for m in self._messages("out") if "error" in m]
        return [error for error in errors if error["code"] != CANCELLED]

    def suggested(self, document: str):
        """The newest suggestion that was asked for while the server had this text, if there is one."""
        results = self._results()
        edits = []
        for message, text in self._texts():
            if text == document and message.get("method") in ("textDocument/inlineCompletion", "textDocument/completion"):
                result = results.get(message["id"]) or []
                items = result["items"] if isinstance(result, dict) else result
                edits += [Edit(text, self.encoding(), *_range_and_text(item)) for item in items]
        return edits[-1] if edits else None

    def document(self) -> str:
        """The text of the document, as the server has it now."""
        return [text for _, text in self._texts()][-1]

    def _texts(self):
        """The editor's messages, each with the document's text as it is then. One document is opened in a test."""
        text = None
        for message in self._messages("in"):
            if message.get("method") == "textDocument/didOpen":
                text = message["params"]["textDocument"]["text"]
            elif message.get("method") == "textDocument/didChange":
                for change in message["params"]["contentChanges"]:
                    if "range" in change:
                        text = Edit(text, self.encoding(), change["range"], change["text"]).applied()
                    else:
                        text = change["text"]
            yield message, text

    def accepted(self) -> int:
        """How often the editor ran the command of a suggestion that was taken: this is how it is counted."""
        commands = [message["params"]["command"] for message in self.asked("workspace/executeCommand")]
        return commands.count("gemma.didAcceptCompletion")

    def progress_ended(self) -> bool:
        """Whether something has ended that the server showed progress of: the loading of the model."""
        progress = [m["params"]["value"] for m in self._messages("out") if m.get("method") == "$/progress"]
        return any(value["kind"] == "end" for value in progress)

    def begun(self) -> bool:
        """Whether the server has the document and its model: from then on it suggests."""
        return bool(self.asked("textDocument/didOpen")) and self.progress_ended()

    def encoding(self) -> str:
        """The position encoding that was agreed on, as Python calls it."""
        (_, result), *_ = self.answers("initialize")
        agreed = result["capabilities"].get("positionEncoding", "utf-16")
        return {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[agreed]

    def _results(self) -> dict:
        return {message["id"]: message["result"] for message in self._messages("out") if "result" in message}

    def _messages(self, side: str) -> list:
        path = pathlib.Path(f"{self.log}.{side}")
        data = path.read_bytes() if path.exists() else b""
        messages = []
        at = 0
        while header := HEADER.match(data, at):
            end = header.end() + int(header[1])
            if end > len(data):
                break
            messages.append(json.loads(data[header.end() : end]))
            at = end
        return messages


HEADER = re.compile(rb"(?:[^\r\n]+\r\n)*?Content-Length: *(\d+)\r\n(?:[^\r\n]+\r\n)*\r\n", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Edit:
    """A text in place of a range of a document."""

    document: str
    encoding: str
    range: dict
    text: str

    def applied(self) -> str:
        """The document with the edit made, as the protocol wants it."""
        start, end = self._offset(self.range["start"]), self._offset(self.range["end"])
        return self.document[:start] + self.text + self.document[end:]

    def _offset(self, position: dict) -> int:
        unit = {"utf-8": 1, "utf-16-le": 2, "utf-32-le": 4}[self.encoding]
        lines = self.document.split("\n")[: position["line"] + 1]
        # A position behind the last line is the end.
        last = lines.pop() if len(lines) > position["line"] else ""
        before = last.encode(self.encoding)[: position["character"] * unit].decode(self.encoding)
        return sum(len(line) + 1 for line in lines) + len(before)


def _range_and_text(item: dict) -> tuple:
    """What an item of either kind puts where."""
    if "textEdit" in item:
        return item["textEdit"]["range"], item["textEdit"]["newText"]
    return item["range"], item["insertText"]
