//! The texts of overlapping tiles become one text, in reading order, what two tiles both show once.
//!
//! Tiles of a row are joined line by line: the right one goes on where the left one ends. Rows are joined line
//! under line. What overlaps is recognised by its words, and tolerantly: a model rarely reads a line twice in
//! the same way, and what an edge cuts it reads only half.

/// A part of a word that is shorter than this is no sign that two lines overlap.
const PART: usize = 3;

/// Joins the texts of the tiles of a grid with `columns` tiles in a row, given row by row.
pub fn merge(texts: &[String], columns: usize) -> String {
    let lines = |text: &String| {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    let rows = texts.chunks(columns.max(1));
    let rows = rows.map(|row| row.iter().map(lines).reduce(beside).unwrap_or_default());
    rows.reduce(below).unwrap_or_default().join("\n")
}

/// Lines of a tile and of its right neighbour.
fn beside(left: Vec<String>, right: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    // Between lines that belong together for sure, as many on both sides belong together too.
    for (i, j) in pairs(&left, &right).into_iter().chain([(left.len(), right.len())]) {
        let (free_left, free_right) = (&left[l..i], &right[r..j]);
        if free_left.len() == free_right.len() {
            out.extend(free_left.iter().zip(free_right).map(|(a, b)| format!("{a} {b}")));
        } else {
            out.extend(free_left.iter().chain(free_right).cloned());
        }
        if let (Some(a), Some(b)) = (left.get(i), right.get(j)) {
            out.push(joined(a, b));
        }
        (l, r) = (i + 1, j + 1);
    }
    out
}

/// Which lines go on in which, by the words they share; both in order. Of all ways the one with the most shared
/// words.
fn pairs(left: &[String], right: &[String]) -> Vec<(usize, usize)> {
    let shared: Vec<Vec<usize>> =
        left.iter().map(|a| right.iter().map(|b| overlap(a, b).map_or(0, |o| o.score)).collect()).collect();
    // best[i][j]: the most that lines from i on the left and from j on the right can share.
    let mut best = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            let paired = if shared[i][j] > 0 { shared[i][j] + best[i + 1][j + 1] } else { 0 };
            best[i][j] = paired.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if shared[i][j] > 0 && best[i][j] == shared[i][j] + best[i + 1][j + 1] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if best[i][j] == best[i + 1][j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// How the end of a line and the beginning of another overlap.
struct Overlap {
    /// Words of the right line that are on the left one already.
    words: usize,
    /// Whether the last of them is only begun on the left.
    begun: bool,
    /// Letters that agree.
    score: usize,
}

/// The longest overlap of the end of `left` with the beginning of `right`. The first shared word may be cut on
/// the right, the last one on the left.
fn overlap(left: &str, right: &str) -> Option<Overlap> {
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    (1..=left.len().min(right.len())).rev().find_map(|words| {
        let shared = left[left.len() - words..].iter().zip(&right);
        let mut found = Overlap { words, begun: false, score: 0 };
        for (n, (a, b)) in shared.enumerate() {
            if alike(a, b) {
                found.score += a.chars().count();
            } else if n + 1 == words && is_part(a, words) && b.starts_with(a) {
                found.begun = true;
                found.score += a.chars().count();
            } else if n == 0 && is_part(b, words) && a.ends_with(b) {
                found.score += b.chars().count();
            } else {
                return None;
            }
        }
        Some(found)
    })
}

/// Whether half a word says something: a long one does, and one among others that agree.
fn is_part(word: &str, words: usize) -> bool {
    words > 1 || word.chars().count() >= PART
}

/// A line and the one that goes on in it, what both have once.
fn joined(left: &str, right: &str) -> String {
    let Some(overlap) = overlap(left, right) else { return format!("{left} {right}") };
    let left: Vec<&str> = left.split(' ').collect();
    let kept = left.len() - usize::from(overlap.begun);
    let new = right.split(' ').skip(overlap.words - usize::from(overlap.begun));
    left[..kept].iter().copied().chain(new).collect::<Vec<_>>().join(" ")
}

/// Lines of a row of tiles and of the row below.
fn below(mut upper: Vec<String>, lower: Vec<String>) -> Vec<String> {
    // An edge may cut the last line above and the first one below: each is whole in the other row, if lines
    // beside it are in both.
    let cuts = [(0, 0), (1, 0), (0, 1), (1, 1)];
    let shared = cuts.into_iter().filter_map(|(last, first)| {
        let (above, under) = (upper.get(..upper.len().checked_sub(last)?)?, lower.get(first..)?);
        let most = above.len().min(under.len());
        let count = (1..=most)
            .rev()
            .find(|&count| above[above.len() - count..].iter().zip(under).all(|(a, b)| alike(a, b)))?;
        Some((count, last, first))
    });
    // Of equals the one that drops nothing.
    let best = shared.reduce(|best, other| if other.0 > best.0 { other } else { best });
    if let Some((count, last, first)) = best {
        upper.truncate(upper.len() - last);
        upper.extend(lower.into_iter().skip(first + count));
    } else {
        upper.extend(lower);
    }
    upper
}

/// Whether two readings are most likely of the same words: the same letters and digits, but for one in five.
fn alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let longer = a.len().max(b.len());
    // Signs alone are alike only when they are the same, and a number with another digit is another number.
    if longer == 0 || (a != b && a.iter().chain(&b).all(char::is_ascii_digit)) {
        return false;
    }
    a.len().abs_diff(b.len()) * 5 <= longer && distance(&a, &b) * 5 <= longer
}

/// Letters to change, add or leave out.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tiles::{Tile, Tiling};
    use super::*;

    fn merged(texts: &[&str], columns: usize) -> String {
        merge(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), columns)
    }

    #[test]
    fn lines_go_on_in_the_tile_to_the_right() {
        for (texts, whole) in [
            (["error: cannot find", "cannot find value `x`"], "error: cannot find value `x`"),
            // An edge cuts a word on either side.
            (["the quick bro", "ick brown fox"], "the quick brown fox"),
            // A reading that differs a little.
            (["File Edit Selectlon", "Selection View Go"], "File Edit Selectlon View Go"),
            (["a b c", "d e f"], "a b c d e f"),
            (["left only", ""], "left only"),
            (["", "right only"], "right only"),
            (["line 12", "13 of 20"], "line 12 13 of 20"),
        ] {
            assert_eq!(merged(&texts, 2), whole);
        }
    }

    #[test]
    fn lines_that_only_one_tile_has_keep_their_place() {
        let left = "File Edit View\nfn main() {\nlet x = 1;\n}";
        let right = "View Help\nlet x = 1; // the answer\nwarning";
        let whole = "File Edit View Help\nfn main() {\nlet x = 1; // the answer\n} warning";
        assert_eq!(merged(&[left, right], 2), whole);
    }

    #[test]
    fn rows_share_lines_and_cut_ones_go() {
        for (texts, whole) in [
            (["one\ntwo\nthree", "two\nthree\nfour"], "one\ntwo\nthree\nfour"),
            (["one\ntwo\nthrcc", "lwo\nthree\nfour"], "one\ntwo\nthrcc\nlwo\nthree\nfour"),
            // The last line above and the first one below are cut through.
            (
                ["alpha one\nbeta two\ngamma three\n~~~~", "-.-.\nbeta two\ngamma three\ndelta four"],
                "alpha one\nbeta two\ngamma three\ndelta four",
            ),
            (["one", "two"], "one\ntwo"),
            (["", "two"], "two"),
            (["same", "same"], "same"),
        ] {
            assert_eq!(merged(&texts, 1), whole);
        }
    }

    #[test]
    fn readings_of_the_same_are_alike_and_numbers_are_not() {
        for (a, b, same) in [
            ("Selection", "Selectlon", true),
            ("error:", "Error", true),
            ("cat", "hat", false),
            ("1024", "1025", false),
            ("--", "==", false),
            ("--", "--", true),
            ("", "x", false),
        ] {
            assert_eq!(alike(a, b), same, "{a} {b}");
            assert_eq!(alike(b, a), same, "{b} {a}");
        }
    }

    /// A page whose words are all different, each as wide as it says and all lines as high: `lines` has the
    /// number of words of each.
    struct Page {
        lines: Vec<usize>,
        word: usize,
        line: usize,
    }

    impl Page {
        fn name(line: usize, word: usize) -> String {
            // Four digits in base 13, three letters each: no name is alike another or a part of it.
            let number = line * 64 + word;
            let digits = [2197, 169, 13, 1].map(|place| char::from(b'a' + (number / place % 13) as u8));
            digits.iter().flat_map(|digit| [digit; 3]).collect()
        }

        fn text(&self) -> String {
            let line = |(at, words): (usize, &usize)| {
                (0..*words).map(|word| Self::name(at, word)).collect::<Vec<_>>().join(" ")
            };
            self.lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
        }

        /// What a reader makes of a tile: whole words of whole lines.
        fn read(&self, tile: &Tile) -> String {
            let within = |from: usize, len: usize, start: usize, size: usize| {
                from >= start && from + len <= start + size
            };
            let lines = self.lines.iter().enumerate();
            let lines = lines.filter(|(at, _)| within(at * self.line, self.line, tile.y, tile.height));
            let words = lines.map(|(at, words)| {
                let seen = (0..*words).filter(|w| within(w * self.word, self.word, tile.x, tile.width));
                seen.map(|word| Self::name(at, word)).collect::<Vec<_>>().join(" ")
            });
            words.collect::<Vec<_>>().join("\n")
        }

        fn read_in_tiles(&self, side: usize) -> String {
            let width = self.lines.iter().max().copied().unwrap_or(0) * self.word;
            let tiling = Tiling::new(width, self.lines.len() * self.line, side, usize::MAX);
            let texts: Vec<String> = tiling.tiles.iter().map(|tile| self.read(tile)).collect();
            merge(&texts, tiling.columns)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_page_read_in_tiles_is_the_page(
            rows in 1usize..40, columns in 1usize..50, word in 8usize..28, line in 8usize..28,
        ) {
            let page = Page { lines: vec![columns; rows], word, line };
            prop_assert_eq!(page.read_in_tiles(224), page.text());
        }

        #[test]
        fn of_ragged_lines_every_word_is_there_once(
            // So narrow that an overlap has a whole word of every line that reaches over it.
            lines in prop::collection::vec(1usize..50, 1..40), word in 8usize..=14, line in 8usize..28,
        ) {
            let page = Page { lines, word, line };
            let read = page.read_in_tiles(224);
            let sorted = |text: &str| {
                let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                words.sort();
                words
            };
            prop_assert_eq!(sorted(&read), sorted(&page.text()));
        }
    }
}
