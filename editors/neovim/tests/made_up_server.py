"""A language server whose answers are made up: for what no small model can be relied on to say.

It reads its answers from the file in MADE_UP_ANSWERS whenever that is another one, `{method: [answer, ...]}`, each used once
and the last one for good, and writes what it was told to the file in MADE_UP_HEARD, a message a line. An answer is a result,
`{"error": text}`, or `{"dies": true}`. `"capabilities"` are put over those of `initialize`. `"progress"` in a result holds values for the request's progress token, sent before it.
"""

import json
import os
import sys

answers, read_from = {}, None
CAPABILITIES = {
    "positionEncoding": "utf-16",
    "textDocumentSync": {"openClose": True, "change": 2},
    "inlineCompletionProvider": True,
    "completionProvider": {},
    "experimental": {"gemma": {"didMoveCursor": True}},
}


def send(message: dict):
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    sys.stdout.buffer.flush()


def read() -> dict:
    length = 0
    while (line := sys.stdin.buffer.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(sys.stdin.buffer.read(length)) if length else sys.exit()


def bring_up_to_date():
    global answers, read_from
    with open(os.environ["MADE_UP_ANSWERS"]) as file:
        text = file.read()
    if text != read_from:
        answers, read_from = json.loads(text), text


def answer(number, method: str, params: dict):
    bring_up_to_date()
    known = answers.get(method, [None])
    result = known.pop(0) if len(known) > 1 else known[0]
    if isinstance(result, dict) and result.get("dies"):
        os._exit(7)
    if isinstance(result, dict) and "error" in result:
        send({"id": number, "error": {"code": -32803, "message": result["error"]}})
        return
    if isinstance(result, dict):
        token = params.get("partialResultToken") or params.get("workDoneToken")
        for value in result.get("progress", []):
            send({"method": "$/progress", "params": {"token": token, "value": value}})
    send({"id": number, "result": result})


while True:
    message = read()
    method = message.get("method")
    with open(os.environ["MADE_UP_HEARD"], "a") as heard:
        heard.write(json.dumps(message) + "\n")
    if method == "initialize":
        bring_up_to_date()
        send({"id": message["id"], "result": {"capabilities": {**CAPABILITIES, **answers.get("capabilities", {})}}})
    elif method == "exit":
        sys.exit()
    elif "id" in message and method:
        answer(message["id"], method, message.get("params") or {})
