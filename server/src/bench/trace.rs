//! Editing traces in the format `gemma-ls-trace/1`: a header with all documents, then one event a line.

use std::path::{Path, PathBuf};

use gemma_engine::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::bench::playback::Playback;

/// The format that is read here.
pub const FORMAT: &str = "gemma-ls-trace/1";
/// What all URIs of a trace begin with: the root of its workspace.
pub const ROOT: &str = "file:///project/";

/// A recorded editing session. Its events are checked: they can be played in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// What happens in it, in a sentence.
    pub description: String,
    /// All files of the project as they are at the start.
    pub documents: Vec<Document>,
    /// What happens, in order.
    pub events: Vec<Event>,
}

/// A file of the project.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it is, relative to the root of the workspace.
    pub path: PathBuf,
    /// The LSP language identifier.
    pub language: String,
    /// What it says at the start.
    pub text: String,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, in milliseconds since the start.
    pub t_ms: u64,
    /// Which document it is about: an index into [`Trace::documents`].
    pub document: usize,
    /// What.
    pub what: What,
}

/// What happens to a document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It is opened with the text that it has.
    Open,
    /// It comes to the front.
    Focus,
    /// It is closed.
    Close,
    /// Its text changes.
    Change {
        /// The version that it has afterwards.
        version: i32,
        /// What is replaced, each in the result of the one before.
        changes: Vec<Change>,
    },
    /// The cursor moves.
    Cursor {
        /// Where to.
        position: Position,
    },
    /// A completion is asked for.
    Complete(Complete),
}

/// A change of a text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Change {
    /// What is replaced.
    pub range: Range,
    /// What comes in its place.
    pub text: String,
}

/// From `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Range {
    /// First place inside.
    pub start: Position,
    /// First place outside.
    pub end: Position,
}

/// A place in a text, in UTF-16 units, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The offset in it.
    pub character: u32,
}

/// A request for a completion at the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Complete {
    /// Where.
    pub position: Position,
    /// Who asks.
    pub trigger: Trigger,
    /// What is typed next; empty where nothing is.
    pub expect_prefix: String,
}

/// Who asks for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The editor, after a key.
    Automatic,
    /// The user.
    Invoked,
}

/// The first line.
#[derive(Deserialize)]
struct Header {
    format: String,
    name: String,
    #[serde(default)]
    description: String,
    documents: Vec<HeaderDocument>,
}

#[derive(Deserialize)]
struct HeaderDocument {
    uri: String,
    language: String,
    text: String,
}

/// Any other line.
#[derive(Deserialize)]
struct Line {
    t_ms: u64,
    uri: String,
    #[serde(flatten)]
    what: What,
}

impl Trace {
    /// Reads a trace and plays it once on its own documents, so that nothing in it can surprise later.
    ///
    /// # Errors
    /// The file cannot be read, is no trace, or says something impossible; the line is named.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::InvalidData => ErrorKind::BadFile,
                _ => ErrorKind::Resources,
            };
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
                std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
                _ => error.to_string(),
            };
            Error::new(kind, &shown, why)
        })?;
        Self::parse(&shown, &text)
    }

    /// Reads a trace from its text; `file` is what it is called in errors.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let wrong = |line: usize, why: String| {
            Error::new(ErrorKind::BadFile, format!("{file}, line {}", line + 1), why)
        };
        let (_, first) = lines.next().ok_or_else(|| wrong(0, "the file is empty".into()))?;
        let mut trace = Self::header(first).map_err(|why| {
            wrong(0, why).remedy(format!(
                "A trace begins with a line such as {{\"format\":\"{FORMAT}\",\"name\":...,\"documents\":[...]}}."
            ))
        })?;
        let uris: Vec<String> = trace.documents.iter().map(Document::uri).collect();
        let mut playback = Playback::new(&trace.documents);
        let mut last = 0;
        let mut events = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line =
                serde_json::from_str(line).map_err(|e| wrong(number, format!("it is no event: {e}")))?;
            let document = uris.iter().position(|uri| *uri == line.uri);
            let document = document
                .ok_or_else(|| wrong(number, format!("{} is none of the trace's documents", line.uri)))?;
            if line.t_ms < last {
                return Err(wrong(number, format!("t_ms goes back from {last} to {}", line.t_ms)));
            }
            last = line.t_ms;
            let event = Event { t_ms: line.t_ms, document, what: line.what };
            playback.apply(&event).map_err(|why| wrong(number, why))?;
            events.push(event);
        }
        trace.events = events;
        Ok(trace)
    }

    fn header(line: &str) -> std::result::Result<Self, String> {
        let header: Header = serde_json::from_str(line).map_err(|e| format!("it is no header: {e}"))?;
        if header.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT:?}", header.format));
        }
        let mut documents: Vec<Document> = Vec::new();
        for document in header.documents {
            let path = relative(&document.uri)?;
            if documents.iter().any(|other| other.path == path) {
                return Err(format!("{} is there twice", document.uri));
            }
            if document.text.contains('\r') {
                return Err(format!("{} has carriage returns; line ends must be LF", document.uri));
            }
            documents.push(Document { path, language: document.language, text: document.text });
        }
        let Header { name, description, .. } = header;
        Ok(Self { name, description, documents, events: Vec::new() })
    }

    /// How many completions are asked for.
    pub fn requests(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.what, What::Complete(_))).count()
    }

    /// The beginning of the trace, up to its request number `most`.
    pub fn truncate(&mut self, most: usize) {
        let mut seen = 0;
        let end = self.events.iter().position(|event| {
            seen += usize::from(matches!(event.what, What::Complete(_)));
            seen > most
        });
        self.events.truncate(end.unwrap_or(self.events.len()));
    }
}

impl Document {
    /// Its URI in the trace.
    fn uri(&self) -> String {
        format!("{ROOT}{}", slashed(&self.path))
    }
}

/// A relative path with `/` between its parts.
pub fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Where a document is under the root of the workspace. A trace comes from anywhere: its paths must not lead
/// out of the folder that it is played in.
fn relative(uri: &str) -> std::result::Result<PathBuf, String> {
    let rest = uri.strip_prefix(ROOT).ok_or_else(|| format!("{uri} does not begin with {ROOT}"))?;
    let rest = percent_decode_str(rest).decode_utf8().map_err(|_| format!("{uri} is not UTF-8"))?;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0', '%']);
    match rest.split('/').all(plain) {
        true => Ok(rest.split('/').collect()),
        false => Err(format!("{uri} is no path below the root of the workspace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = concat!(
        r#"{"format":"gemma-ls-trace/1","name":"t","description":"d","documents":["#,
        r#"{"uri":"file:///project/src/a.rs","language":"rust","text":"let é = \"🚚\";\n"}]}"#
    );

    fn parse(events: &[&str]) -> Result<Trace> {
        Trace::parse("t.jsonl", &[&[HEADER], events].concat().join("\n"))
    }

    fn event(fields: &str) -> String {
        format!(r#"{{"t_ms":5,"uri":"file:///project/src/a.rs",{fields}}}"#)
    }

    #[test]
    fn a_sound_trace_is_read() {
        let change = event(concat!(
            r#""event":"change","version":2,"changes":[{"range":{"start":{"line":0,"character":11},"#,
            r#""end":{"line":0,"character":11}},"text":"x"}]"#
        ));
        let complete = event(concat!(
            r#""event":"complete","position":{"line":0,"character":12},"trigger":"automatic","#,
            r#""expect_prefix":"yz""#
        ));
        let (open, focus) = (event(r#""event":"open""#), event(r#""event":"focus""#));
        let mut trace = parse(&[&open, &focus, &change, &complete]).expect("a trace");
        assert_eq!((trace.name.as_str(), trace.requests(), trace.events.len()), ("t", 1, 4));
        assert_eq!(trace.documents[0].path, Path::new("src/a.rs"));
        let What::Complete(complete) = &trace.events[3].what else { panic!("a request") };
        assert_eq!((complete.trigger, complete.expect_prefix.as_str()), (Trigger::Automatic, "yz"));
        trace.truncate(0);
        assert_eq!(trace.events.len(), 3);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let open = event(r#""event":"open""#);
        let focus = event(r#""event":"focus""#);
        let at = |line, character| format!(r#"{{"line":{line},"character":{character}}}"#);
        let change = |version, start: &str, end: &str| {
            event(&format!(
                r#""event":"change","version":{version},"changes":[{{"range":{{"start":{start},"end":{end}}},"text":""}}]"#
            ))
        };
        let cursor = |place: &str| event(&format!(r#""event":"cursor","position":{place}"#));
        let complete = |place: &str| {
            event(&format!(r#""event":"complete","position":{place},"trigger":"invoked","expect_prefix":"""#))
        };
        let cases = [
            (vec!["{}".to_owned()], "line 2: it is no event: missing field"),
            (vec![event(r#""event":"dance""#)], "unknown variant `dance`"),
            (vec![open.replace("a.rs", "b.rs")], "b.rs is none of the trace's documents"),
            (vec![open.clone(), open.clone()], "line 3: it is open already"),
            (vec![focus.clone()], "it is not open"),
            (vec![open.clone(), cursor(&at(0, 0))], "it is not the document in front"),
            (vec![open.clone(), focus.clone(), open.replace(":5", ":4")], "t_ms goes back from 5 to 4"),
            (vec![open.clone(), focus.clone(), change(3, &at(0, 0), &at(0, 0))], "version 3, not 2"),
            (vec![open.clone(), focus.clone(), change(2, &at(0, 5), &at(0, 4))], "ends before it begins"),
            (vec![open.clone(), focus.clone(), cursor(&at(0, 10))], "line 4: there is no place 0:10"),
            (vec![open.clone(), focus.clone(), cursor(&at(0, 99))], "there is no place 0:99"),
            (vec![open.clone(), focus.clone(), cursor(&at(7, 0))], "there is no place 7:0"),
            (vec![open.clone(), focus.clone(), complete(&at(0, 3))], "the cursor is at 0:0, not at 0:3"),
        ];
        for (events, said) in cases {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let error = parse(&events).expect_err(said);
            assert!(error.to_string().contains(said), "{error}, not {said}");
            assert_eq!(error.kind(), ErrorKind::BadFile);
        }
    }

    #[test]
    fn a_header_says_what_is_wrong_with_it() {
        let with_uri = |uri: &str| HEADER.replace("file:///project/src/a.rs", uri);
        for (header, said) in [
            (String::new(), "line 1"),
            ("{}".into(), "it is no header: missing field `format`"),
            (HEADER.replace("trace/1", "trace/2"), "its format is \"gemma-ls-trace/2\""),
            (with_uri("file:///home/a.rs"), "does not begin with file:///project/"),
            (with_uri("file:///project/../a.rs"), "no path below the root"),
            (with_uri("file:///project/%2e%2e/a.rs"), "no path below the root"),
            (with_uri("file:///project/a//b"), "no path below the root"),
            (with_uri("file:///project/c%3A/b"), "no path below the root"),
            (HEADER.replace("\\n", "\\r\\n"), "carriage returns"),
        ] {
            let error = Trace::parse("t.jsonl", &header).expect_err(said).to_string();
            assert!(error.contains(said), "{error}, not {said}");
        }
    }
}
