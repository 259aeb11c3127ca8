//! Initialising, settings from all sources, and the model that they name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, URI};

#[tokio::test]
async fn the_first_encoding_that_is_known_is_agreed_on() {
    for (offered, agreed) in [
        (json!(["utf-8", "utf-16"]), "utf-8"),
        (json!(["utf-32"]), "utf-32"),
        (json!(["utf-7", "utf-16"]), "utf-16"),
        (json!([]), "utf-16"),
        (Value::Null, "utf-16"),
    ] {
        let mut client = Client::connect();
        let params = json!({"capabilities": {"general": {"positionEncodings": offered}}});
        let result = client.request("initialize", params).await;
        assert_eq!(result["capabilities"]["positionEncoding"], agreed, "{offered}");
        client.finish().await;
    }
}

#[tokio::test]
async fn the_server_says_what_it_can() {
    let mut client = Client::connect();
    let result = client.initialize(Value::Null).await;
    assert_eq!(result["serverInfo"]["name"], "gemma-ls");
    let can = &result["capabilities"];
    assert_eq!(can["textDocumentSync"]["change"], 2);
    assert_eq!(can["textDocumentSync"]["openClose"], true);
    assert_eq!(can["inlineCompletionProvider"], true);
    assert!(can["completionProvider"].is_object());
    assert!(can["completionProvider"].get("triggerCharacters").is_none());
    let commands = can["executeCommandProvider"]["commands"].as_array().expect("a list");
    assert!(commands.contains(&json!("gemma.chat")) && commands.contains(&json!("gemma.status")), "{can}");
    assert_eq!(can["workspace"]["workspaceFolders"]["supported"], true);
    assert!(can["workspace"]["fileOperations"]["didRename"].is_object());
    assert_eq!(can["experimental"]["gemma"]["didMoveCursor"], true);
    let command = client.request("workspace/executeCommand", json!({"command": "gemma.status"})).await;
    assert_eq!(command["version"], client.status().await["version"]);
    client.finish().await;
}

#[tokio::test]
async fn the_client_configuration_goes_over_the_options() {
    let mut client = Client::connect();
    client.configuration = json!({"maxTokens": 8, "maxTimeMs": null});
    client.initialize(json!({"gemma": {"maxTokens": 7, "maxTimeMs": 900}})).await;
    let status = client.until_model("ready").await;
    assert_eq!(status["settings"]["maxTokens"], 8);
    assert_eq!(status["settings"]["maxTimeMs"], 900);

    let settings = json!({"gemma": {"maxTokens": 9}});
    client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
    assert_eq!(client.status().await["settings"]["maxTokens"], 9);

    // A notification that says nothing is an invitation to ask.
    client.configuration = json!({"maxTokens": 10});
    client.notify("workspace/didChangeConfiguration", json!({"settings": null})).await;
    while client.status().await["settings"]["maxTokens"] != 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.finish().await;
}

#[tokio::test]
async fn each_problem_is_told_once() {
    let mut client = Client::ready(json!({"maxTokns": 3, "device": "gpu"})).await;
    let settings = json!({"device": "gpu", "maxTokens": 5});
    client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
    assert_eq!(client.status().await["problems"].as_array().map(Vec::len), Some(3));
    while client.heard("window/showMessage").len() < 2 {
        client.status().await;
    }
    let shown = client.heard("window/showMessage");
    let texts: Vec<&str> = shown.iter().filter_map(|m| m["message"].as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("did you mean maxTokens?")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("device: \"gpu\"")), "{texts:?}");
    client.finish().await;
}

#[tokio::test]
async fn while_the_model_loads_answers_are_empty_and_progress_is_shown() {
    let mut client = Client::connect();
    client.fake.hold_loads.store(true, Ordering::SeqCst);
    client.initialize(Value::Null).await;
    client.open(URI, "rust", "one").await;
    while client.status().await["model"]["percent"] != 50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.complete(URI, 3).await, [""; 0]);
    let status = client.status().await;
    assert_eq!(status["model"]["state"], "loading");
    assert_eq!(status["completions"]["last"]["reason"], "loading");
    client.hears("$/progress").await;

    client.fake.hold_loads.store(false, Ordering::SeqCst);
    client.until_model("ready").await;
    assert_eq!(client.complete(URI, 3).await, ["<one>!"]);
    let token = client.hears("window/workDoneProgress/create").await["token"].clone();
    while client.heard("$/progress").last().map(|p| p["value"]["kind"] == "end") != Some(true) {
        client.status().await;
    }
    let progress = client.heard("$/progress");
    assert!(progress.iter().all(|p| p["token"] == token));
    assert_eq!(progress[0]["value"]["kind"], "begin");
    client.finish().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_told_and_another_may_come() {
    for broken in ["missing", "panic"] {
        let mut client = Client::connect();
        client.initialize(json!({"model": broken})).await;
        let status = client.until_model("failed").await;
        assert!(status["model"]["error"].is_string());
        let told = client.hears("window/showMessage").await;
        assert_eq!(told["type"], 1);
        if broken == "missing" {
            assert!(told["message"].as_str().unwrap().contains("Pull it."), "{told}");
        }
        client.open(URI, "rust", "one").await;
        assert_eq!(client.complete(URI, 3).await, [""; 0]);

        let settings = json!({"gemma": {"model": "other"}});
        client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
        assert_eq!(client.until_model("ready").await["model"]["name"], "other");
        assert_eq!(client.complete(URI, 3).await, ["<one>!"]);
        assert_eq!(client.heard("window/showMessage").len(), 1);
        client.finish().await;
    }
}

#[tokio::test]
async fn the_old_model_completes_until_the_new_one_is_ready() {
    let mut client = Client::ready(json!({"model": "old"})).await;
    client.open(URI, "rust", "one").await;
    client.fake.hold_loads.store(true, Ordering::SeqCst);
    let settings = json!({"gemma": {"model": "new"}});
    client.notify("workspace/didChangeConfiguration", json!({"settings": settings})).await;
    let status = client.until_model("loading").await;
    assert_eq!(status["model"]["name"], "old");
    assert_eq!(client.complete(URI, 3).await, ["<one>!"]);
    client.fake.hold_loads.store(false, Ordering::SeqCst);
    assert_eq!(client.until_model("ready").await["model"]["name"], "new");
    client.finish().await;
}

#[tokio::test]
async fn a_download_is_announced() {
    let mut client = Client::connect();
    client.fake.hold_loads.store(true, Ordering::SeqCst);
    client.initialize(json!({"model": "download"})).await;
    let told = client.hears("window/showMessage").await;
    assert_eq!(told["type"], 3);
    assert!(told["message"].as_str().unwrap().contains("Gemma Terms of Use"), "{told}");
    client.fake.hold_loads.store(false, Ordering::SeqCst);
    client.until_model("ready").await;
    assert_eq!(client.heard("window/showMessage").len(), 1);
    client.finish().await;
}
