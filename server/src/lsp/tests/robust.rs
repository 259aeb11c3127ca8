//! What clients should not send, and the end of a session.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::client::{Client, URI, inline};

#[tokio::test]
async fn wrong_parameters_are_errors() {
    let mut client = Client::ready(Value::Null).await;
    for params in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({"textDocument": {"uri": 3}, "position": {"line": 0, "character": 0}}),
        json!({"textDocument": {"uri": URI}, "position": {"line": -1, "character": 0}, "context": {"triggerKind": 1}}),
        json!({"textDocument": {"uri": URI}, "position": {"line": 1e99, "character": 0}, "context": {"triggerKind": 1}}),
    ] {
        let id = client.start("textDocument/inlineCompletion", params.clone()).await;
        assert_eq!(client.answer(id).await["error"]["code"], -32602, "{params}");
    }
    let id = client.start("gemma/unheardOf", json!({})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32601);
    // Names of notifications, known and unknown ones.
    for (method, code) in [("$/unheardOf", -32601), ("$/setTrace", -32601), ("textDocument/didOpen", -32600)]
    {
        let id = client.start(method, json!({})).await;
        assert_eq!(client.answer(id).await["error"]["code"], code, "{method}");
    }
    let id = client.start("workspace/executeCommand", json!({"command": "rm"})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32602);
    client.finish().await;
}

#[tokio::test]
async fn a_malformed_change_leaves_the_text_alone() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    let wrong = json!({"range": {"start": {"line": -1, "character": 0}}, "text": ""});
    let document = json!({"uri": URI, "version": 2});
    client
        .notify("textDocument/didChange", json!({"textDocument": document, "contentChanges": [wrong]}))
        .await;
    client.insert("file:///never/opened.rs", 0, "x").await;
    assert_eq!(client.complete(URI, 3).await, ["<one>!"]);
    client.finish().await;
}

#[tokio::test]
async fn places_outside_the_text_are_moved_into_it() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    let mut params = inline(URI, u32::MAX as usize, 2);
    params["position"]["line"] = json!(u32::MAX);
    let answer = client.request("textDocument/inlineCompletion", params).await;
    assert_eq!(answer["items"][0]["range"]["start"], json!({"line": 0, "character": 3}));
    client.finish().await;
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_next_one_read() {
    let mut client = Client::ready(Value::Null).await;
    for bytes in [
        &b"noise\r\n\r\n"[..],
        b"Content-Length: 3\r\n\r\n{]}",
        b"Content-Length: 4\r\n\r\n\"\xff\xfe\"",
        b"Content-Length: 2\r\n\r\n[]",
        b"Content-Length: 99999999999999\r\n\r\n{}",
        b"Content-Length: 123456\r\n\r\n{}",
        b"Content-Length: 26\r\n\r\n{\"jsonrpc\":\"1.0\",\"id\":500}",
        b"Content-Length: 36\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}",
    ] {
        client.raw(bytes).await;
        assert!(client.status().await.is_object());
    }
    client.finish().await;
}

#[tokio::test]
async fn requests_outside_a_session_are_refused() {
    let mut client = Client::connect();
    let early = client.start("gemma/status", Value::Null).await;
    assert_eq!(client.answer(early).await["error"]["code"], -32002);
    client.initialize(Value::Null).await;
    let again = client.start("initialize", json!({"capabilities": {}})).await;
    assert_eq!(client.answer(again).await["error"]["code"], -32600);
    client.request("shutdown", Value::Null).await;
    let late = client.start("gemma/status", Value::Null).await;
    assert_eq!(client.answer(late).await["error"]["code"], -32600);
    client.notify("exit", Value::Null).await;
    assert!(client.end().await);
}

#[tokio::test]
async fn exit_without_shutdown_is_told() {
    let mut client = Client::connect();
    client.initialize(Value::Null).await;
    client.notify("exit", Value::Null).await;
    assert!(!client.end().await);
}

#[tokio::test]
async fn saying_initialized_again_loads_nothing_again() {
    let mut client = Client::connect();
    client.fake.hold_loads.store(true, Ordering::SeqCst);
    client.initialize(Value::Null).await;
    for _ in 0..10 {
        client.notify("initialized", json!({})).await;
    }
    client.hears("window/workDoneProgress/create").await;
    client.fake.hold_loads.store(false, Ordering::SeqCst);
    client.until_model("ready").await;
    assert_eq!(client.fake.loads.load(Ordering::SeqCst), 1);
    client.finish().await;
}
