//! How settings are written, and what is said of those that are wrong.

use super::*;
use crate::settings::{Device, FimIds, FimOrder, MultiLine, Trigger};

#[test]
fn every_field_has_a_key_and_every_key_a_field() {
    let fields: Vec<String> = as_map(&Settings::default()).keys().cloned().collect();
    let mut keys: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    keys.sort();
    assert_eq!(keys, fields);
}

/// A valid value other than the default for each key: the table and the types agree on all of them.
fn all_changed() -> Value {
    json!({
        "model": "codegemma-2b", "adapter": "./ours", "chatModel": "gemma-3-1b-it", "device": "cpu", "threads": 3,
        "memoryBudgetMb": 512, "precision": "exact", "trigger": "manual", "multiLine": "never",
        "maxTokens": 32, "maxTimeMs": 900.0, "prefixTokens": 99, "suffixTokens": 0,
        "otherFilesTokens": 7, "speculation": false, "languagesOff": ["markdown"], "filesOff": ["**/vendor/**"],
        "secretFiles": ["*.secret"], "fimOrder": "spm", "statistics": false, "workspaceIndex": false,
        "persistCacheMb": 64, "kvFormat": "q8", "quantize": "q4_k_m",
        "aheadOfTime": false, "adaptiveDelay": false,
        "fim": {"prefix": 67, "middle": 68, "suffix": 69, "separator": 70}, "logLevel": "debug",
    })
}

#[test]
fn takes_every_key() {
    let (settings, problems) = Settings::from_json(&all_changed());
    assert_eq!(problems, []);
    assert_eq!(settings.model.as_deref(), Some("codegemma-2b"));
    assert_eq!(settings.device, Device::Cpu);
    assert_eq!(settings.threads, Some(3));
    assert_eq!(settings.trigger, Trigger::Manual);
    assert_eq!(settings.completion.multi_line, MultiLine::Never);
    assert_eq!(settings.completion.max_time_ms, Some(900));
    assert_eq!(settings.completion.suffix_tokens, 0);
    assert_eq!(settings.completion.order, Some(FimOrder::Spm));
    assert_eq!(settings.completion.fim, Some(FimIds { prefix: 67, middle: 68, suffix: 69, separator: 70 }));
    assert_eq!(settings.secret_files, ["*.secret"]);
    let defaults = as_map(&Settings::default());
    for (key, value) in as_map(&settings) {
        assert_ne!(Some(&value), defaults.get(&key), "{key} kept its default");
    }
}

#[test]
fn every_choice_is_one_that_the_types_take() {
    for key in KEYS {
        let Kind::Choice(choices) = key.kind else { continue };
        for choice in choices {
            let (settings, problems) = Settings::from_json(&json!({ key.name: choice }));
            assert_eq!(problems, []);
            assert_eq!(as_map(&settings)[key.name], *choice);
        }
    }
}

#[test]
fn the_bounds_are_ones_that_the_types_take() {
    for key in KEYS {
        let Kind::Integer { min, max } = key.kind else { continue };
        for (number, wrong) in [(min, 0), (max, 0), (max + 1, 1)] {
            let (_, problems) = Settings::from_json(&json!({ key.name: number }));
            assert_eq!(problems.len(), wrong, "{} = {number}", key.name);
        }
    }
}

#[test]
fn reports_and_ignores_wrong_values_one_by_one() {
    // (settings, key reported, part of the message)
    let cases = [
        (
            json!({"maxTokens": "many"}),
            "maxTokens",
            "\"many\" is not a whole number; allowed: 1 to 4096; using 96",
        ),
        (json!({"maxTokens": 0}), "maxTokens", "0 is too small"),
        (json!({"statistics": "no"}), "statistics", "\"no\" is neither true nor false"),
        (json!({"maxTokens": -1}), "maxTokens", "-1 is not a whole number"),
        (json!({"maxTokens": 1.5}), "maxTokens", "1.5 is not a whole number"),
        (json!({"maxTokens": 1e300}), "maxTokens", "is not a whole number"),
        (json!({"device": "gpu"}), "device", "allowed: \"auto\", \"cpu\", \"cuda\"; using \"auto\""),
        (json!({"device": 3}), "device", "3 is not one of the choices"),
        (json!({"model": ""}), "model", "is not a name or path"),
        (json!({"model": ["a"]}), "model", "is not a name or path"),
        (json!({"filesOff": "*.md"}), "filesOff", "is not a list"),
        (json!({"filesOff": ["a{b"]}), "filesOff", "\"a{b\" in it is no glob"),
        (json!({"languagesOff": [1]}), "languagesOff", "1 in it is not a text"),
        (json!({"fim": {"prefix": 1}}), "fim", "the key middle is missing"),
        (
            json!({"fim": {"prefix": 67, "middle": 68, "suffix": 67, "separator": 70}}),
            "fim",
            "prefix and suffix are both 67",
        ),
        (json!({"fim": {"prefix": 1, "middle": 2, "suffix": 3, "separator": 4, "x": 5}}), "fim", "no key x"),
        (json!({"fim": {"prefix": -1, "middle": 2, "suffix": 3, "separator": 4}}), "fim", "prefix: -1"),
        (json!({"max_tokens": 3}), "max_tokens", "no such setting; did you mean maxTokens?"),
        (json!({"zzz": 3}), "zzz", "no such setting"),
        (json!([1]), "settings", "[1] is not an object"),
    ];
    for (wrong, key, message) in cases {
        let (settings, problems) = Settings::from_json(&wrong);
        assert_eq!(settings, Settings::default(), "{wrong}");
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
        assert_eq!(problems[0].key, key);
        assert!(problems[0].to_string().contains(message), "{wrong}: {}", problems[0]);
    }
}

#[test]
fn one_wrong_value_does_not_cost_the_others() {
    let (settings, problems) =
        Settings::from_json(&json!({"device": "gpu", "maxTokens": 7, "filesOff": ["[", "*.md"]}));
    assert_eq!(problems.len(), 2);
    assert_eq!(settings.completion.max_tokens, 7);
    assert_eq!(settings.files_off, ["*.md"]);
}

#[test]
fn a_later_source_keeps_what_it_does_not_mention() {
    let (first, _) = Settings::from_json(&json!({"maxTokens": 7, "device": "cpu"}));
    let (second, problems) = first.updated(&json!({"maxTokens": null, "threads": 2, "device": 1}));
    assert_eq!((second.completion.max_tokens, second.threads), (7, Some(2)));
    assert_eq!(second.device, Device::Cpu);
    assert!(problems[0].to_string().ends_with("using \"cpu\""));
    assert_eq!(first.updated(&Value::Null), (first.clone(), vec![]));
}

#[test]
fn the_json_schema_names_every_key_with_its_default() {
    let schema = Settings::json_schema();
    let defaults = as_map(&Settings::default());
    for key in KEYS {
        let property = &schema["properties"][key.name];
        assert_eq!(property["default"], defaults[key.name], "{}", key.name);
        let nullable = property["type"].as_array().is_some_and(|t| t.contains(&json!("null")));
        assert_eq!(nullable, key.optional, "{}", key.name);
        assert_eq!(nullable, defaults[key.name].is_null(), "{}", key.name);
    }
}

#[test]
fn the_table_has_a_row_for_every_key() {
    let table = markdown_table();
    assert_eq!(table.lines().count(), KEYS.len() + 2);
    for line in table.lines() {
        assert_eq!(line.matches('|').count(), 5, "{line}");
    }
    assert!(table.contains("| `maxTokens` | 1 to 4096 | `96` |"));
}
