//! Comparing numbers: rows of logits, log-probabilities, distances.

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Length of a row.
    pub cols: usize,
    /// The rows, one behind the other.
    pub data: Vec<f32>,
}

impl Matrix {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.cols..(index + 1) * self.cols]
    }

    /// The rows of a range.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> &[f32] {
        &self.data[rows.start * self.cols..rows.end * self.cols]
    }
}

/// The largest difference between two slices of one length; infinite where either is no number.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "slices of different lengths cannot be compared");
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { d.max(worst) })
}

/// The mean absolute difference between two slices of one length; infinite where either is no number.
pub fn mean(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "slices of different lengths cannot be compared");
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum();
    if sum.is_nan() { f64::INFINITY } else { sum / a.len() as f64 }
}

/// The index of the largest number, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Largest minus second largest.
pub fn margin(row: &[f32]) -> f32 {
    let best = argmax(row);
    let others = row.iter().enumerate().filter(|(index, _)| *index != best);
    row[best] - others.map(|(_, value)| *value).fold(f32::NEG_INFINITY, f32::max)
}

/// The logarithm of the sum of exponentials, in f64.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let most = f64::from(row[argmax(row)]);
    most + row.iter().map(|v| (f64::from(*v) - most).exp()).sum::<f64>().ln()
}

/// Natural logarithm of one token's probability.
pub fn logprob(row: &[f32], id: u32) -> f64 {
    f64::from(row[id as usize]) - log_sum_exp(row)
}

/// Collects what did not hold, so that one failure does not hide the others.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Notes `what` unless `holds`.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// Panics with all findings, if there are any.
    pub fn assert_none(self) {
        let shown = self.0.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.0.is_empty(), "{} of the checks failed:\n{shown}", self.0.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_infinitely_far() {
        assert_eq!(worst(&[1.0, f32::NAN, 2.0], &[1.0, 1.0, 2.5]), f32::INFINITY);
        assert_eq!(mean(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(worst(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
    }

    #[test]
    fn probabilities_add_up_to_one() {
        let row = [300.0, 301.0, -20.0, 299.5];
        let sum: f64 = (0..4).map(|id| logprob(&row, id).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        assert_eq!(argmax(&row), 1);
        assert_eq!(margin(&row), 1.0);
    }
}
