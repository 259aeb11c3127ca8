//! Chats and pictures: what streams, what stops, what is kept and what is refused.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use serde_json::{Value, json};

use super::client::{Client, URI};

const TEXT: &str = "fn one() -> u8 {\n    2\n}\n\nfn two() {}\n";

/// The values told on a token so far.
fn told(client: &Client, token: &str) -> Vec<Value> {
    let all = client.heard("$/progress").into_iter();
    all.filter(|params| params["token"] == token).map(|params| params["value"].clone()).collect()
}

/// The text streamed on a token so far.
fn streamed(client: &Client, token: &str) -> String {
    let told = told(client, token);
    told.iter().filter(|value| value["kind"] == "text").filter_map(|value| value["text"].as_str()).collect()
}

async fn talking() -> Client {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", TEXT).await;
    client
}

#[tokio::test]
async fn an_answer_streams_before_it_is_given() {
    let mut client = talking().await;
    let params = json!({
        "chatId": "c", "question": "what is in line 2", "textDocument": {"uri": URI},
        "partialResultToken": "p", "workDoneToken": "w",
    });
    let answer = client.request("gemma/chat", params.clone()).await;
    // Everything that is told was told before the answer.
    assert_eq!(streamed(&client, "p"), "0: what is in line 2");
    let context =
        &told(&client, "p").into_iter().find(|value| value["kind"] == "context").expect("told")["context"];
    assert_eq!(context["lines"], json!({"first": 1, "last": 5, "of": 5}));
    assert_eq!((&context["path"], &context["version"]), (&json!("main.rs"), &json!(1)));
    let kinds: Vec<Value> = told(&client, "w").iter().map(|value| value["kind"].clone()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&json!("begin")), Some(&json!("end"))));
    assert_eq!(answer["text"], "0: what is in line 2");
    assert_eq!((&answer["finishReason"], &answer["model"]), (&json!("stop"), &json!("fake")));
    assert_eq!(answer["context"], *context);
    let range = json!({"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 5}});
    assert_eq!(answer["references"], json!([{"offset": 14, "length": 6, "range": range}]));
    // Kept, and forgotten when that is asked for.
    assert_eq!(client.request("gemma/chat", params.clone()).await["text"], "1: what is in line 2");
    assert_eq!(client.request("gemma/forgetChat", json!({"chatId": "c"})).await, Value::Null);
    assert_eq!(client.request("gemma/chat", params).await["text"], "0: what is in line 2");
    assert_eq!(client.status().await["chat"]["name"], "fake");
    client.finish().await;
}

#[tokio::test]
async fn unsaved_text_and_selections_are_what_is_talked_about() {
    let mut client = talking().await;
    client.insert(URI, 0, "// ä\n").await;
    let selection = json!({"start": {"line": 2, "character": 3}, "end": {"line": 2, "character": 5}});
    let params = json!({
        "chatId": "c", "kind": "fix", "textDocument": {"uri": URI}, "selection": selection,
        "question": "```rust\n3\n```",
    });
    let answer = client.request("gemma/chat", params).await;
    let asked = client.fake.begun.lock().unwrap().last().cloned().expect("asked");
    assert!(asked.starts_with("Find the bug in the selected code."), "{asked}");
    assert_eq!(answer["context"]["selection"], json!({"first": 3, "last": 3}));
    let edit = &answer["code"][0]["edit"];
    assert_eq!(edit["newText"], "    3");
    let range = json!({"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 5}});
    assert_eq!(edit["range"], range);
    assert_eq!(edit["textDocument"], json!({"uri": URI, "version": 2}));
    client.finish().await;
}

#[tokio::test]
async fn a_selection_of_one_character_is_a_cursor() {
    let mut client = talking().await;
    let one = json!({"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 5}});
    for (kind, selection) in [("explain", json!({"first": 1, "last": 3})), ("ask", Value::Null)] {
        let params = json!({
            "chatId": kind, "kind": kind, "question": "x", "textDocument": {"uri": URI}, "selection": one,
        });
        assert_eq!(client.request("gemma/chat", params).await["context"]["selection"], selection, "{kind}");
    }
    client.finish().await;
}

#[tokio::test]
async fn a_diagnostic_is_asked_about_with_its_function() {
    let mut client = talking().await;
    let range = json!({"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 5}});
    let diagnostic = json!({"range": range, "severity": 2, "source": "rustc", "code": "E1", "message": "no"});
    let params =
        json!({"chatId": "c", "kind": "explain", "textDocument": {"uri": URI}, "diagnostics": [diagnostic]});
    let answer = client.request("gemma/chat", params).await;
    let asked = client.fake.begun.lock().unwrap().last().cloned().expect("asked");
    assert!(asked.starts_with("In line 2 there is this warning (rustc E1): no\n"), "{asked}");
    assert_eq!(answer["context"]["selection"], json!({"first": 1, "last": 3}));
    client.finish().await;
}

#[tokio::test]
async fn cancelling_and_stopping_end_the_computing() {
    let mut client = talking().await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let params = |token: &str| json!({"chatId": "c", "question": "a b c", "partialResultToken": token, "workDoneToken": token});
    let id = client.start("gemma/chat", params("one")).await;
    while streamed(&client, "one").is_empty() {
        client.status().await;
    }
    client.notify("$/cancelRequest", json!({"id": id})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32800);
    while client.fake.cancelled.load(Ordering::SeqCst) < 1 {
        client.status().await;
    }
    // By its token: the answer has what was said until then, and the conversation both.
    let id = client.start("gemma/chat", params("two")).await;
    while streamed(&client, "two").is_empty() {
        client.status().await;
    }
    client.notify("window/workDoneProgress/cancel", json!({"token": "two"})).await;
    let answer = client.answer(id).await;
    assert_eq!(
        (&answer["result"]["finishReason"], &answer["result"]["text"]),
        (&json!("cancelled"), &json!("1:"))
    );
    // By the next question.
    let first = client.start("gemma/chat", params("three")).await;
    while streamed(&client, "three").is_empty() {
        client.status().await;
    }
    let second = client.start("gemma/chat", params("four")).await;
    assert_eq!(client.answer(first).await["result"]["finishReason"], "cancelled");
    client.fake.hold_completions.store(false, Ordering::SeqCst);
    assert_eq!(client.answer(second).await["result"]["text"], "3: a b c");
    while client.status().await["engine"]["running"] != 0 {}
    client.finish().await;
}

#[tokio::test]
async fn a_server_that_was_restarted_is_told_what_was_said() {
    let mut client = talking().await;
    let history = json!([{"role": "user", "text": "a"}, {"role": "model", "text": "b"}]);
    let params = json!({"chatId": "old", "question": "c", "history": history});
    assert_eq!(client.request("gemma/chat", params.clone()).await["text"], "1: c");
    // What the server knows better stays.
    assert_eq!(client.request("gemma/chat", params).await["text"], "2: c");
    client.finish().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_an_error_and_the_next_question_is_not() {
    let mut client = Client::ready(json!({"chatModel": "base"})).await;
    let file = |uri: &str| json!({"chatId": "c", "question": "x", "textDocument": {"uri": uri}});
    for (params, code, part) in [
        (json!({"chatId": "c"}), -32602, "wants a question"),
        (json!({"question": "x"}), -32602, "chatId"),
        (json!({"chatId": "c", "question": "panic"}), -32603, "bug"),
        (json!({"chatId": "c", "question": "fail"}), -32803, "there is none left"),
        (file("file:///home/me/.env"), -32803, "may hold secrets"),
        (file("untitled:Untitled-9"), -32803, "not open"),
        (file("file:///no/such/file.rs"), -32803, "no such file"),
    ] {
        let id = client.start("gemma/chat", params.clone()).await;
        let error = client.answer(id).await["error"].clone();
        assert_eq!(error["code"], code, "{params}: {error}");
        assert!(error["message"].as_str().expect("a text").contains(part), "{params}: {error}");
    }
    let answer = client.request("gemma/chat", json!({"chatId": "d", "question": "x"})).await;
    assert_eq!(answer["text"], "0: x");
    assert!(answer["notices"][0].as_str().expect("a notice").contains("not tuned"), "{answer}");
    let second = client.request("gemma/chat", json!({"chatId": "d", "question": "x"})).await;
    assert_eq!(second["notices"], json!([]));
    client.finish().await;
}

#[tokio::test]
async fn a_model_that_does_not_load_is_said_and_tried_again() {
    let mut client = Client::ready(json!({"chatModel": "missing"})).await;
    for _ in 0..2 {
        let id = client.start("gemma/chat", json!({"chatId": "c", "question": "x"})).await;
        let error = client.answer(id).await["error"].clone();
        assert_eq!(error["message"], "missing: there is no such model\n  Pull it.");
    }
    assert_eq!(client.status().await["chat"]["state"], "failed");
    assert_eq!(client.fake.loads.load(Ordering::SeqCst), 3);
    client.finish().await;
}

#[tokio::test]
async fn pictures_are_explained_and_remembered_by_the_chat() {
    let mut client = talking().await;
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(3, 2).write_to(&mut png, image::ImageFormat::Png).expect("written");
    let data = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    let params = json!({"data": data, "question": "why?", "chatId": "c", "partialResultToken": "p"});
    let answer = client.request("gemma/explainImage", params).await;
    assert_eq!(
        (&answer["text"], &answer["width"], &answer["height"]),
        (&json!("3 x 2: why?"), &json!(3), &json!(2))
    );
    assert_eq!(streamed(&client, "p"), "3 x 2: why?");
    let url = json!({"data": format!("data:image/png;base64,{data}")});
    assert_eq!(client.request("gemma/explainImage", url).await["text"], "3 x 2: nothing");
    let follow_up = json!({"chatId": "c", "question": "x"});
    assert_eq!(client.request("gemma/chat", follow_up).await["text"], "1: x");
    for (params, code, part) in [
        (json!({}), -32602, "a picture is wanted"),
        (json!({"data": "!"}), -32803, "not base64"),
        (json!({"data": "aGVsbG8="}), -32803, "the picture"),
        (json!({"uri": "untitled:a.png"}), -32602, "no file"),
        (json!({"uri": "file:///no/such.png"}), -32803, "such.png"),
        (json!({"uri": "file:///home/me/.env"}), -32803, "may hold secrets"),
    ] {
        let id = client.start("gemma/explainImage", params.clone()).await;
        let error = client.answer(id).await["error"].clone();
        assert_eq!(error["code"], code, "{params}: {error}");
        assert!(error["message"].as_str().expect("a text").contains(part), "{params}: {error}");
    }
    client.finish().await;
}

/// A client that leaves showing answers to the server, and can do this.
async fn plain(capabilities: Value, chat_model: &str) -> Client {
    let mut client = Client::connect();
    let options = json!({"chatModel": chat_model});
    client
        .request("initialize", json!({"capabilities": capabilities, "initializationOptions": options}))
        .await;
    client.notify("initialized", json!({})).await;
    client.until_model("ready").await;
    client.open(URI, "rust", TEXT).await;
    client
}

fn ask(kind: &str, question: &str) -> Value {
    let range = json!({"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 5}});
    let params =
        json!({"kind": kind, "question": question, "textDocument": {"uri": URI}, "selection": range});
    json!({"command": "gemma.ask", "arguments": [params]})
}

#[tokio::test]
async fn the_server_shows_answers_where_the_client_does_not() {
    let mut client = plain(
        json!({"window": {"showDocument": {"support": true}}, "workspace": {"applyEdit": true}}),
        "m-it",
    )
    .await;
    let code = "\n```rust\n3\n```";
    assert_eq!(client.request("workspace/executeCommand", ask("document", code)).await, Value::Null);
    let edits = client.hears("workspace/applyEdit").await["edit"]["changes"][URI].clone();
    let range = json!({"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 5}});
    assert_eq!(edits, json!([{"newText": "    3", "range": range}]));
    // An explanation changes nothing; it is opened as a document.
    client.request("workspace/executeCommand", ask("explain", code)).await;
    let uri = client.hears("window/showDocument").await["uri"].as_str().expect("a uri").to_owned();
    let path = crate::documents::path_of(&uri).expect("a path");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(
        text.starts_with("# Gemma: explain main.rs, line 2\n") && text.contains("```rust\n3\n```"),
        "{text}"
    );
    assert_eq!(client.heard("workspace/applyEdit").len(), 1);
    client.finish().await;
    assert!(!path.exists(), "it goes with the session");
}

#[tokio::test]
async fn a_model_that_follows_no_instructions_changes_no_file() {
    let can = json!({"window": {"showDocument": {"support": true}}, "workspace": {"applyEdit": true}});
    let mut client = plain(can, "base").await;
    client.request("workspace/executeCommand", ask("document", "\n```rust\n3\n```")).await;
    client.hears("window/showDocument").await;
    assert!(client.heard("workspace/applyEdit").is_empty());
    client.finish().await;
}

#[tokio::test]
async fn a_client_that_can_do_nothing_gets_messages() {
    let mut client = plain(json!({}), "m-it").await;
    client.request("workspace/executeCommand", ask("fix", "\n```rust\n3\n```")).await;
    let message = client.hears("window/showMessage").await["message"].as_str().expect("a text").to_owned();
    assert!(message.starts_with("# Gemma: fix main.rs, line 2\n"), "{message}");
    let id = client
        .start("workspace/executeCommand", json!({"command": "gemma.ask", "arguments": [{"kind": 3}]}))
        .await;
    assert_eq!(client.answer(id).await["error"]["code"], -32602);
    let list = json!([["c", "why?", "ask", null, null, [], [], 9, null, null]]);
    let id =
        client.start("workspace/executeCommand", json!({"command": "gemma.ask", "arguments": list})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32602);
    client.finish().await;
}
