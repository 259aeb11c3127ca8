//! Boxes as a picture model writes them: four `<locDDDD>` for top, left, bottom and right in 1/1024 of the
//! picture, for a segment sixteen `<segDDD>`, then what it is; `;` between them.
//!
//! The sixteen codes are indices into the code book of a network of its own that paints the mask. That network
//! is not part of the checkpoints and not of this program: the codes are handed out as they are.

use serde::Serialize;

/// Steps of a `<loc>` over the picture.
const STEPS: usize = 1024;
/// Codes of one mask.
const CODES: usize = 16;
/// Entries of the code book.
const BOOK: u16 = 128;

/// Something found in a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is, in the model's words.
    pub label: String,
    /// Left edge, in pixels.
    pub x0: usize,
    /// Top edge.
    pub y0: usize,
    /// Right edge; the first column outside.
    pub x1: usize,
    /// Bottom edge; the first row outside.
    pub y1: usize,
    /// The mask's sixteen codes, where it is a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_codes: Option<Vec<u16>>,
}

/// Reads an answer, control tokens spelt out, about a picture of `width` x `height` pixels. What is no whole
/// box is passed over.
pub fn parse(answer: &str, width: usize, height: usize) -> Vec<Found> {
    let mut found = Vec::new();
    let mut rest = answer;
    while let Some(at) = rest.find("<loc") {
        rest = &rest[at..];
        let (edges, behind) = numbers(rest, "<loc", 4, STEPS as u16, 4);
        let [top, left, bottom, right] = edges[..] else {
            // A box that is not complete: go on behind what there is of it.
            rest = if behind.len() < rest.len() { behind } else { &rest[1..] };
            continue;
        };
        let (codes, behind) = numbers(behind, "<seg", 3, BOOK, CODES);
        let end = behind.find([';', '<']).unwrap_or(behind.len());
        let (label, behind) = behind.split_at(end);
        rest = behind;
        let (x0, x1) = span(left, right, width);
        let (y0, y1) = span(top, bottom, height);
        let mask_codes = (codes.len() == CODES).then_some(codes);
        found.push(Found { label: label.trim().to_owned(), x0, y0, x1, y1, mask_codes });
    }
    found
}

/// At most `most` marks like `<loc0123>` at the beginning of a text, and what stands behind them.
fn numbers<'t>(text: &'t str, open: &str, digits: usize, end: u16, most: usize) -> (Vec<u16>, &'t str) {
    let mut all = Vec::new();
    let mut rest = text;
    while all.len() < most {
        let number = rest.trim_start().strip_prefix(open).and_then(|inside| {
            let (number, behind) = inside.split_once('>')?;
            let sound = number.len() == digits && number.bytes().all(|b| b.is_ascii_digit());
            Some((number.parse::<u16>().ok().filter(|n| sound && *n < end)?, behind))
        });
        let Some((number, behind)) = number else { break };
        all.push(number);
        rest = behind;
    }
    (all, rest)
}

/// Two edges in pixels, in order; never empty.
fn span(a: u16, b: u16, length: usize) -> (usize, usize) {
    let pixel = |step: u16| (usize::from(step) * length + STEPS / 2) / STEPS;
    let from = pixel(a.min(b)).min(length.saturating_sub(1));
    (from, pixel(a.max(b)).clamp(from + 1, length.max(from + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(found: &Found) -> [usize; 4] {
        [found.x0, found.y0, found.x1, found.y1]
    }

    #[test]
    fn boxes_become_pixels() {
        let answer =
            "<loc0256><loc0000><loc0512><loc1023> red button ; <loc0000><loc0512><loc0010><loc0768> menu";
        let found = parse(answer, 400, 200);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), edges(&found[0])), ("red button", [0, 50, 400, 100]));
        assert_eq!((found[1].label.as_str(), edges(&found[1])), ("menu", [200, 0, 300, 2]));
        assert!(found.iter().all(|f| f.mask_codes.is_none()));
    }

    #[test]
    fn segments_have_their_codes() {
        let codes: String = (0..16).map(|n| format!("<seg{:03}>", n * 8)).collect();
        let found = parse(&format!("<loc0000><loc0000><loc0512><loc0512>{codes} cat"), 64, 64);
        assert_eq!(found[0].mask_codes.as_deref(), Some(&(0..16).map(|n| n * 8).collect::<Vec<_>>()[..]));
        assert_eq!((found[0].label.as_str(), edges(&found[0])), ("cat", [0, 0, 32, 32]));
        let short = parse("<loc0000><loc0000><loc0512><loc0512><seg001><seg002> cat", 64, 64);
        assert_eq!((short[0].mask_codes.as_ref(), short[0].label.as_str()), (None, "cat"));
    }

    #[test]
    fn edges_in_the_wrong_order_and_empty_boxes_are_mended() {
        let found =
            parse("<loc0900><loc0800><loc0100><loc0200> x;<loc0500><loc1023><loc0500><loc1023>y", 100, 100);
        assert_eq!(edges(&found[0]), [20, 10, 78, 88]);
        assert_eq!(edges(&found[1]), [99, 49, 100, 50]);
        assert_eq!(edges(&parse("<loc0000><loc0000><loc1023><loc1023>", 1, 1)[0]), [0, 0, 1, 1]);
    }

    #[test]
    fn what_is_no_box_is_passed_over() {
        for nothing in [
            "",
            "no such thing",
            "<loc0001><loc0002><loc0003> three",
            "<loc1><loc2><loc3><loc4> short",
            "<loc1024><loc0000><loc0000><loc0000> outside",
            "<loc",
            "<loc00é0>",
            "<loc+001><loc0001><loc0001><loc0001> signed",
        ] {
            assert_eq!(parse(nothing, 10, 10), [], "{nothing}");
        }
        let found = parse("<loc0001><loc0002> ; <loc0000><loc0000><loc0512><loc0512> real", 10, 10);
        assert_eq!((found.len(), found[0].label.as_str()), (1, "real"));
    }
}
