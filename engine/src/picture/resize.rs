//! Resizing in 8 bits with antialiasing, bit for bit as the pictures were resized that the models learnt
//! from: along the rows and along the columns, rounded to 8 bits between.

use super::{CHANNELS, Resample};

/// Fractional bits of a coefficient: what an `i32` leaves beside 8 bits of colour and 2 of overshoot.
const BITS: u32 = 32 - 8 - 2;

/// Where the colour of one output pixel comes from.
struct Taps {
    /// The first input pixel.
    first: usize,
    /// Fixed-point coefficients of it and those behind; they sum to about one.
    weights: Vec<i32>,
}

/// Resizes `[h, w, 3]` pixels; sizes are (width, height), none of them zero.
pub fn resize(pixels: &[u8], from: (usize, usize), to: (usize, usize), resample: Resample) -> Vec<u8> {
    let rows = |pixels: &[u8]| match from.0 == to.0 {
        true => pixels.to_vec(),
        false => along_rows(pixels, from.0, &taps(from.0, to.0, resample)),
    };
    let columns = |pixels: &[u8], width| match from.1 == to.1 {
        true => pixels.to_vec(),
        false => along_columns(pixels, width, &taps(from.1, to.1, resample)),
    };
    match columns_first(from, to) {
        true => rows(&columns(pixels, from.0)),
        false => columns(&rows(pixels), to.0),
    }
}

/// Whether the columns go first: where the height loses more than twice what the width does. The rounding
/// between the two makes the order visible; this is the one of Pillow 13, found by trying sizes.
fn columns_first(from: (usize, usize), to: (usize, usize)) -> bool {
    from.1.saturating_sub(to.1) > 2 * from.0.saturating_sub(to.0)
}

fn along_rows(pixels: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let rows = pixels.len() / (width * CHANNELS);
    let mut out = Vec::with_capacity(rows * taps.len() * CHANNELS);
    for row in pixels.chunks_exact(width * CHANNELS) {
        for tap in taps {
            let mut sums = [1i32 << (BITS - 1); CHANNELS];
            let inputs = row[tap.first * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, weight) in inputs.zip(&tap.weights) {
                for (sum, colour) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*colour) * weight;
                }
            }
            out.extend(sums.map(rounded));
        }
    }
    out
}

fn along_columns(pixels: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let stride = width * CHANNELS;
    let mut out = Vec::with_capacity(taps.len() * stride);
    let mut sums = vec![0i32; stride];
    for tap in taps {
        sums.fill(1 << (BITS - 1));
        for (row, weight) in pixels[tap.first * stride..].chunks_exact(stride).zip(&tap.weights) {
            for (sum, colour) in sums.iter_mut().zip(row) {
                *sum += i32::from(*colour) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    out
}

/// Back from fixed point; a half was added before. A cubic overshoots at edges.
fn rounded(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The taps of every output pixel of a line of `from` pixels that becomes `to`.
fn taps(from: usize, to: usize, resample: Resample) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Enlarging interpolates between neighbours; shrinking stretches the filter over all that falls together.
    let stretch = scale.max(1.0);
    let reach = stretch * resample.reach();
    let line = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weight = |x: usize| resample.weight((x as f64 - centre + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1u32 << BITS)).round() as i32;
        Taps { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(line).collect()
}

impl Resample {
    /// How far the filter reaches, in pixels.
    fn reach(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The filter at a distance in pixels.
    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Resample; 2] = [Resample::Bilinear, Resample::Bicubic];

    #[test]
    fn one_colour_stays_that_colour() {
        for resample in BOTH {
            for (from, to) in [((7, 3), (64, 64)), ((640, 31), (16, 16)), ((1, 1), (5, 9)), ((5, 9), (1, 1))]
            {
                let pixels = [250, 3, 127].repeat(from.0 * from.1);
                let out = resize(&pixels, from, to, resample);
                assert_eq!(out, [250, 3, 127].repeat(to.0 * to.1), "{from:?} to {to:?} {resample:?}");
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let pixels: Vec<u8> = (0..6 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        for resample in BOTH {
            assert_eq!(resize(&pixels, (6, 5), (6, 5), resample), pixels);
        }
    }

    #[test]
    fn a_height_that_shrinks_much_goes_first() {
        for (from, to, columns) in [
            ((100, 100), (90, 80), false),
            ((100, 100), (90, 79), true),
            ((100, 100), (120, 99), true),
            ((97, 211), (224, 224), false),
            ((1920, 1080), (224, 224), false),
        ] {
            assert_eq!(columns_first(from, to), columns, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn shrinking_counts_every_pixel() {
        // One white column in eight: without antialiasing a quarter-size picture sees it or does not.
        let row: Vec<u8> = (0..64).flat_map(|x| [if x % 8 == 0 { 255 } else { 0 }; 3]).collect();
        let out = resize(&row, (64, 1), (8, 1), Resample::Bilinear);
        assert!(out.iter().all(|colour| (20..=45).contains(colour)), "{out:?}");
    }

    #[test]
    fn a_cubic_does_not_wrap_around_at_an_edge() {
        let row: Vec<u8> = (0..32).flat_map(|x| [if x < 16 { 0 } else { 255 }; 3]).collect();
        let out = resize(&row, (32, 1), (100, 1), Resample::Bicubic);
        let bright: Vec<bool> = out.iter().step_by(3).map(|colour| *colour > 127).collect();
        assert_eq!(bright.iter().filter(|b| **b).count(), 50);
        assert!(bright.is_sorted(), "{out:?}");
    }
}
