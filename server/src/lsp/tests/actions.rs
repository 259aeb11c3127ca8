//! Code actions: what is offered where, and what it asks. Commands: who carries them out.

use serde_json::{Value, json};

use super::client::{Client, URI};

const LINE: &str = "let x = 1;";

/// Params for the first line, from character `from` to character `to`.
fn params(uri: &str, from: u32, to: u32, context: Value) -> Value {
    let mut context = context;
    if context.get("diagnostics").is_none() {
        context["diagnostics"] = json!([]);
    }
    json!({"textDocument": {"uri": uri}, "range": range(from, to), "context": context})
}

fn range(from: u32, to: u32) -> Value {
    json!({"start": {"line": 0, "character": from}, "end": {"line": 0, "character": to}})
}

fn diagnostic(from: u32, to: u32, message: &str) -> Value {
    json!({"range": range(from, to), "severity": 1, "source": "rustc", "message": message, "data": {"id": 7}})
}

fn titles(actions: &Value) -> Vec<&str> {
    let actions = actions.as_array().expect("a list");
    actions.iter().map(|action| action["title"].as_str().expect("a title")).collect()
}

/// A client that takes code actions, with these capabilities of ours.
async fn client(ours: Value) -> (Client, Value) {
    let mut client = Client::connect();
    let kinds = json!({"valueSet": ["", "quickfix", "refactor"]});
    let capabilities = json!({
        "textDocument": {"codeAction": {"codeActionLiteralSupport": {"codeActionKind": kinds}}},
        "experimental": {"gemma": ours},
    });
    let result = client.request("initialize", json!({"capabilities": capabilities})).await;
    client.notify("initialized", json!({})).await;
    client.open(URI, "rust", LINE).await;
    (client, result)
}

async fn actions(client: &mut Client, params: Value) -> Value {
    client.request("textDocument/codeAction", params).await
}

const SELECTION: [&str; 4] =
    ["Gemma: explain", "Gemma: write documentation", "Gemma: find the bug", "Gemma: write tests"];
const ERROR: [&str; 2] = ["Gemma: explain this error", "Gemma: fix this error"];

#[tokio::test]
async fn a_selection_can_be_asked_about() {
    let (mut client, result) = client(json!({})).await;
    let kinds = json!(["quickfix", "refactor.rewrite", "gemma"]);
    assert_eq!(result["capabilities"]["codeActionProvider"]["codeActionKinds"], kinds);
    let offered = actions(&mut client, params(URI, 4, 9, json!({}))).await;
    assert_eq!(titles(&offered), SELECTION);
    let questions = ["explain", "document", "fix", "tests"];
    for (action, question) in offered.as_array().expect("a list").iter().zip(questions) {
        let ask = json!({"kind": question, "textDocument": {"uri": URI}, "selection": range(4, 9)});
        assert_eq!(action["command"]["command"], "gemma.ask");
        assert_eq!(action["command"]["arguments"], json!([ask]));
    }
    // Nothing is selected, or the editor looks for a lamp to light.
    assert_eq!(actions(&mut client, params(URI, 4, 4, json!({}))).await, json!([]));
    assert_eq!(actions(&mut client, params(URI, 4, 9, json!({"triggerKind": 2}))).await, json!([]));
    client.finish().await;
}

#[tokio::test]
async fn an_error_can_be_explained_and_mended() {
    let (mut client, _) = client(json!({})).await;
    let error = diagnostic(4, 5, "unused variable\nhelp: prefix it");
    for (selected, selection) in [((4, 4), range(4, 4)), ((4, 5), range(4, 4)), ((0, 10), range(0, 10))] {
        let context = json!({"diagnostics": [error], "triggerKind": 2});
        let offered = actions(&mut client, params(URI, selected.0, selected.1, context)).await;
        assert_eq!(titles(&offered), ERROR);
        for (action, question) in offered.as_array().expect("a list").iter().zip(["explain", "fix"]) {
            let ask = json!({
                "kind": question, "textDocument": {"uri": URI}, "selection": selection, "diagnostics": [error],
            });
            assert_eq!(action["command"]["arguments"], json!([ask]));
            assert_eq!(action["kind"], "quickfix");
            assert_eq!(action["diagnostics"], json!([error]));
        }
    }
    // Several are told apart, and there is an end to them.
    let many: Vec<Value> = (0..100).map(|n| diagnostic(0, 3, &format!("error {n}\nmore"))).collect();
    let offered = actions(&mut client, params(URI, 0, 0, json!({"diagnostics": many}))).await;
    assert_eq!(titles(&offered).len(), 20);
    assert_eq!(titles(&offered)[3], "Gemma: fix this error: error 1");
    client.finish().await;
}

#[tokio::test]
async fn only_what_is_wanted_is_offered() {
    let (mut client, _) = client(json!({})).await;
    let error = diagnostic(4, 5, "unused");
    for (only, expected) in [
        (json!(["quickfix"]), ERROR.to_vec()),
        (json!(["refactor"]), vec![SELECTION[1], SELECTION[3]]),
        (json!(["refactor.rewrite", "quickfix"]), vec![ERROR[0], ERROR[1], SELECTION[1], SELECTION[3]]),
        (json!(["gemma"]), vec![SELECTION[0], SELECTION[2]]),
        (json!(["gemma.explain"]), vec![SELECTION[0]]),
        (json!(["refact", "source.organizeImports"]), vec![]),
        (json!([""]), [&ERROR[..], &SELECTION[..]].concat()),
    ] {
        let context = json!({"diagnostics": [error], "only": only});
        let offered = actions(&mut client, params(URI, 0, 10, context)).await;
        assert_eq!(titles(&offered), expected, "{only}");
    }
    client.finish().await;
}

#[tokio::test]
async fn nothing_is_asked_about_secrets_or_what_is_unknown() {
    let (mut client, _) = client(json!({})).await;
    client.open("file:///home/me/.env", "plaintext", LINE).await;
    let context = json!({"diagnostics": [diagnostic(0, 1, "x")]});
    for uri in ["file:///home/me/.env", "file:///home/me/never.rs"] {
        assert_eq!(actions(&mut client, params(uri, 0, 5, context.clone())).await, json!([]), "{uri}");
    }
    client.finish().await;
}

#[tokio::test]
async fn clients_that_know_no_code_actions_get_commands() {
    let mut client = Client::ready(Value::Null).await;
    client.open(URI, "rust", LINE).await;
    let offered = actions(&mut client, params(URI, 0, 3, json!({}))).await;
    assert_eq!(titles(&offered), SELECTION);
    assert_eq!(offered[0]["command"], "gemma.ask");
    assert_eq!(offered[0]["arguments"][0]["kind"], "explain");
    client.finish().await;
}

#[tokio::test]
async fn a_client_with_commands_of_its_own_is_offered_none_and_answered_still() {
    let (mut client, result) = client(json!({"commands": true})).await;
    assert_eq!(result["capabilities"].get("executeCommandProvider"), None);
    for arguments in [Value::Null, json!([]), json!([{}])] {
        let command = json!({"command": "gemma.status", "arguments": arguments});
        let status = client.request("workspace/executeCommand", command).await;
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    }
    let id = client.start("workspace/executeCommand", json!({"command": "gemma.unknown"})).await;
    let answer = client.answer(id).await;
    assert_eq!(answer["error"]["code"], -32602);
    assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("gemma.status")), "{answer}");
    client.finish().await;
}
