//! Files of the workspace that nobody has open.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use crate::documents::uri_of;

/// A session in a folder, with what the client can, once the index knows so many files.
async fn client(folder: &Path, capabilities: Value, options: Value, files: usize) -> Client {
    let mut client = Client::connect();
    let folders = json!([{"uri": uri_of(folder), "name": "folder"}]);
    let params = json!({
        "capabilities": capabilities, "workspaceFolders": folders, "initializationOptions": options,
    });
    client.request("initialize", params).await;
    client.notify("initialized", json!({})).await;
    client.until_model("ready").await;
    until_indexed(&mut client, files).await;
    client
}

async fn until_indexed(client: &mut Client, files: usize) {
    while client.status().await["index"] != json!({"files": files, "indexing": false}) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The documents that go along with a completion in `main.rs` where this is used.
async fn others(client: &mut Client, folder: &Path, used: &str) -> Vec<String> {
    let uri = uri_of(&folder.join("main.rs"));
    // A text of its own each time: nothing that was suggested before fits.
    let times = client.fake.begun.lock().unwrap().len();
    let line = format!("fn main{times}() {{ {used}(1); }}");
    client.open(&uri, "rust", &line).await;
    client.complete(&uri, line.len() - 1).await;
    client.fake.others.lock().unwrap().clone()
}

#[tokio::test]
async fn a_definition_in_a_file_that_is_not_open_goes_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lexer, other) = (folder.path().join("lexer.rs"), folder.path().join("other.rs"));
    fs::write(&lexer, "pub fn tokenize(n: u8) {}\n").expect("written");
    fs::write(&other, "pub fn surface() {}\n").expect("written");
    fs::write(folder.path().join(".env"), "TOKEN=1").expect("written");
    let mut client = client(folder.path(), json!({}), Value::Null, 2).await;
    assert_eq!(others(&mut client, folder.path(), "tokenize").await, [uri_of(&lexer)]);

    // Open documents come first, and never twice.
    client.open(&uri_of(&other), "rust", "pub fn surface() {}\n").await;
    assert_eq!(others(&mut client, folder.path(), "tokenize").await, [uri_of(&other), uri_of(&lexer)]);
    client.open(&uri_of(&lexer), "rust", "pub fn tokenize(n: u8) {}\n").await;
    assert_eq!(others(&mut client, folder.path(), "tokenize").await, [uri_of(&lexer), uri_of(&other)]);

    // A file that is closed or saved is read again.
    fs::write(&lexer, "pub fn scan(n: u8) {}\n").expect("written");
    client.notify("textDocument/didClose", json!({"textDocument": {"uri": uri_of(&lexer)}})).await;
    until_indexed(&mut client, 2).await;
    let scan = others(&mut client, folder.path(), "scan").await;
    assert_eq!(scan, [uri_of(&other), uri_of(&lexer)]);
    client.finish().await;
}

#[tokio::test]
async fn a_client_that_can_is_asked_to_watch() {
    let folder = tempfile::tempdir().expect("a folder");
    let can = json!({"workspace": {"didChangeWatchedFiles": {"dynamicRegistration": true}}});
    let mut client = client(folder.path(), can, Value::Null, 0).await;
    let registration = &client.hears("client/registerCapability").await["registrations"][0];
    assert_eq!(registration["method"], "workspace/didChangeWatchedFiles");
    let globs = registration["registerOptions"]["watchers"].to_string();
    for part in ["rs", "py", "tsx", ".gitignore"] {
        assert!(globs.contains(part), "{globs}");
    }
    let lexer = folder.path().join("lexer.rs");
    fs::write(&lexer, "pub fn tokenize(n: u8) {}\n").expect("written");
    let changes = json!([{"uri": uri_of(&lexer), "type": 1}]);
    client.notify("workspace/didChangeWatchedFiles", json!({"changes": changes})).await;
    until_indexed(&mut client, 1).await;
    assert_eq!(others(&mut client, folder.path(), "tokenize").await, [uri_of(&lexer)]);
    client.finish().await;
}

#[tokio::test]
async fn the_index_can_be_switched_off() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("lexer.rs"), "pub fn tokenize(n: u8) {}\n").expect("written");
    for options in [json!({"workspaceIndex": false}), json!({"otherFilesTokens": 0})] {
        let mut client = client(folder.path(), json!({}), options, 0).await;
        assert_eq!(others(&mut client, folder.path(), "tokenize").await, [""; 0]);
        client
            .notify(
                "workspace/didChangeConfiguration",
                json!({"settings": {"gemma": {
                    "workspaceIndex": true, "otherFilesTokens": 64,
                }}}),
            )
            .await;
        until_indexed(&mut client, 1).await;
        assert_eq!(others(&mut client, folder.path(), "tokenize").await.len(), 1);
        client.finish().await;
    }
}
