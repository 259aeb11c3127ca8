//! Guessing the next tokens: code repeats itself, so what stood behind the same tokens before often stands
//! behind them again (prompt lookup decoding).

/// Tokens that have to agree at most: where so many do, more say nothing.
const LONGEST_MATCH: usize = 8;

/// What stood behind the last tokens elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guess<'a> {
    /// The tokens that followed there, to the end of that text.
    pub(crate) tokens: &'a [u32],
    /// How many tokens before them agree.
    pub(crate) agreed: usize,
}

/// What followed where the most tokens agree with the end of `text`: earlier in itself, the nearest place first, or in one
/// of the `others`. Only places count whose first token `fits`. `None` where there is none.
pub(crate) fn guess<'a>(
    text: &'a [u32],
    others: impl Iterator<Item = &'a [u32]>,
    fits: impl Fn(u32) -> bool,
) -> Option<Guess<'a>> {
    let mut best: Option<Guess<'a>> = None;
    for place in [text].into_iter().chain(others) {
        for at in (1..place.len()).rev() {
            let agreed = agreement(&place[..at], text);
            if agreed > best.map_or(0, |best| best.agreed) && fits(place[at]) {
                best = Some(Guess { tokens: &place[at..], agreed });
                if agreed == LONGEST_MATCH {
                    return best;
                }
            }
        }
    }
    best
}

/// How many tokens two texts end with alike, up to [`LONGEST_MATCH`].
fn agreement(a: &[u32], b: &[u32]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev()).take(LONGEST_MATCH);
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(text: &[u32], others: &[&[u32]]) -> Option<(Vec<u32>, usize)> {
        guess(text, others.iter().copied(), |_| true).map(|guess| (guess.tokens.to_vec(), guess.agreed))
    }

    #[test]
    fn the_longest_agreement_wins_then_the_nearest() {
        assert_eq!(guessed(&[1, 2, 3, 9, 2, 3, 8, 2, 3], &[]), Some((vec![8, 2, 3], 2)));
        assert_eq!(guessed(&[1, 2, 3, 9, 7, 3, 8, 2, 3], &[]), Some((vec![9, 7, 3, 8, 2, 3], 2)));
        assert_eq!(guessed(&[5, 2, 3], &[&[4, 2, 3, 6], &[5, 2, 3, 7]]), Some((vec![7], 3)));
        assert_eq!(guessed(&[1, 2, 3], &[&[4, 5]]), None);
        assert_eq!(guessed(&[], &[&[4, 5]]), None);
    }

    #[test]
    fn what_nothing_follows_is_no_guess() {
        assert_eq!(guessed(&[1, 2], &[&[1, 2]]), None);
    }

    #[test]
    fn what_does_not_fit_is_passed_over() {
        let found = guess(&[1, 2, 3, 9, 2, 3, 8, 2, 3], [].into_iter(), |token| token != 8);
        assert_eq!(found.map(|guess| guess.tokens[0]), Some(9));
    }

    #[test]
    fn repetition_guesses_itself() {
        assert_eq!(guessed(&[4, 4, 4], &[]), Some((vec![4], 2)));
    }
}
