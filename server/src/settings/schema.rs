//! How settings are written: a table of keys, from which validation, the JSON schema and the README's
//! table are made. The defaults come from [`Settings::default`] and stand nowhere else.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Settings;
use super::problem::{Problem, nearest};

/// One key of the settings.
struct Key {
    name: &'static str,
    kind: Kind,
    /// Whether `null` has a meaning of its own, given in `doc`.
    optional: bool,
    doc: &'static str,
}

/// What may stand behind a key.
enum Kind {
    Text,
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    Words,
    Globs,
    /// An object of token ids with all of these keys.
    TokenIds(&'static [&'static str]),
}

const KEYS: &[Key] = &[
    Key {
        name: "model",
        kind: Kind::Text,
        optional: true,
        doc: "The model that completes: a name (`codegemma-2b`), `hf:owner/repo`, or the path of a folder \
              or `.gguf` file. `null`: a CodeGemma found on this machine, else Gemma 3 270M.",
    },
    Key {
        name: "adapter",
        kind: Kind::Text,
        optional: true,
        doc: "A LoRA adapter that runs beside the model that completes: PEFT's folder, or llama.cpp's `.gguf` file of one. \
              `none`: none. `null` (or `built-in`): the one that comes with gemma-ls, for Gemma 3 270M, which \
              teaches it to fill in the middle.",
    },
    Key {
        name: "chatModel",
        kind: Kind::Text,
        optional: true,
        doc: "The model that answers questions, given as `model` is. `null`: what `model` says, else a model \
              on this machine that follows instructions (`-it`), else the one that completes.",
    },
    Key {
        name: "device",
        kind: Kind::Choice(&["auto", "cpu", "cuda"]),
        optional: false,
        doc: "Where to compute. `auto`: the NVIDIA GPU where there is one with room for the model, else the processor. \
              `cuda`: the GPU, or an error that says why not.",
    },
    Key {
        name: "threads",
        kind: Kind::Integer { min: 1, max: 1024 },
        optional: true,
        doc: "Compute threads. `null`: one for each physical core; on Linux fewer while other programs use these, \
              down to half.",
    },
    Key {
        name: "memoryBudgetMb",
        kind: Kind::Integer { min: 16, max: 16 << 20 },
        optional: true,
        doc: "Most memory, in MiB, for what is kept between requests, the weights not counted. `null`: a \
              quarter of the machine's.",
    },
    Key {
        name: "persistCacheMb",
        kind: Kind::Integer { min: 0, max: 16 << 20 },
        optional: false,
        doc: "Most disk space, in MiB, for what is kept from one session to the next, so that yesterday's files are \
              warm when the editor opens. It holds your text in a form that this user's programs alone can read, \
              in `gemma-ls/prefix` in the user's cache folder. 0: nothing is written.",
    },
    Key {
        name: "precision",
        kind: Kind::Choice(&["fast", "exact"]),
        optional: false,
        doc: "`fast` computes with 8-bit activations where the weights are quantised, `exact` with 32-bit \
              floats throughout.",
    },
    Key {
        name: "kvFormat",
        kind: Kind::Choice(&["f16", "q8"]),
        optional: false,
        doc: "How the model remembers what it has read, where `precision` is `fast`. `q8` takes half of the memory that \
              `f16` takes, in which twice as much text fits, and loses a little precision. A GPU keeps `f16`.",
    },
    Key {
        name: "quantize",
        kind: Kind::Choice(&["none", "q8_0", "q4_0", "q4_k_m"]),
        optional: false,
        doc: "What the weights of HuggingFace folders are quantised to when they are loaded: the first time takes a \
              while, then a copy lies in `gemma-ls/quantized` in the user's cache folder. It answers faster and takes \
              less memory; `q8_0` says next to the same, `q4_k_m` and `q4_0` are about a quarter of bf16's size. GGUF \
              files are used as they are.",
    },
    Key {
        name: "trigger",
        kind: Kind::Choice(&["automatic", "manual"]),
        optional: false,
        doc: "`automatic`: complete whenever the editor asks. `manual`: only when you ask.",
    },
    Key {
        name: "aheadOfTime",
        kind: Kind::Bool,
        optional: false,
        doc: "Whether the machine works ahead while nobody waits for it: it reads the file around the cursor when you \
              open it or move, and prepares what follows the suggestion on the screen. `false`: only a request \
              computes anything.",
    },
    Key {
        name: "adaptiveDelay",
        kind: Kind::Bool,
        optional: false,
        doc: "Whether a suggestion waits for the next key, 0.3 s at most, where you type faster than the machine \
              answers.",
    },
    Key {
        name: "multiLine",
        kind: Kind::Choice(&["auto", "always", "never"]),
        optional: false,
        doc: "Whether a completion may have several lines. `auto`: where the syntax around the cursor calls \
              for a block.",
    },
    Key {
        name: "maxTokens",
        kind: Kind::Integer { min: 1, max: 4096 },
        optional: false,
        doc: "Longest completion, in tokens.",
    },
    Key {
        name: "maxTimeMs",
        kind: Kind::Integer { min: 10, max: 600_000 },
        optional: true,
        doc: "Longest time for a completion, in milliseconds. What is there by then is shown. `null`: as long as the \
              model takes on this machine, 1.5 to 15 s.",
    },
    Key {
        name: "prefixTokens",
        kind: Kind::Integer { min: 16, max: 131_072 },
        optional: false,
        doc: "Most tokens of the text before the cursor that the model reads.",
    },
    Key {
        name: "suffixTokens",
        kind: Kind::Integer { min: 0, max: 131_072 },
        optional: false,
        doc: "Most tokens of the text behind the cursor that the model reads.",
    },
    Key {
        name: "otherFilesTokens",
        kind: Kind::Integer { min: 0, max: 131_072 },
        optional: false,
        doc: "Most tokens of other files that the model reads. 0: this file only.",
    },
    Key {
        name: "speculation",
        kind: Kind::Bool,
        optional: false,
        doc: "Whether tokens that stand elsewhere in the text are tried several at a time. Suggestions are the \
              same either way; off shows what it saves.",
    },
    Key {
        name: "languagesOff",
        kind: Kind::Words,
        optional: false,
        doc: "Language identifiers in which nothing is completed, such as `markdown`.",
    },
    Key {
        name: "filesOff",
        kind: Kind::Globs,
        optional: false,
        doc: "Globs of files in which nothing is completed, such as `**/vendor/**`.",
    },
    Key {
        name: "secretFiles",
        kind: Kind::Globs,
        optional: false,
        doc: "Globs of files that are neither completed nor shown to the model as context, besides the \
              built-in list (`.env`, private keys and their like). `!` in front takes files out again.",
    },
    Key {
        name: "workspaceIndex",
        kind: Kind::Bool,
        optional: false,
        doc: "Whether files of the workspace that are not open are looked through for the definitions of what you \
              use. What `.gitignore` and `secretFiles` name is never read.",
    },
    Key {
        name: "fimOrder",
        kind: Kind::Choice(&["psm", "spm", "spmMiddleLast", "plain"]),
        optional: true,
        doc: "What a fill-in-the-middle prompt begins with: `psm` the text before the cursor, `spm` the text \
              behind it, `spmMiddleLast` the same in another arrangement of the tokens; `plain` shows the model \
              the text before the cursor only. `gemma-ls bench fim` measures which suits. `null`: what suits the \
              model.",
    },
    Key {
        name: "fim",
        kind: Kind::TokenIds(&["prefix", "middle", "suffix", "separator"]),
        optional: true,
        doc: "The fill-in-the-middle token ids of a model tuned for it whose vocabulary does not name them. \
              `null`: as the vocabulary says.",
    },
    Key {
        name: "statistics",
        kind: Kind::Bool,
        optional: false,
        doc: "Whether shown and accepted suggestions are counted, for `gemma-ls stats`. The numbers stay on this \
              machine, and no text is kept.",
    },
    Key {
        name: "logLevel",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        optional: false,
        doc: "How much is written to the log (standard error).",
    },
];

/// The largest token id that a setting may name; vocabularies of the family end far below it.
const MAX_TOKEN_ID: u64 = u32::MAX as u64;

/// `base` with the valid settings of `json` over it, and what was wrong with the others.
pub(super) fn update(base: &Settings, json: &Value) -> (Settings, Vec<Problem>) {
    let given = match json {
        Value::Null => return (base.clone(), Vec::new()),
        Value::Object(given) => given,
        other => {
            let problem = Problem {
                key: "settings".into(),
                problem: format!("{} is not an object of settings", shown(other)),
                allowed: Some("an object, such as {\"maxTokens\": 64}".into()),
                used: Some("what was set before".into()),
                meant: None,
            };
            return (base.clone(), vec![problem]);
        }
    };

    let mut merged = as_map(base);
    let mut problems = Vec::new();
    for (name, value) in given {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            problems.push(unknown(name));
            continue;
        };
        // Editors send null for what the user has not set.
        if value.is_null() {
            continue;
        }
        let before = merged.get(key.name).cloned().unwrap_or_default();
        let mut report = |what: String| {
            problems.push(Problem {
                key: name.clone(),
                problem: what,
                allowed: Some(key.kind.allowed()),
                used: Some(if key.kind.is_list() { "the rest".into() } else { shown(&before) }),
                meant: None,
            });
        };
        if let Some(valid) = key.kind.valid(value, &mut report) {
            merged.insert(name.clone(), valid);
        }
    }
    match serde_json::from_value(Value::Object(merged)) {
        Ok(settings) => (settings, problems),
        // The table lets through only what the types take (tested); should it ever not, a user
        // keeps a working server and hears of it.
        Err(error) => {
            problems.push(Problem::unreadable("settings", error));
            (base.clone(), problems)
        }
    }
}

fn unknown(name: &str) -> Problem {
    Problem {
        key: name.to_owned(),
        problem: "there is no such setting".into(),
        allowed: None,
        used: None,
        meant: nearest(name, KEYS.iter().map(|key| key.name)),
    }
}

fn as_map(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// A value as it is shown in a message: JSON, cut where it gets long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

impl Kind {
    /// The value in the form the types take, or `None` after a report. A list loses its bad entries only.
    fn valid(&self, value: &Value, report: &mut dyn FnMut(String)) -> Option<Value> {
        match self {
            Self::Text => {
                let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
                text.map(Value::from).or_else(|| {
                    report(format!("{} is not a name or path", shown(value)));
                    None
                })
            }
            Self::Bool => value.as_bool().map(Value::from).or_else(|| {
                report(format!("{} is neither true nor false", shown(value)));
                None
            }),
            Self::Integer { min, max } => {
                integer(value, *min, *max).map_err(&mut *report).ok().map(Value::from)
            }
            Self::Choice(choices) => {
                let choice = value.as_str().filter(|choice| choices.contains(choice));
                choice.map(Value::from).or_else(|| {
                    report(format!("{} is not one of the choices", shown(value)));
                    None
                })
            }
            Self::Words | Self::Globs => self.valid_list(value, report),
            Self::TokenIds(names) => token_ids(names, value).map_err(report).ok(),
        }
    }

    fn valid_list(&self, value: &Value, report: &mut dyn FnMut(String)) -> Option<Value> {
        let Some(entries) = value.as_array() else {
            report(format!("{} is not a list", shown(value)));
            return None;
        };
        let mut valid = Vec::new();
        for entry in entries {
            match entry.as_str().map(str::trim).filter(|text| !text.is_empty()) {
                None => report(format!("{} in it is not a text", shown(entry))),
                Some(text) => match self {
                    Self::Globs => match globset::Glob::new(text) {
                        Ok(_) => valid.push(Value::from(text)),
                        Err(error) => report(format!("{} in it is no glob: {}", shown(entry), error.kind())),
                    },
                    _ => valid.push(Value::from(text)),
                },
            }
        }
        Some(Value::Array(valid))
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::Words | Self::Globs)
    }

    /// What may stand there, in words.
    fn allowed(&self) -> String {
        match self {
            Self::Text => "a name or path".into(),
            Self::Bool => "true or false".into(),
            Self::Integer { min, max } => format!("{min} to {max}"),
            Self::Choice(choices) => {
                choices.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ")
            }
            Self::Words => "a list of texts".into(),
            Self::Globs => "a list of globs".into(),
            Self::TokenIds(names) => format!("an object of token ids with {}", names.join(", ")),
        }
    }

    fn json_schema(&self) -> Map<String, Value> {
        let schema = match self {
            Self::Text => json!({"type": "string", "minLength": 1}),
            Self::Bool => json!({"type": "boolean"}),
            Self::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
            Self::Choice(choices) => json!({"type": "string", "enum": choices}),
            Self::Words | Self::Globs => {
                json!({"type": "array", "items": {"type": "string", "minLength": 1}})
            }
            Self::TokenIds(names) => {
                let id = json!({"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID});
                let properties: Map<_, _> = names.iter().map(|n| (n.to_string(), id.clone())).collect();
                json!({
                    "type": "object", "properties": properties, "required": names,
                    "additionalProperties": false,
                })
            }
        };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// A whole number within bounds. JSON has one kind of number, and some editors write 64 as 64.0.
fn integer(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    let float = value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f));
    match value.as_u64().or(float.map(|f| f as u64)) {
        Some(number) if number < min => Err(format!("{number} is too small")),
        Some(number) if number > max => Err(format!("{number} is too large")),
        Some(number) => Ok(number),
        None => Err(format!("{} is not a whole number", shown(value))),
    }
}

/// An object with exactly these keys, each a token id.
fn token_ids(names: &[&str], value: &Value) -> Result<Value, String> {
    let Some(given) = value.as_object() else { return Err(format!("{} is not an object", shown(value))) };
    if let Some(extra) = given.keys().find(|key| !names.contains(&key.as_str())) {
        return Err(format!("it has no key {extra}"));
    }
    let mut ids = Map::new();
    for name in names {
        let id = given.get(*name).ok_or_else(|| format!("the key {name} is missing"))?;
        let id = integer(id, 0, MAX_TOKEN_ID).map_err(|what| format!("{name}: {what}"))?;
        if let Some((other, _)) = ids.iter().find(|(_, other)| **other == id) {
            return Err(format!("{other} and {name} are both {id}"));
        }
        ids.insert((*name).to_owned(), id.into());
    }
    Ok(Value::Object(ids))
}

/// The JSON schema of the settings object.
pub fn json_schema() -> Value {
    let defaults = as_map(&Settings::default());
    let mut properties = Map::new();
    for key in KEYS {
        let mut schema = key.kind.json_schema();
        if key.optional {
            // null joins the type, and the choices where there are any.
            if let Some(kind) = schema.remove("type") {
                schema.insert("type".into(), json!([kind, "null"]));
            }
            if let Some(Value::Array(choices)) = schema.get_mut("enum") {
                choices.push(Value::Null);
            }
        }
        schema.insert("default".into(), defaults.get(key.name).cloned().unwrap_or_default());
        schema.insert("description".into(), key.doc.into());
        properties.insert(key.name.into(), Value::Object(schema));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of gemma-ls",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The settings as the README's table, in Markdown.
pub fn markdown_table() -> String {
    let defaults = as_map(&Settings::default());
    let mut table = String::from("| Setting | Values | Default | What it does |\n|---|---|---|---|\n");
    for key in KEYS {
        let values = key.kind.allowed();
        let default = defaults.get(key.name).cloned().unwrap_or_default();
        // A write to a String cannot fail.
        let _ = writeln!(table, "| `{}` | {} | `{}` | {} |", key.name, values, default, key.doc);
    }
    table
}

#[cfg(test)]
mod tests;
