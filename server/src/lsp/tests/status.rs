//! What the server says of itself: when asked, and by itself to clients that want to hear it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, URI};

/// A session with these capabilities of ours.
async fn client(ours: Value, options: Value, hold_loads: bool) -> Client {
    let mut client = Client::connect();
    client.fake.hold_loads.store(hold_loads, Ordering::SeqCst);
    let params = json!({"capabilities": {"experimental": {"gemma": ours}}, "initializationOptions": options});
    client.request("initialize", params).await;
    client.notify("initialized", json!({})).await;
    client
}

/// Waits until the newest announcement is of this state, and gives it.
async fn announced(client: &mut Client, state: &str) -> Value {
    loop {
        if let Some(last) = client.heard("gemma/didChangeStatus").last()
            && last["state"] == state
        {
            return last.clone();
        }
        client.status().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn every_phase_is_announced() {
    let mut client = client(json!({"status": true}), json!({"model": "/models/tiny.gguf"}), true).await;
    let loading = announced(&mut client, "loading").await;
    assert!(loading["message"].as_str().is_some_and(|m| m.starts_with("Loading tiny")), "{loading}");
    while client.heard("gemma/didChangeStatus").last().is_none_or(|last| last["percent"] != 50) {
        client.status().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let last = client.heard("gemma/didChangeStatus").pop().expect("it was heard");
    assert_eq!(last, json!({"state": "loading", "percent": 50, "message": "Loading tiny 50%"}));

    client.fake.hold_loads.store(false, Ordering::SeqCst);
    let ready = announced(&mut client, "ready").await;
    let name = "/models/tiny.gguf";
    let expected =
        json!({"state": "ready", "model": name, "device": "paper", "message": format!("{name} is ready")});
    assert_eq!(ready, expected);

    client.open(URI, "rust", "one").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let id = client.ask(URI, 3).await;
    assert_eq!(announced(&mut client, "working").await["model"], name);
    client.fake.hold_completions.store(false, Ordering::SeqCst);
    client.answer(id).await;
    announced(&mut client, "ready").await;

    let settings = json!({"gemma": {"model": "missing"}});
    client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
    let failed = announced(&mut client, "failed").await;
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("Pull it.")), "{failed}");
    client.finish().await;
}

#[tokio::test]
async fn what_changes_quickly_is_told_together_and_ends_right() {
    let mut client = client(json!({"status": true}), Value::Null, false).await;
    announced(&mut client, "ready").await;
    let before = client.heard("gemma/didChangeStatus").len();
    let begun = std::time::Instant::now();
    client.open(URI, "rust", &"a".repeat(200)).await;
    for n in 1..=200 {
        client.complete(URI, n).await;
    }
    announced(&mut client, "ready").await;
    let pauses = usize::try_from(begun.elapsed().as_millis() / 50).expect("a short test");
    let told = client.heard("gemma/didChangeStatus");
    // One at the beginning and one after each pause; the pauses are counted in the client's time.
    assert!(told.len() - before <= pauses + 2, "{} in {pauses} pauses", told.len() - before);
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    client.finish().await;
}

#[tokio::test]
async fn who_did_not_ask_hears_nothing() {
    let mut client = client(json!({}), Value::Null, false).await;
    client.until_model("ready").await;
    client.open(URI, "rust", "one").await;
    client.complete(URI, 3).await;
    assert_eq!(client.heard("gemma/didChangeStatus"), Vec::<Value>::new());
    client.finish().await;
}

#[tokio::test]
async fn the_status_of_a_document_says_why_it_is_off() {
    let options = json!({"languagesOff": ["markdown"], "filesOff": ["**/vendor/**"]});
    let mut client = Client::ready(options).await;
    client.open(URI, "rust", "one").await;
    client.open("file:///home/me/notes", "markdown", "one").await;
    for (uri, off) in [
        (URI, Value::Null),
        ("file:///home/me/notes", json!("languagesOff")),
        // These are not open.
        ("file:///home/me/other.rs", Value::Null),
        ("file:///home/me/vendor/a.rs", json!("filesOff")),
        ("file:///home/me/.env", json!("secretFiles")),
    ] {
        let status = client.request("gemma/status", json!({"textDocument": {"uri": uri}})).await;
        assert_eq!(status["document"]["off"], off, "{uri}");
        assert_eq!(status["document"]["sentence"].is_string(), off.is_string(), "{uri}");
    }
    assert_eq!(client.status().await["document"], Value::Null);

    let settings = json!({"gemma": {"trigger": "manual"}});
    client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
    let status = client.request("gemma/status", json!({"textDocument": {"uri": URI}})).await;
    assert_eq!(status["document"]["off"], "trigger");
    client.finish().await;
}

#[tokio::test]
async fn the_last_completion_explains_itself() {
    let mut client = Client::ready(Value::Null).await;
    for (text, sentence) in [
        ("one", "A suggestion was shown."),
        ("empty", "The model had nothing to add here."),
        ("fail", "The completion failed: memory: there is none left"),
    ] {
        client.open(URI, "rust", text).await;
        let id = client.ask(URI, text.len()).await;
        client.answer(id).await;
        assert_eq!(client.status().await["completions"]["last"]["sentence"], sentence);
    }
    client.finish().await;
}
