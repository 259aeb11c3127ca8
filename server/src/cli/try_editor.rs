//! The smallest editor there is: one document, one cursor, keys, and a language server behind it.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};
use super::try_client::Client;
use super::try_show::Keystroke;

/// No completion takes longer, or something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A document open in a language server.
pub struct Editor {
    client: Client,
    uri: String,
    /// ASCII, so that bytes, characters and UTF-16 units are the same.
    text: String,
    /// Where the cursor is, in bytes.
    cursor: usize,
    version: i32,
}

/// A suggestion: what replaces what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    insert: String,
    replaces: Range<usize>,
}

impl Editor {
    /// Opens `text`, in which `$0` marks the cursor, on a server that is initialized.
    pub fn open(mut client: Client, uri: &str, language: &str, text: &str) -> Outcome<Self> {
        let cursor = text.find("$0").unwrap_or(text.len());
        let text = text.replacen("$0", "", 1);
        let document = json!({ "uri": uri, "languageId": language, "version": 1, "text": text });
        client.notify("textDocument/didOpen", json!({ "textDocument": document }))?;
        Ok(Self { client, uri: uri.to_owned(), text, cursor, version: 1 })
    }

    /// The text now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of the cursor, from 1.
    pub fn line(&self) -> usize {
        self.text[..self.cursor].matches('\n').count() + 1
    }

    /// The text of the cursor's line.
    pub fn current_line(&self) -> &str {
        self.text.lines().nth(self.line() - 1).unwrap_or_default()
    }

    /// The connection, for requests beyond editing.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Types one key and asks what to suggest behind it.
    pub fn type_key(&mut self, key: char) -> Outcome<(Keystroke, Option<Suggestion>)> {
        self.replace(self.cursor..self.cursor, &key.to_string())?;
        let asked = Instant::now();
        let params = json!({
            "textDocument": { "uri": self.uri },
            "position": self.place(self.cursor),
            "context": { "triggerKind": 2 },
        });
        let answer = self.client.request("textDocument/inlineCompletion", params, ANSWER_LIMIT)?;
        let total_ms = asked.elapsed().as_secs_f64() * 1000.0;
        let suggestion = self.first_item(&answer)?;
        let line_start = self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1);
        let keystroke = Keystroke {
            typed: key.to_string(),
            line: self.text[line_start..self.cursor].to_owned(),
            suggestion: suggestion.as_ref().map_or_else(String::new, |s| self.ghost(s)),
            total_ms,
            ..Keystroke::default()
        };
        Ok((keystroke, suggestion))
    }

    /// Inserts text at the cursor in one go, as pasting does, and asks for nothing.
    pub fn paste(&mut self, text: &str) -> Outcome {
        self.replace(self.cursor..self.cursor, text)
    }

    /// Takes a suggestion, as Tab does. Returns the lines it touches, from 1.
    pub fn accept(&mut self, suggestion: &Suggestion) -> Outcome<Range<usize>> {
        let first = self.line();
        self.replace(suggestion.replaces.clone(), &suggestion.insert)?;
        Ok(first..self.line() + 1)
    }

    fn replace(&mut self, range: Range<usize>, with: &str) -> Outcome {
        let change = json!({
            "range": { "start": self.place(range.start), "end": self.place(range.end) },
            "text": with,
        });
        self.cursor = range.start + with.len();
        self.text.replace_range(range, with);
        self.version += 1;
        let document = json!({ "uri": self.uri, "version": self.version });
        let params = json!({ "textDocument": document, "contentChanges": [change] });
        self.client.notify("textDocument/didChange", params)
    }

    fn place(&self, offset: usize) -> Value {
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        json!({ "line": before.matches('\n').count(), "character": offset - line_start })
    }

    /// The byte of a place, `None` outside the text.
    fn offset(&self, place: &Value) -> Option<usize> {
        let line = usize::try_from(place["line"].as_u64()?).ok()?;
        let character = usize::try_from(place["character"].as_u64()?).ok()?;
        let start: usize = self.text.split_inclusive('\n').take(line).map(str::len).sum();
        let offset = start.checked_add(character)?;
        self.text.is_char_boundary(offset).then_some(offset)
    }

    /// The first item of an answer: a list, an object with `items`, or `null`.
    fn first_item(&self, answer: &Value) -> Outcome<Option<Suggestion>> {
        let items = answer.get("items").unwrap_or(answer);
        let Some(item) = items.as_array().and_then(|items| items.first()) else { return Ok(None) };
        let insert = item["insertText"].as_str().or_else(|| item["insertText"]["value"].as_str());
        let replaces = match item.get("range").filter(|range| !range.is_null()) {
            Some(range) => self.offset(&range["start"]).zip(self.offset(&range["end"])),
            None => Some((self.cursor, self.cursor)),
        };
        match (insert, replaces) {
            (Some(insert), Some((start, end))) if start <= self.cursor && start <= end => {
                Ok(Some(Suggestion { insert: insert.to_owned(), replaces: start..end }))
            }
            _ => Err(Failure::new(Exit::Failed, format!("the server suggested what makes no sense: {item}"))),
        }
    }

    /// What is grey: the insertion without what is there already.
    fn ghost(&self, suggestion: &Suggestion) -> String {
        let there = &self.text[suggestion.replaces.start..self.cursor];
        suggestion.insert.strip_prefix(there).unwrap_or(&suggestion.insert).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::try_client::tests::{connected, next, next_or_end, send};
    use super::*;

    /// Types one key in `text` against a server that answers `answer`, and accepts what it suggests.
    /// Returns what was shown, the text at the end, and the changes that the server saw.
    fn typed(text: &'static str, key: char, answer: Value) -> Outcome<(String, String, Vec<Value>)> {
        let (client, server) = connected(move |reader, writer| {
            let mut seen = Vec::new();
            let opened = next(reader);
            assert_eq!(opened["method"], "textDocument/didOpen");
            assert_eq!(opened["params"]["textDocument"]["text"], text.replace("$0", ""));
            while let Some(message) = next_or_end(reader) {
                match message.get("id") {
                    Some(id) => send(writer, &json!({ "id": id, "result": answer })),
                    None => seen.push(message["params"]["contentChanges"][0].clone()),
                }
            }
            seen
        });
        let mut editor = Editor::open(client, "file:///a.py", "python", text)?;
        let (keystroke, suggestion) = editor.type_key(key)?;
        if let Some(suggestion) = suggestion {
            editor.accept(&suggestion)?;
        }
        let text = editor.text().to_owned();
        drop(editor);
        Ok((keystroke.suggestion, text, server.join().expect("no panic")))
    }

    fn range(line: u32, from: u32, to: u32) -> Value {
        json!({ "start": { "line": line, "character": from }, "end": { "line": line, "character": to } })
    }

    #[test]
    fn a_suggestion_is_shown_behind_the_cursor_and_accepted() {
        for answer in [
            json!([{ "insertText": "eturn x" }]),
            json!({ "items": [{ "insertText": "eturn x", "range": range(1, 3, 3) }] }),
            json!({ "items": [{ "insertText": "  return x", "range": range(1, 0, 3) }] }),
            json!([{ "insertText": { "kind": "snippet", "value": "eturn x" } }]),
        ] {
            let (shown, text, seen) = typed("def f():\n  $0\nf()\n", 'r', answer.clone()).expect("sound");
            assert_eq!(shown, "eturn x", "{answer}");
            assert_eq!(text, "def f():\n  return x\nf()\n", "{answer}");
            assert_eq!(seen[0], json!({ "range": range(1, 2, 2), "text": "r" }));
            assert_eq!(seen.len(), 2);
        }
    }

    #[test]
    fn nothing_is_nothing() {
        for answer in [Value::Null, json!([]), json!({ "items": [] })] {
            let (shown, text, _) = typed("a$0", 'b', answer).expect("sound");
            assert_eq!((shown.as_str(), text.as_str()), ("", "ab"));
        }
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        for item in [
            json!({}),
            json!({ "insertText": 1 }),
            json!({ "insertText": "x", "range": range(9, 9, 9) }),
            json!({ "insertText": "x", "range": range(0, 2, 1) }),
            json!({ "insertText": "x", "range": { "start": -1 } }),
            json!({ "insertText": "x", "range": { "start": { "line": 0, "character": u64::MAX } } }),
        ] {
            assert!(typed("a$0", 'b', json!([item])).is_err(), "{item}");
        }
    }
}
