//! What is shown and taken is counted: once, and in the file that all servers share.

use std::path::Path;

use serde_json::{Value, json};

use super::client::{Client, URI, inline};

async fn client(file: Option<&Path>, options: Value) -> Client {
    let mut client = Client::counting_in(file.map(Path::to_path_buf));
    client.initialize(options).await;
    client.until_model("ready").await;
    client
}

/// The items of a completion in the first line.
async fn items(client: &mut Client, method: &str, character: usize) -> Vec<Value> {
    let answer = client.request(method, inline(URI, character, 1)).await;
    answer["items"].as_array().expect("items").clone()
}

const INLINE: &str = "textDocument/inlineCompletion";

/// The id of the one suggestion in the first line.
async fn id(client: &mut Client, character: usize) -> String {
    let items = items(client, INLINE, character).await;
    let argument = &items[0]["command"]["arguments"][0];
    assert_eq!(argument["kind"], "whole");
    argument["id"].as_str().expect("an id").to_owned()
}

async fn shown(client: &mut Client, id: &str) {
    client.notify("gemma/didShowCompletion", json!({"id": id})).await;
}

async fn taken(client: &mut Client, id: &str, kind: &str, text: &str) {
    let text = if text.is_empty() { Value::Null } else { json!(text) };
    client.notify("gemma/didAcceptCompletion", json!({"id": id, "kind": kind, "text": text})).await;
}

/// The counts: shown, accepted, words, lines, wholes, characters.
async fn counts(client: &mut Client) -> [u64; 6] {
    let all = client.request("gemma/statistics", json!({})).await;
    let names = ["shown", "accepted", "words", "lines", "wholes", "characters"];
    assert_eq!(all["timeSavedMs"].as_u64(), all["characters"].as_u64().map(|count| count * 300));
    names.map(|name| all[name].as_u64().expect("a count"))
}

#[tokio::test]
async fn what_is_taken_in_parts_is_counted_once() {
    let mut client = client(None, Value::Null).await;
    client.open(URI, "rust", "größe").await;
    // `<größe>!`: eight characters.
    let id = id(&mut client, 5).await;
    assert_eq!(counts(&mut client).await, [0; 6], "what nobody told of is not counted");
    shown(&mut client, &id).await;
    shown(&mut client, &id).await;
    assert_eq!(counts(&mut client).await, [1, 0, 0, 0, 0, 0]);
    taken(&mut client, &id, "word", "<größe").await;
    assert_eq!(counts(&mut client).await, [1, 1, 1, 0, 0, 6]);
    taken(&mut client, &id, "whole", "").await;
    assert_eq!(counts(&mut client).await, [1, 1, 1, 0, 1, 8]);
    // Told again by another part of the client.
    for kind in ["whole", "line"] {
        taken(&mut client, &id, kind, "<größe>!").await;
    }
    taken(&mut client, "unheard-of", "whole", "").await;
    assert_eq!(counts(&mut client).await, [1, 1, 1, 0, 1, 8]);
    let all = client.request("gemma/statistics", Value::Null).await;
    assert_eq!(all["languages"], json!({"rust": {"shown": 1, "accepted": 1, "characters": 8}}));
    client.finish().await;
}

#[tokio::test]
async fn the_rest_of_a_suggestion_is_that_suggestion() {
    let mut client = client(None, Value::Null).await;
    client.open(URI, "rust", "one").await;
    let first = id(&mut client, 3).await;
    shown(&mut client, &first).await;
    // Two of `<one>!` are typed, and two taken as a word; the editor asks again each time.
    client.insert(URI, 3, "<o").await;
    assert_eq!(id(&mut client, 5).await, first);
    shown(&mut client, &first).await;
    taken(&mut client, &first, "word", "ne").await;
    client.insert(URI, 5, "ne").await;
    assert_eq!(id(&mut client, 7).await, first);
    taken(&mut client, &first, "whole", "").await;
    assert_eq!(counts(&mut client).await, [1, 1, 1, 0, 1, 4]);

    client.open(URI, "rust", "two").await;
    let other = id(&mut client, 3).await;
    assert_ne!(other, first);
    taken(&mut client, &other, "line", "<two>! and more").await;
    assert_eq!(counts(&mut client).await, [2, 2, 1, 1, 1, 10], "no more than there was");
    client.finish().await;
}

#[tokio::test]
async fn running_the_command_of_an_item_is_enough() {
    let mut client = client(None, Value::Null).await;
    client.open(URI, "python", "one").await;
    let item = items(&mut client, "textDocument/completion", 3).await.remove(0);
    assert_eq!(client.request("workspace/executeCommand", item["command"].clone()).await, Value::Null);
    assert_eq!(counts(&mut client).await, [1, 1, 0, 0, 1, 6]);
    let command = json!({"command": "gemma.statistics", "arguments": [{"reset": true}]});
    assert_eq!(client.request("workspace/executeCommand", command).await["shown"], 0);
    assert_eq!(counts(&mut client).await, [0; 6]);
    client.finish().await;
}

#[tokio::test]
async fn old_suggestions_are_forgotten() {
    let mut client = client(None, Value::Null).await;
    let mut ids = Vec::new();
    for n in 0..70 {
        client.open(URI, "rust", &format!("x{n:02}")).await;
        ids.push(id(&mut client, 3).await);
    }
    for id in &ids {
        shown(&mut client, id).await;
    }
    assert_eq!(counts(&mut client).await[0], 64);
    client.finish().await;
}

#[tokio::test]
async fn servers_add_up_in_their_file_and_write_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gemma-ls/statistics.json");
    let mut first = client(Some(&file), Value::Null).await;
    let mut second = client(Some(&file), Value::Null).await;
    for client in [&mut first, &mut second] {
        client.open(URI, "rust", "one").await;
        let id = id(client, 3).await;
        shown(client, &id).await;
        taken(client, &id, "whole", "").await;
    }
    assert_eq!(counts(&mut first).await[0], 1);
    first.finish().await;
    assert_eq!(counts(&mut second).await, [2, 2, 0, 0, 2, 12]);
    let id = id(&mut second, 2).await;
    shown(&mut second, &id).await;
    second.finish().await;
    let text = std::fs::read_to_string(&file).expect("it is written");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&all["shown"], &all["characters"]), (&json!(3), &json!(12)));
    assert!(!text.contains("one"), "no text is kept: {text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_nobodys_error() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "").expect("written");
    let mut client = client(Some(&folder.path().join("file/statistics.json")), Value::Null).await;
    client.open(URI, "rust", "one").await;
    let id = id(&mut client, 3).await;
    taken(&mut client, &id, "whole", "").await;
    assert_eq!(counts(&mut client).await, [1, 1, 0, 0, 1, 6]);
    assert_eq!(client.heard("window/showMessage"), Vec::<Value>::new());
    client.finish().await;
}

#[tokio::test]
async fn who_wants_none_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("statistics.json");
    let mut client = client(Some(&file), json!({"statistics": false})).await;
    client.open(URI, "rust", "one").await;
    for method in [INLINE, "textDocument/completion"] {
        assert_eq!(items(&mut client, method, 3).await[0].get("command"), None, "{method}");
    }
    client.finish().await;
    assert!(!file.exists());
}
