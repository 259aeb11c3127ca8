//! Ids to text, one at a time, without ever giving out half a character.

use super::Tokenizer;
use super::pieces::Kind;

/// Turns ids into text one at a time.
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    /// Whether control tokens are left out.
    skip_control: bool,
    /// Bytes of a character that is not complete yet; never a whole one.
    pending: Vec<u8>,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: &Tokenizer, skip_control: bool) -> Self {
        Self { tokenizer: tokenizer.clone(), skip_control, pending: Vec::new() }
    }

    /// The text that became certain with this id: empty in the middle of a character (byte tokens) and
    /// for control tokens. The concatenation of all, with [`StreamDecoder::flush`] at the end, is
    /// `decode(ids, true)`.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.push_into(id, &mut text);
        text
    }

    /// What is left of an unfinished character, as U+FFFD.
    pub fn flush(&mut self) -> String {
        let mut text = String::new();
        self.flush_into(&mut text);
        text
    }

    pub(super) fn push_into(&mut self, id: u32, out: &mut String) {
        let inner = self.tokenizer.inner.clone();
        match inner.pieces.kind(id) {
            Kind::Byte(byte) => {
                self.pending.push(byte);
                self.give_out_whole_characters(out);
            }
            Kind::Hole => {}
            Kind::Control if self.skip_control => {}
            Kind::Normal | Kind::Added | Kind::Control => {
                self.flush_into(out);
                let mut parts = inner.pieces.spelling(id).split('\u{2581}');
                out.push_str(parts.next().unwrap_or_default());
                for part in parts {
                    out.push(' ');
                    out.push_str(part);
                }
            }
        }
    }

    pub(super) fn flush_into(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn give_out_whole_characters(&mut self, out: &mut String) {
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(text) => {
                    out.push_str(text);
                    self.pending.clear();
                    return;
                }
                Err(error) => {
                    // At most one character is pending, so nothing valid stands before the fault.
                    let Some(bad) = error.error_len() else { return };
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..error.valid_up_to() + bad);
                }
            }
        }
    }
}
