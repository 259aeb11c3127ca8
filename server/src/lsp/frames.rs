//! Messages on a byte stream: `Content-Length` headers and bodies, read so that nothing a client sends
//! can stop the server or make it allocate without bounds.
//!
//! A frame that cannot be read is reported and skipped, and reading goes on with the next one. Where
//! that begins is found without trusting the lengths announced: inside valid JSON there can be no
//! header, because a string cannot hold a raw line break and outside strings there are no such words.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest body that is accepted, in bytes.
const LONGEST_BODY: usize = 256 << 20;
/// Longest header block; what is longer is not a header.
const LONGEST_HEADER: usize = 1 << 10;
/// Read from the stream at most this much at a time.
const CHUNK: usize = 64 << 10;

const HEADER: &[u8] = b"content-length:";

/// What came in the place of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A JSON value, of whatever shape.
    Json(serde_json::Value),
    /// Something that is not a message, already skipped.
    Broken(String),
}

/// Reads frames from a stream.
pub(crate) struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were consumed.
    start: usize,
    /// Whether the stream has ended.
    ended: bool,
    /// Whether bytes were skipped that are no part of a message.
    garbage: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, ended: false, garbage: false }
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream's own: the connection is gone.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let Some((body, length)) = self.header().await? else { return Ok(None) };
            if std::mem::take(&mut self.garbage) {
                return Ok(Some(Frame::Broken("bytes that belong to no message".into())));
            }
            self.start += body;
            match length {
                Err(problem) => return Ok(Some(Frame::Broken(problem))),
                // A client that keeps the connection alive this way wants no answer.
                Ok(0) => {}
                Ok(length) => return self.body(length).await,
            }
        }
    }

    /// Skips to the next header: how long it is, and the length of the body behind it if that is one.
    async fn header(&mut self) -> io::Result<Option<(usize, Result<usize, String>)>> {
        loop {
            let unread = self.unread();
            match find_header(unread) {
                Found::At { at, end, length } => {
                    self.garbage |= !other_headers_only(&unread[..at]);
                    self.start += at;
                    return Ok(Some((end - at, length)));
                }
                Found::Incomplete { keep } => {
                    // Nothing before the last `keep` bytes can be the begin of a header.
                    let skip = unread.len() - keep;
                    if skip > LONGEST_HEADER {
                        self.garbage = true;
                        self.start += skip;
                    }
                    if !self.fill().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The body of `length` bytes that begins here.
    async fn body(&mut self, length: usize) -> io::Result<Option<Frame>> {
        let mut searched = 0;
        while self.unread().len() < length {
            // A length that was a lie must not swallow the messages behind it.
            if let Some(at) = embedded_header(self.unread(), searched) {
                self.start += at;
                return Ok(Some(Frame::Broken("a body shorter than its Content-Length".into())));
            }
            searched = self.unread().len().saturating_sub(LONGEST_HEADER);
            if !self.fill().await? {
                return Ok(None);
            }
        }
        let body = &self.unread()[..length];
        match serde_json::from_slice(body) {
            Ok(json) => {
                self.start += length;
                Ok(Some(Frame::Json(json)))
            }
            Err(error) => {
                // Announced too long, it may hold the next message, or the first letters of its header.
                self.start += find(body, 0).unwrap_or(length - beginning_of_header(body));
                Ok(Some(Frame::Broken(format!("not JSON: {error}"))))
            }
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Reads some more; false at the end. Memory grows with what has arrived, not with what was announced.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            // One large message must not keep its memory for the rest of the session.
            if self.buffer.capacity() > 16 * CHUNK && self.buffer.len() < CHUNK {
                self.buffer.shrink_to(CHUNK);
            }
        }
        self.buffer.reserve(CHUNK);
        let read = (&mut self.stream).take(CHUNK as u64).read_buf(&mut self.buffer).await?;
        self.ended = read == 0;
        Ok(!self.ended)
    }
}

enum Found {
    /// A header block with a `Content-Length` at `at`; its body begins at `end`.
    At { at: usize, end: usize, length: Result<usize, String> },
    /// None yet; only the last `keep` bytes may be the begin of one.
    Incomplete { keep: usize },
}

/// Looks for `Content-Length:` in any case, and for the empty line behind it.
fn find_header(bytes: &[u8]) -> Found {
    let mut from = 0;
    while let Some(mut at) = find(bytes, from) {
        let limit = bytes.len().min(at + LONGEST_HEADER);
        match end_of_block(&bytes[at..limit]) {
            Some(end) => {
                let end = at + end;
                // What stands before the last of several was noise with the same words in it.
                while let Some(later) = find(&bytes[..end], at + HEADER.len()) {
                    at = later;
                }
                let value = &bytes[at + HEADER.len()..end];
                let line = value.split(|b| *b == b'\n').next().unwrap_or_default();
                return Found::At { at, end, length: length_of(line) };
            }
            None if limit == bytes.len() => return Found::Incomplete { keep: bytes.len() - at },
            // The words, but no header: look further.
            None => from = at + HEADER.len(),
        }
    }
    Found::Incomplete { keep: beginning_of_header(bytes) }
}

/// How many bytes at the end may be the first ones of a header.
fn beginning_of_header(bytes: &[u8]) -> usize {
    let most = bytes.len().min(HEADER.len() - 1);
    let fits = |n: &usize| bytes[bytes.len() - n..].eq_ignore_ascii_case(&HEADER[..*n]);
    (1..=most).rev().find(fits).unwrap_or(0)
}

/// Where the words of a header begin, from `from` on.
fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let windows = bytes.get(from..)?.windows(HEADER.len());
    windows
        .enumerate()
        .find(|(_, w)| w[0] | 0x20 == b'c' && w.eq_ignore_ascii_case(HEADER))
        .map(|(i, _)| from + i)
}

/// Behind the empty line that ends a header block. Bare line feeds will do.
fn end_of_block(block: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (i, byte) in block.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        let content = &block[line..i];
        if line > 0 && (content.is_empty() || content == b"\r") {
            return Some(i + 1);
        }
        line = i + 1;
    }
    None
}

fn length_of(value: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(value);
    let text = text.trim();
    match text.parse::<usize>() {
        Ok(length) if length <= LONGEST_BODY => Ok(length),
        Ok(length) => Err(format!("a body of {length} bytes; at most {LONGEST_BODY} are accepted")),
        Err(_) => Err(format!("{text:.40?} is no Content-Length")),
    }
}

/// Whether these bytes are whole header lines, such as a `Content-Type` before the length.
fn other_headers_only(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    (text.is_empty() || text.ends_with('\n'))
        && text.lines().all(|line| {
            let name = line.split_once(':').map(|(name, _)| name);
            line.trim().is_empty()
                || name.is_some_and(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        })
}

/// Where a complete header with a number stands among these bytes, which then are not JSON.
fn embedded_header(bytes: &[u8], from: usize) -> Option<usize> {
    /// Longer than any number that is accepted, with the line break.
    const NUMBER: usize = 32;
    let mut from = from;
    while let Some(at) = find(bytes, from) {
        let rest = &bytes[at..bytes.len().min(at + LONGEST_HEADER)];
        let line = &rest[HEADER.len()..rest.len().min(HEADER.len() + NUMBER)];
        // The number is looked at first: in a long text with these words in it the rest is dear.
        let number = line.iter().position(|b| *b == b'\n').map(|end| length_of(&line[..end]));
        if matches!(number, Some(Ok(_))) && end_of_block(rest).is_some() {
            return Some(at);
        }
        from = at + HEADER.len();
    }
    None
}

/// Writes one message. The caller flushes.
///
/// # Errors
/// The stream's own: the connection is gone.
pub(crate) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, body: &[u8]) -> io::Result<()> {
    stream.write_all(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await?;
    stream.write_all(body).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is read from `bytes` when they come in pieces of `piece`: JSON, or `null` for broken frames.
    async fn read(bytes: &[u8], piece: usize) -> Vec<serde_json::Value> {
        let (mut client, server) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            client.write_all(&bytes).await.unwrap();
        });
        let mut reader = Reader::new(server);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            frames.push(match frame {
                Frame::Json(json) => json,
                Frame::Broken(_) => serde_json::Value::Null,
            });
        }
        writing.await.unwrap();
        frames
    }

    fn frame(body: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn reads_what_follows_anything_broken() {
        let good = frame("{\"a\":1}");
        let a = json!({"a": 1});
        let none = serde_json::Value::Null;
        // (bytes, frames; null for a broken one)
        let cases: Vec<(Vec<u8>, Vec<serde_json::Value>)> = vec![
            (good.clone().into(), vec![a.clone()]),
            (format!("{good}{good}").into(), vec![a.clone(), a.clone()]),
            // Headers as others write them.
            ("content-length: 2\r\n\r\n[]".into(), vec![json!([])]),
            ("Content-Length:2\n\n[]".into(), vec![json!([])]),
            (
                "Content-Type: application/vscode-jsonrpc\r\nContent-Length: 2\r\n\r\n[]".into(),
                vec![json!([])],
            ),
            (
                "Content-Length: 2\r\nContent-Type: x/y; charset=utf-8\r\nA: b\r\n\r\n[]".into(),
                vec![json!([])],
            ),
            (format!("\r\n{good}\n\n{good}").into(), vec![a.clone(), a.clone()]),
            // Broken ones, each followed by a good one.
            (format!("noise{good}").into(), vec![none.clone(), a.clone()]),
            (format!("{}{good}", "noise".repeat(10_000)).into(), vec![none.clone(), a.clone()]),
            (format!("{}{good}", frame("{\"a\":")).into(), vec![none.clone(), a.clone()]),
            (format!("Content-Length: -5\r\n\r\n{good}").into(), vec![none.clone(), a.clone()]),
            (format!("Content-Length: many\r\n\r\n{good}").into(), vec![none.clone(), a.clone()]),
            (
                format!("Content-Length: 99999999999999999999999\r\n\r\n{good}").into(),
                vec![none.clone(), a.clone()],
            ),
            (
                format!("Content-Length: 9999999999\r\n\r\n{{}}{good}").into(),
                vec![none.clone(), none.clone(), a.clone()],
            ),
            (format!("Content-Length: 0\r\n\r\n{good}").into(), vec![a.clone()]),
            // Too long a length: behind it are real messages, here or later.
            (format!("Content-Length: 1000000\r\n\r\n{{}}{good}").into(), vec![none.clone(), a.clone()]),
            (
                format!("Content-Length: 12\r\n\r\n{{}}{good}{good}").into(),
                vec![none.clone(), a.clone(), a.clone()],
            ),
            (
                format!("Content-Length: 1\r\n\r\n{{\"b\":2}}{good}").into(),
                vec![none.clone(), none.clone(), a.clone()],
            ),
            // Not UTF-8.
            (
                [b"Content-Length: 4\r\n\r\n\"\xff\xfe\"", good.as_bytes()].concat(),
                vec![none.clone(), a.clone()],
            ),
            // Cut off at the end.
            (format!("{good}Content-Length: 10\r\n\r\n{{").into(), vec![a.clone()]),
            (format!("{good}Content-Le").into(), vec![a.clone()]),
            // The words in a string are no header.
            (frame("\"Content-Length: 3\\r\\n\\r\\n\"").into(), vec![json!("Content-Length: 3\r\n\r\n")]),
        ];
        for (bytes, want) in cases {
            for piece in [1, 7, 1 << 20] {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                assert_eq!(read(&bytes, piece).await, want, "{shown:?} in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_long_message_arrives_whole() {
        let text = "Content-Length: 7\\r\\n\\r\\n".repeat(100_000);
        let got = read(frame(&format!("\"{text}\"")).as_bytes(), 1 << 16).await;
        assert_eq!(got[0].as_str().unwrap().len(), text.replace("\\r\\n", "12").len());
    }

    #[tokio::test]
    async fn announced_lengths_take_no_memory() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        client.write_all(format!("Content-Length: {LONGEST_BODY}\r\n\r\n").as_bytes()).await.unwrap();
        client.write_all(b"[1, 2").await.unwrap();
        drop(client);
        let mut reader = Reader::new(server);
        assert_eq!(reader.next().await.unwrap(), None);
        assert!(reader.buffer.capacity() < 4 * CHUNK);
    }
}
