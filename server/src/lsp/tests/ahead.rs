//! What is computed before anybody asks, and when it is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, URI, texts};

const OTHER: &str = "file:///home/me/other.rs";

/// What was begun ahead of time.
fn ahead(client: &Client) -> Vec<(String, usize)> {
    client.fake.ahead.lock().unwrap().clone()
}

fn warm(before: &str) -> (String, usize) {
    (before.to_owned(), 1)
}

fn step(before: &str) -> (String, usize) {
    (before.to_owned(), 96)
}

async fn until_ahead(client: &mut Client, count: usize) {
    client.until(|fake| fake.ahead.lock().unwrap().len() >= count).await;
}

/// Waits until nothing is done ahead of time.
async fn until_idle(client: &mut Client) -> Value {
    loop {
        let status = client.status().await;
        if status["engine"]["ahead"] == 0 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn move_to(client: &mut Client, uri: &str, character: usize) {
    let place = json!({"textDocument": {"uri": uri}, "position": {"line": 0, "character": character}});
    client.notify("gemma/didMoveCursor", place).await;
}

/// Asks behind `ab`, and waits until the step behind `<ab>!` was begun. Documents are warmed once before.
async fn one_step(client: &mut Client) {
    client.open(URI, "rust", "ab").await;
    until_ahead(client, 1).await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    until_ahead(client, 2).await;
    assert_eq!(ahead(client), [warm(""), step("ab<ab>!")]);
}

#[tokio::test]
async fn prompts_are_read_where_the_user_is() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "one two").await;
    until_ahead(&mut client, 1).await;
    move_to(&mut client, URI, 3).await;
    until_ahead(&mut client, 2).await;
    move_to(&mut client, "file:///never/opened.rs", 3).await;
    let status = until_idle(&mut client).await;
    assert_eq!(ahead(&client), [warm(""), warm("one")]);
    let completions = &status["completions"];
    assert_eq!((&completions["requested"], &completions["cache"]["computedTokens"]), (&json!(0), &json!(0)));
    assert_eq!(completions["ahead"], json!({"computedTokens": 6, "foundTokens": 8}));
    client.finish().await;
}

#[tokio::test]
async fn a_warm_up_ends_with_the_first_key_anywhere_and_with_the_next_one() {
    let mut client = Client::ready(Value::Null).await;
    client.fake.hold_ahead.store(true, Ordering::SeqCst);
    client.open(URI, "rust", "one").await;
    until_ahead(&mut client, 1).await;
    client.open(OTHER, "rust", "two").await;
    until_ahead(&mut client, 2).await;
    assert_eq!(client.fake.ahead_cancelled.load(Ordering::SeqCst), 1);
    client.insert(URI, 3, "x").await;
    client.until(|fake| fake.ahead_cancelled.load(Ordering::SeqCst) == 2).await;
    move_to(&mut client, OTHER, 1).await;
    until_ahead(&mut client, 3).await;
    client.notify("textDocument/didClose", json!({"textDocument": {"uri": OTHER}})).await;
    client.until(|fake| fake.ahead_cancelled.load(Ordering::SeqCst) == 3).await;
    // What is asked for is computed now.
    move_to(&mut client, URI, 1).await;
    until_ahead(&mut client, 4).await;
    assert_eq!(client.complete(URI, 4).await, ["<onex>!"]);
    client.until(|fake| fake.ahead_cancelled.load(Ordering::SeqCst) >= 4).await;
    client.finish().await;
}

#[tokio::test]
async fn nothing_is_done_ahead_of_time_where_completion_is_off() {
    let options = json!({"languagesOff": ["markdown"], "filesOff": ["**/vendor/**"], "trigger": "manual"});
    let mut client = Client::ready(options).await;
    for (uri, language) in [
        ("file:///home/me/a.md", "markdown"),
        ("file:///home/me/vendor/a.rs", "rust"),
        ("file:///home/me/.env", "plaintext"),
    ] {
        client.open(uri, language, "text").await;
        move_to(&mut client, uri, 2).await;
    }
    // Whoever asks by hand waits as much as anybody.
    client.open(URI, "rust", "one").await;
    move_to(&mut client, URI, 3).await;
    client.until(|fake| fake.ahead.lock().unwrap().contains(&warm("one"))).await;
    assert!(ahead(&client).iter().all(|one| ["", "one"].contains(&one.0.as_str())), "{:?}", ahead(&client));
    client.finish().await;
}

#[tokio::test]
async fn nothing_is_done_ahead_of_time_where_nobody_wants_it() {
    let mut client = Client::ready(json!({"aheadOfTime": false})).await;
    client.open(URI, "rust", "one").await;
    move_to(&mut client, URI, 3).await;
    assert_eq!(client.complete(URI, 3).await, ["<one>!"]);
    // Longer than anything waits before it begins.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(until_idle(&mut client).await["completions"]["ahead"]["computedTokens"], 0);
    assert_eq!(ahead(&client), []);
    client.finish().await;
}

#[tokio::test]
async fn the_document_in_front_is_warmed_when_the_model_is_there() {
    let mut client = Client::connect();
    client.fake.hold_loads.store(true, Ordering::SeqCst);
    client.initialize(Value::Null).await;
    client.open(OTHER, "rust", "two").await;
    client.open(URI, "rust", "one").await;
    move_to(&mut client, URI, 3).await;
    client.status().await;
    client.fake.hold_loads.store(false, Ordering::SeqCst);
    until_ahead(&mut client, 1).await;
    assert_eq!(ahead(&client), [warm("one")]);
    client.finish().await;
}

#[tokio::test]
async fn what_follows_a_suggestion_is_there_when_it_is_accepted() {
    let mut client = Client::ready(Value::Null).await;
    one_step(&mut client).await;
    until_idle(&mut client).await;
    // A step of one, whatever there is further on.
    assert_eq!(ahead(&client).len(), 2);
    client.insert(URI, 2, "<ab>!").await;
    assert_eq!(client.complete(URI, 7).await, ["<ab<ab>!>!"]);
    let status = client.status().await;
    assert_eq!(status["completions"]["last"]["rule"], "reuse");
    assert_eq!(*client.fake.begun.lock().unwrap(), ["ab"]);
    // Now that is on the screen.
    until_ahead(&mut client, 3).await;
    assert_eq!(ahead(&client)[2], step("ab<ab>!<ab<ab>!>!"));
    client.finish().await;
}

#[tokio::test]
async fn a_step_ahead_goes_on_while_typing_leads_there_and_ends_when_it_does_not() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "").await;
    until_ahead(&mut client, 1).await;
    until_idle(&mut client).await;
    client.fake.hold_ahead.store(true, Ordering::SeqCst);
    client.insert(URI, 0, "ab").await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    until_ahead(&mut client, 2).await;
    client.insert(URI, 2, "<a").await;
    // The rest of the suggestion leads to the same text.
    assert_eq!(client.complete(URI, 4).await, ["b>!"]);
    client.status().await;
    assert_eq!((ahead(&client).len(), client.fake.ahead_cancelled.load(Ordering::SeqCst)), (2, 0));
    client.insert(URI, 4, "x").await;
    client.until(|fake| fake.ahead_cancelled.load(Ordering::SeqCst) == 1).await;
    // Taken back, it leads there again.
    client.replace(URI, 4..5, "").await;
    assert_eq!(client.complete(URI, 4).await, ["b>!"]);
    until_ahead(&mut client, 3).await;
    assert_eq!(ahead(&client)[2], step("ab<ab>!"));
    client.finish().await;
}

#[tokio::test]
async fn who_accepts_before_the_step_is_done_does_not_wait_behind_others() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", "ab").await;
    until_ahead(&mut client, 1).await;
    until_idle(&mut client).await;
    client.fake.hold_ahead.store(true, Ordering::SeqCst);
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    until_ahead(&mut client, 2).await;
    client.insert(URI, 2, "<ab>!").await;
    let id = client.ask(URI, 7).await;
    assert_eq!(texts(&client.answer(id).await), ["<ab<ab>!>!"]);
    client.until(|fake| fake.ahead_cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(*client.fake.begun.lock().unwrap(), ["ab", "ab<ab>!"]);
    client.finish().await;
}
