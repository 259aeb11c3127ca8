//! In which bytes two texts differ, and where what stood in the one stands in the other.

use ropey::Rope;

/// The bytes in which two texts differ: all before and behind them is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// Where they begin, in both texts.
    pub start: usize,
    /// Where they end in the old text.
    pub old_end: usize,
    /// Where they end in the new text.
    pub new_end: usize,
}

/// Whether text that was inserted exactly at a place is taken to stand before the place or behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The place moves on.
    Before,
    /// The place stays.
    Behind,
}

impl Edit {
    /// `None`: the texts are the same. Takes microseconds where one text was made from the other, since
    /// ropes share what an edit left alone.
    pub fn between(old: &Rope, new: &Rope) -> Option<Edit> {
        if old.is_instance(new) {
            return None;
        }
        let (old_length, new_length) = (old.len_bytes(), new.len_bytes());
        let start = alike(old.chunks(), new.chunks(), Direction::Forwards);
        if start == old_length && start == new_length {
            return None;
        }
        let from_the_end = |text: &'_ Rope| text.len_bytes();
        let end = alike(
            old.chunks_at_byte(from_the_end(old)).0.reversed(),
            new.chunks_at_byte(from_the_end(new)).0.reversed(),
            Direction::Backwards,
        );
        let end = end.min(old_length.min(new_length) - start);
        Some(Edit { start, old_end: old_length - end, new_end: new_length - end })
    }

    /// Where what stood at a byte of the old text stands in the new one; `None` where it is inside of what
    /// differs.
    pub fn moved(&self, at: usize, inserted: Inserted) -> Option<usize> {
        let stays = match inserted {
            Inserted::Behind => at <= self.start,
            Inserted::Before => at < self.start,
        };
        match () {
            () if stays => Some(at),
            () if at >= self.old_end => Some(at - self.old_end + self.new_end),
            () => None,
        }
    }

    /// As [`Edit::moved`], for the start of a line. An edit of several lines that leaves as many of them (a
    /// renamed symbol) leaves each where it was.
    pub fn moved_line(&self, at: usize, old: &Rope, new: &Rope) -> Option<usize> {
        self.moved(at, Inserted::Before).or_else(|| {
            let lines = |text: &Rope, end: usize| text.byte_to_line(end) - text.byte_to_line(self.start);
            let line = old.byte_to_line(at);
            let same = lines(old, self.old_end) == lines(new, self.new_end) && old.line_to_byte(line) == at;
            same.then(|| new.line_to_byte(line))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forwards,
    Backwards,
}

/// How many bytes two texts have in common at their beginning or at their end. The chunks come in the order
/// in which they are compared.
fn alike<'a>(
    mut old: impl Iterator<Item = &'a str>,
    mut new: impl Iterator<Item = &'a str>,
    direction: Direction,
) -> usize {
    let (mut a, mut b): (&[u8], &[u8]) = (&[], &[]);
    let mut common = 0;
    loop {
        while a.is_empty() {
            let Some(chunk) = old.next() else { return common };
            a = chunk.as_bytes();
        }
        while b.is_empty() {
            let Some(chunk) = new.next() else { return common };
            b = chunk.as_bytes();
        }
        let length = a.len().min(b.len());
        let (here, there);
        match direction {
            Direction::Forwards => ((here, a), (there, b)) = (a.split_at(length), b.split_at(length)),
            Direction::Backwards => {
                ((a, here), (b, there)) = (a.split_at(a.len() - length), b.split_at(b.len() - length));
            }
        }
        if !std::ptr::eq(here, there) && here != there {
            let mut pairs = here.iter().zip(there);
            let equal = match direction {
                Direction::Forwards => pairs.take_while(|(a, b)| a == b).count(),
                Direction::Backwards => {
                    let mut equal = 0;
                    while pairs.next_back().is_some_and(|(a, b)| a == b) {
                        equal += 1;
                    }
                    equal
                }
            };
            return common + equal;
        }
        common += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_between_what_both_begin_and_end_with() {
        for (old, new, expected) in [
            ("abc", "abc", None),
            ("abc", "abXc", Some((2, 2, 3))),
            ("abc", "ac", Some((1, 2, 1))),
            ("", "x", Some((0, 0, 1))),
            ("aa", "aaa", Some((2, 2, 3))),
            ("one two", "six two", Some((0, 3, 3))),
            ("f(a, a)", "f(bb, bb)", Some((2, 6, 8))),
        ] {
            let edit = Edit::between(&Rope::from_str(old), &Rope::from_str(new));
            assert_eq!(edit.map(|e| (e.start, e.old_end, e.new_end)), expected, "{old} {new}");
        }
    }

    #[test]
    fn long_texts_are_compared_across_their_chunks() {
        let old = Rope::from_str(&"line é\n".repeat(5_000));
        let mut new = old.clone();
        let at = old.line_to_char(2_500);
        new.insert(at, "typed\n");
        let bytes = old.line_to_byte(2_500);
        let edit = Edit::between(&old, &new).expect("they differ");
        assert_eq!((edit.new_end - edit.start, edit.old_end - edit.start), (6, 0));
        assert_eq!(edit.moved(bytes + 8, Inserted::Before), Some(bytes + 14));
        let rebuilt = Rope::from_str(&String::from(&new));
        assert_eq!(Edit::between(&old, &rebuilt), Some(edit));
        assert_eq!(Edit::between(&new, &rebuilt), None);
    }

    #[test]
    fn places_move_with_the_text_around_them() {
        let (old, new) = (Rope::from_str("a\nold b\nc old\nd\n"), Rope::from_str("a\nnewer b\nc newer\nd\n"));
        let edit = Edit::between(&old, &new).expect("they differ");
        let line = |text: &Rope, line| text.line_to_byte(line);
        for number in 0..4 {
            let moved = edit.moved_line(line(&old, number), &old, &new);
            assert_eq!(moved, Some(line(&new, number)), "line {number}");
        }
        assert_eq!(edit.moved(line(&old, 2), Inserted::Before), None);
        let insertion = Edit { start: 2, old_end: 2, new_end: 5 };
        assert_eq!(insertion.moved(2, Inserted::Behind), Some(2));
        assert_eq!(insertion.moved(2, Inserted::Before), Some(5));
    }
}
