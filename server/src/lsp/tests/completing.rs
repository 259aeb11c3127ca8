//! Completions: order, superseding, cancelling, what is sent and what is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, URI, inline, texts};

/// Waits until the fake has begun this many completions.
async fn begun(client: &Client, count: usize) {
    while client.fake.begun.lock().unwrap().len() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until nothing computes any more.
async fn settled(client: &mut Client) -> Value {
    loop {
        let status = client.status().await;
        if status["engine"]["running"] == 0 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_item_has_its_text_and_a_range_in_one_line() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "let 😀 = ab\n").await;
    let mut answer = client.request("textDocument/inlineCompletion", inline(URI, 11, 2)).await;
    assert_eq!(answer["items"][0]["command"].take()["command"], "gemma.didAcceptCompletion");
    answer["items"][0].as_object_mut().expect("an item").remove("command");
    let place = json!({"line": 0, "character": 11});
    let items = json!([{"insertText": "<ab>!", "range": {"start": place, "end": place}}]);
    assert_eq!(answer["items"], items);
    let status = client.status().await;
    assert_eq!(status["completions"]["last"]["reason"], "shown");
    assert_eq!(status["completions"]["shown"], 1);
    client.finish().await;
}

#[tokio::test]
async fn an_answer_says_what_it_cost() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "ab").await;
    let asked = inline(URI, 2, 2);
    let computed = client.request("textDocument/inlineCompletion", asked.clone()).await;
    let mut cost = computed["gemma"].clone();
    let [first, total] = ["firstTokenMs", "totalMs"].map(|name| cost[name].take().as_f64().expect("a time"));
    assert!(0.0 < first && first < total, "{first} {total}");
    let expected = json!({
        "reason": "shown", "rule": null, "tokensAsked": 7, "tokensFound": 4, "tokensComputed": 3,
        "decodeTokens": 5, "decodePasses": 2, "draftTokens": 0, "acceptedTokens": 0, "queueMs": 0.0,
        "firstTokenMs": null, "totalMs": null,
    });
    assert_eq!(cost, expected);

    let remembered = client.request("textDocument/inlineCompletion", asked).await;
    let cost = &remembered["gemma"];
    assert_eq!((&cost["reason"], &cost["rule"]), (&json!("shown"), &json!("reuse")));
    assert_eq!((&cost["tokensAsked"], &cost["decodePasses"]), (&Value::Null, &Value::Null));
    assert_eq!(cost["firstTokenMs"], cost["totalMs"]);

    let unknown = client.request("textDocument/inlineCompletion", inline("file:///other.rs", 0, 2)).await;
    assert_eq!(unknown["items"], json!([]));
    assert_eq!(unknown["gemma"]["rule"], "unknownDocument");
    let status = client.status().await;
    assert_eq!(status["completions"]["speculation"]["passes"], 2);
    assert_eq!(status["completions"]["last"]["rule"], "unknownDocument");
    assert_eq!(
        (&status["engine"]["cacheBytes"], &status["engine"]["cache"]["tokens_found"]),
        (&json!(3), &json!(4))
    );
    client.finish().await;
}

#[tokio::test]
async fn of_a_burst_only_the_newest_is_computed_to_the_end() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", &"a".repeat(20)).await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(client.ask(URI, n + 1).await);
    }
    // The older ones are answered while the newest still computes.
    let newest = ids.pop().unwrap();
    for id in ids {
        assert_eq!(texts(&client.answer(id).await), [""; 0], "request {id}");
    }
    client.fake.hold_completions.store(false, Ordering::SeqCst);
    assert_eq!(texts(&client.answer(newest).await), [format!("<{}>!", "a".repeat(20))]);
    let status = settled(&mut client).await;
    assert_eq!(status["completions"]["superseded"], 19);
    assert_eq!(client.fake.finished.load(Ordering::SeqCst), 1);
    client.finish().await;
}

#[tokio::test]
async fn documents_and_methods_do_not_supersede_each_other() {
    let mut client = Client::ready(Value::Null).await;
    let other = "file:///home/me/other.rs";
    client.open(URI, "rust", "one").await;
    client.open(other, "rust", "two").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let first = client.ask(URI, 3).await;
    let second = client.ask(other, 3).await;
    let menu = json!({"textDocument": {"uri": URI}, "position": {"line": 0, "character": 3}});
    let menu = client.start("textDocument/completion", menu).await;
    begun(&client, 3).await;
    client.fake.hold_completions.store(false, Ordering::SeqCst);
    assert_eq!(texts(&client.answer(first).await), ["<one>!"]);
    assert_eq!(texts(&client.answer(second).await), ["<two>!"]);
    assert_eq!(client.answer(menu).await["result"]["items"].as_array().map(Vec::len), Some(1));
    client.finish().await;
}

#[tokio::test]
async fn cancelling_stops_the_computing() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let id = client.ask(URI, 3).await;
    begun(&client, 1).await;
    client.notify("$/cancelRequest", json!({"id": id})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32800);
    let status = settled(&mut client).await;
    assert_eq!(client.fake.cancelled.load(Ordering::SeqCst), 1);
    assert_eq!(status["completions"]["last"]["rule"], "cancelled");
    client.finish().await;
}

#[tokio::test]
async fn closing_a_document_stops_the_computing() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let id = client.ask(URI, 3).await;
    begun(&client, 1).await;
    client.notify("textDocument/didClose", json!({"textDocument": {"uri": URI}})).await;
    assert_eq!(texts(&client.answer(id).await), [""; 0]);
    settled(&mut client).await;
    assert_eq!(client.fake.cancelled.load(Ordering::SeqCst), 1);
    assert_eq!(client.complete(URI, 3).await, [""; 0]);
    client.finish().await;
}

#[tokio::test]
async fn a_request_sees_every_edit_before_it() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "").await;
    for n in 0..1000 {
        client.insert(URI, n, "x").await;
    }
    assert_eq!(client.complete(URI, 1000).await, [format!("<{}>!", "x".repeat(1000))]);
    client.finish().await;
}

#[tokio::test]
async fn a_request_may_come_before_the_edit_it_depends_on() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "on").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let id = client.ask(URI, 3).await;
    begun(&client, 1).await;
    client.insert(URI, 2, "e").await;
    client.status().await;
    client.fake.hold_completions.store(false, Ordering::SeqCst);
    assert_eq!(texts(&client.answer(id).await), ["<one>!"]);
    assert_eq!(*client.fake.begun.lock().unwrap(), ["on", "one"]);
    client.finish().await;
}

#[tokio::test]
async fn typing_what_was_suggested_computes_nothing() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "ab").await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    client.insert(URI, 2, "<a").await;
    assert_eq!(client.complete(URI, 4).await, ["b>!"]);
    assert_eq!(client.fake.finished.load(Ordering::SeqCst), 1);
    assert_eq!(client.status().await["completions"]["last"]["rule"], "reuse");
    client.finish().await;
}

#[tokio::test]
async fn what_the_menu_has_selected_is_extended() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "x.to").await;
    let mut params = inline(URI, 4, 2);
    let (start, end) = (json!({"line": 0, "character": 2}), json!({"line": 0, "character": 4}));
    params["context"]["selectedCompletionInfo"] =
        json!({"range": {"start": start, "end": end}, "text": "to_string"});
    let answer = client.request("textDocument/inlineCompletion", params).await;
    assert_eq!(answer["items"][0]["insertText"], "to_string!");
    assert_eq!(answer["items"][0]["range"], json!({"start": start, "end": end}));
    client.finish().await;
}

#[tokio::test]
async fn a_menu_item_replaces_the_word_it_continues() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "let ret").await;
    let params = json!({"textDocument": {"uri": URI}, "position": {"line": 0, "character": 7}});
    let list = client.request("textDocument/completion", params).await;
    assert_eq!(list["isIncomplete"], true);
    let item = &list["items"][0];
    assert_eq!(item["label"], "ret<ret>!");
    assert_eq!(item["filterText"], "ret<ret>!");
    assert_eq!(item["detail"], "gemma-ls");
    let range = json!({"start": {"line": 0, "character": 4}, "end": {"line": 0, "character": 7}});
    assert_eq!(item["textEdit"], json!({"range": range, "newText": "ret<ret>!"}));
    client.finish().await;
}

#[tokio::test]
async fn what_is_off_is_not_computed() {
    let options = json!({"languagesOff": ["markdown"], "filesOff": ["**/vendor/**"], "trigger": "manual"});
    let mut client = Client::ready(options).await;
    for (uri, language, rule) in [
        ("file:///home/me/a.md", "markdown", "languagesOff"),
        ("file:///home/me/vendor/a.rs", "rust", "filesOff"),
        ("file:///home/me/.env", "plaintext", "secretFiles"),
        (URI, "rust", "trigger"),
    ] {
        client.open(uri, language, "text").await;
        assert_eq!(client.complete(uri, 4).await, [""; 0], "{uri}");
        let last = &client.status().await["completions"]["last"];
        assert_eq!((&last["reason"], &last["rule"]), (&json!("disabled"), &json!(rule)));
    }
    assert_eq!(client.fake.begun.lock().unwrap().len(), 0);

    // Asked for by the user, and with no secret among what the model reads.
    let answer = client.request("textDocument/inlineCompletion", inline(URI, 4, 1)).await;
    assert_eq!(answer["items"][0]["insertText"], "<text>!");
    let mut others = client.fake.others.lock().unwrap().clone();
    others.sort();
    assert_eq!(others, ["file:///home/me/a.md", "file:///home/me/vendor/a.rs"]);
    client.finish().await;
}

#[tokio::test]
async fn nothing_to_show_is_an_empty_list() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "empty").await;
    assert_eq!(client.complete(URI, 5).await, [""; 0]);
    assert_eq!(client.complete("file:///never/opened.rs", 0).await, [""; 0]);
    assert_eq!(client.status().await["completions"]["empty"], 2);
    client.finish().await;
}

#[tokio::test]
async fn failures_and_panics_are_errors_and_the_server_lives() {
    let mut client = Client::ready(Value::Null).await;
    for (text, code) in [("fail", -32803), ("panic", -32603)] {
        client.open(URI, "rust", text).await;
        let id = client.ask(URI, text.len()).await;
        assert_eq!(client.answer(id).await["error"]["code"], code, "{text}");
    }
    assert_eq!(client.status().await["completions"]["failed"], 2);
    client.open(URI, "rust", "well").await;
    assert_eq!(client.complete(URI, 4).await, ["<well>!"]);
    client.finish().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_what_is_running() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    client.ask(URI, 3).await;
    begun(&client, 1).await;
    let fake = client.fake.clone();
    assert!(!client.end().await, "nobody said shutdown");
    while fake.cancelled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn who_asks_where_there_is_a_suggestion_gets_others_too() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one").await;
    let asked = |kind| inline(URI, 3, kind);
    let first = client.request("textDocument/inlineCompletion", asked(1)).await;
    assert_eq!(first["items"].as_array().map(Vec::len), Some(1), "{first}");
    let automatic = client.request("textDocument/inlineCompletion", asked(2)).await;
    assert_eq!(automatic["items"].as_array().map(Vec::len), Some(1), "{automatic}");
    let again = json!({"result": client.request("textDocument/inlineCompletion", asked(1)).await});
    // What is drawn twice is shown once.
    assert_eq!(super::client::texts(&again), ["<one>!", "<one>!?"]);
    // A menu has one entry of ours.
    let place = json!({"textDocument": {"uri": URI}, "position": {"line": 0, "character": 3}, "context": {"triggerKind": 1}});
    let menu = client.request("textDocument/completion", place).await;
    assert_eq!(menu["items"].as_array().map(Vec::len), Some(1), "{menu}");
    client.finish().await;
}
