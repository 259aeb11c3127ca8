//! What is computed while the user types on: who gets it, and when it stops.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, URI, inline, texts};

fn begun(client: &Client) -> Vec<String> {
    client.fake.begun.lock().unwrap().clone()
}

/// A session in which `<ab>!` is being computed behind `ab`, and these many characters of it were said; and the
/// request for it.
async fn computing(said: usize) -> (Client, i64) {
    let mut client = Client::ready(json!({"aheadOfTime": false})).await;
    client.open(URI, "rust", "ab").await;
    client.fake.said.store(said, Ordering::SeqCst);
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let id = client.ask(URI, 2).await;
    client.until(|fake| fake.begun.lock().unwrap().len() == 1).await;
    (client, id)
}

fn release(client: &Client) {
    client.fake.hold_completions.store(false, Ordering::SeqCst);
}

/// Says more of what is being computed.
fn say(client: &Client, said: usize) {
    client.fake.said.store(said, Ordering::SeqCst);
}

#[tokio::test]
async fn who_types_along_gets_the_rest_of_what_is_computed_already() {
    let (mut client, first) = computing(2).await;
    client.insert(URI, 2, "<").await;
    let second = client.ask(URI, 3).await;
    // More than was said so far.
    client.insert(URI, 3, "ab").await;
    let third = client.ask(URI, 5).await;
    // The older ones are answered while it is computed.
    assert_eq!(texts(&client.answer(first).await), [""; 0]);
    let answer = client.answer(second).await;
    assert_eq!((texts(&answer), &answer["result"]["gemma"]["tokensAsked"]), (vec![], &Value::Null));
    say(&client, 4);
    client.status().await;
    release(&client);
    let answer = client.answer(third).await;
    assert_eq!(texts(&answer), [">!"]);
    let cost = &answer["result"]["gemma"];
    assert_eq!((&cost["rule"], &cost["tokensComputed"]), (&json!("running"), &json!(3)));
    assert_eq!(begun(&client), ["ab"]);
    assert_eq!(client.status().await["completions"]["cache"]["computedTokens"], 3);
    // And it is remembered where it was begun.
    client.replace(URI, 2..5, "").await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    assert_eq!(begun(&client), ["ab"]);
    client.finish().await;
}

#[tokio::test]
async fn an_edit_that_disagrees_stops_the_computing_before_anybody_asks_again() {
    let (mut client, first) = computing(2).await;
    client.insert(URI, 2, "x").await;
    client.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(texts(&client.answer(first).await), [""; 0]);
    assert_eq!(client.status().await["completions"]["last"]["rule"], "edited");
    release(&client);
    assert_eq!(client.complete(URI, 3).await, ["<abx>!"]);
    assert_eq!(begun(&client), ["ab", "abx"]);
    client.finish().await;
}

#[tokio::test]
async fn what_is_said_and_was_not_typed_is_computed_no_further() {
    let (mut client, first) = computing(0).await;
    client.insert(URI, 2, "x").await;
    let second = client.ask(URI, 3).await;
    assert_eq!(texts(&client.answer(first).await), [""; 0]);
    // Nothing disagrees yet.
    client.status().await;
    assert_eq!(begun(&client), ["ab"]);
    say(&client, 1);
    client.until(|fake| fake.begun.lock().unwrap().len() == 2).await;
    release(&client);
    assert_eq!(texts(&client.answer(second).await), ["<abx>!"]);
    assert_eq!(client.fake.cancelled.load(Ordering::SeqCst), 1);
    assert_eq!(begun(&client), ["ab", "abx"]);
    client.finish().await;
}

#[tokio::test]
async fn what_nobody_asks_for_again_is_stopped() {
    let (mut client, first) = computing(2).await;
    client.insert(URI, 2, "<").await;
    // The client knows where its cursor is: it would have asked there.
    assert_eq!(texts(&client.answer(first).await), [""; 0]);
    client.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(client.status().await["engine"]["running"], 0);
    client.finish().await;
}

#[tokio::test]
async fn a_client_may_give_up_a_request_before_it_asks_again() {
    let (mut client, first) = computing(2).await;
    client.notify("$/cancelRequest", json!({"id": first})).await;
    client.insert(URI, 2, "<").await;
    let second = client.ask(URI, 3).await;
    release(&client);
    assert_eq!(texts(&client.answer(second).await), ["ab>!"]);
    client.answer(first).await;
    assert_eq!(begun(&client), ["ab"]);
    client.finish().await;
}

#[tokio::test]
async fn another_place_stops_it_at_once() {
    let (mut client, first) = computing(2).await;
    let second = client.ask(URI, 1).await;
    client.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    release(&client);
    assert_eq!(texts(&client.answer(first).await), [""; 0]);
    assert_eq!(texts(&client.answer(second).await), ["<a>!"]);
    client.finish().await;
}

#[tokio::test]
async fn a_computing_that_ends_otherwise_than_it_was_typed_is_begun_anew() {
    let mut client = Client::ready(json!({"aheadOfTime": false})).await;
    for (text, answer) in [("empty", "<empty<>!"), ("fail", ""), ("panic", "")] {
        client.open(URI, "rust", text).await;
        client.fake.hold_completions.store(true, Ordering::SeqCst);
        client.ask(URI, text.len()).await;
        client.insert(URI, text.len(), "<").await;
        let second = client.ask(URI, text.len() + 1).await;
        client.status().await;
        release(&client);
        let told = client.answer(second).await;
        match answer {
            "" => assert!(told["error"].is_object(), "{told}"),
            shown => assert_eq!(texts(&told), [shown]),
        }
    }
    client.finish().await;
}

#[tokio::test]
async fn a_backspace_and_an_undo_compute_nothing() {
    let mut client = Client::ready(json!({"aheadOfTime": false})).await;
    client.open(URI, "rust", "ab").await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"]);
    client.insert(URI, 2, "<ax").await;
    assert_eq!(client.complete(URI, 5).await, ["<ab<ax>!"]);
    client.replace(URI, 4..5, "").await;
    assert_eq!(client.complete(URI, 4).await, ["b>!"], "a backspace");
    client.insert(URI, 4, "b>!").await;
    client.replace(URI, 2..7, "").await;
    assert_eq!(client.complete(URI, 2).await, ["<ab>!"], "accepted and undone");
    assert_eq!(begun(&client), ["ab", "ab<ax"]);
    client.finish().await;
}

#[tokio::test]
async fn keys_that_come_faster_than_answers_are_waited_for() {
    for (adaptive, trigger, is_begun) in [(true, 2, false), (false, 2, true), (true, 1, true)] {
        let mut client = Client::ready(json!({"aheadOfTime": false, "adaptiveDelay": adaptive})).await;
        client.open(URI, "rust", "abcdefgh").await;
        client.fake.hold_completions.store(true, Ordering::SeqCst);
        // Slow answers, and keys a little faster.
        let slow = client.ask(URI, 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        release(&client);
        client.answer(slow).await;
        client.fake.hold_completions.store(true, Ordering::SeqCst);
        let mut ids = Vec::new();
        for character in 2..6 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            ids.push(client.ask(URI, character).await);
        }
        // Two at once: the first has not begun when the second takes its place.
        tokio::time::sleep(Duration::from_millis(150)).await;
        ids.push(client.start("textDocument/inlineCompletion", inline(URI, 6, trigger)).await);
        let last = client.ask(URI, 7).await;
        client.until(|fake| fake.begun.lock().unwrap().last().is_some_and(|text| text.len() == 7)).await;
        release(&client);
        assert_eq!(texts(&client.answer(last).await), ["<abcdefg>!"]);
        for id in ids {
            assert_eq!(texts(&client.answer(id).await), [""; 0]);
        }
        let text = "abcdef".to_owned();
        assert_eq!(begun(&client).contains(&text), is_begun, "{adaptive} {trigger}");
        client.finish().await;
    }
}

#[tokio::test]
async fn a_chat_goes_on_after_a_completion() {
    let mut client = Client::ready(json!({"aheadOfTime": false})).await;
    client.open(URI, "rust", "ab").await;
    client.fake.hold_completions.store(true, Ordering::SeqCst);
    let chat = client.start("gemma/chat", json!({"chatId": "a", "question": "why so"})).await;
    client.until(|fake| fake.begun.lock().unwrap().len() == 1).await;
    let completion = client.ask(URI, 2).await;
    client.until(|fake| fake.begun.lock().unwrap().len() == 2).await;
    client.notify("$/cancelRequest", json!({"id": completion})).await;
    client.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    release(&client);
    let said = client.answer(chat).await;
    assert_eq!(said["result"]["text"], "0: why so");
    assert_eq!(said["result"]["finishReason"], "stop");
    client.finish().await;
}
