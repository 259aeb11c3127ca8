//! Cutting a large picture into tiles that a model sees at their own scale: squeezed into one square, the
//! text of a wide screenshot would be lost.

/// The part of a tile that it shares with its neighbour at least: one in so many. A line of text or a word
/// that an edge cuts is whole in the next tile.
const OVERLAP: usize = 8;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Pixels left of it.
    pub x: usize,
    /// Pixels above it.
    pub y: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// How a picture is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    /// The size that the picture is brought to first: its own, unless that takes too many tiles.
    pub size: (usize, usize),
    /// Tiles in a row.
    pub columns: usize,
    /// In reading order: row by row from the top, each from the left.
    pub tiles: Vec<Tile>,
}

impl Tiling {
    /// Cuts a picture of `width` x `height` pixels into at most `most` tiles of a model that sees
    /// `side` x `side`. A picture that is no larger is one tile.
    pub fn new(width: usize, height: usize, side: usize, most: usize) -> Self {
        let (width, height, side) = (width.max(1), height.max(1), side.max(1));
        let longest = width.max(height);
        // Never enlarged, and proportions are kept.
        let scaled = |long: usize| ((width * long / longest).max(1), (height * long / longest).max(1));
        let fits = |long: usize| {
            let (width, height) = scaled(long);
            count(width, side) * count(height, side) <= most.max(1)
        };
        // The number of tiles only grows with the size, and a picture of one tile's size always fits.
        let (mut sure, mut limit) = (longest.min(side), longest + 1);
        while limit - sure > 1 {
            let middle = sure + (limit - sure) / 2;
            if fits(middle) {
                sure = middle;
            } else {
                limit = middle;
            }
        }
        let size = scaled(sure);
        let (across, down) = (spans(size.0, side), spans(size.1, side));
        let row = |&(y, height): &(usize, usize)| {
            across.iter().map(move |&(x, width)| Tile { x, y, width, height }).collect::<Vec<_>>()
        };
        Self { size, columns: across.len(), tiles: down.iter().flat_map(row).collect() }
    }
}

/// The parts of an elongated picture that a Gemma 3 is shown besides the whole, from the left or from the top
/// (pan and scan, with the published processor's numbers); none for one that is nearly square or small.
pub fn crops(width: usize, height: usize) -> Vec<Tile> {
    const MOST: usize = 4;
    const LEAST_SIDE: usize = 256;
    let (long, short) = (width.max(height), width.min(height));
    // From a ratio of 1.2 on.
    if short == 0 || 5 * long < 6 * short {
        return Vec::new();
    }
    let nearest = (2 * long + short) / (2 * short);
    let count = nearest.min(long / LEAST_SIDE).clamp(2, MOST);
    let size = long.div_ceil(count);
    if size.min(short) < LEAST_SIDE {
        return Vec::new();
    }
    let part = |n: usize| {
        let (from, len) = (n * size, size.min(long - n * size));
        match width >= height {
            true => Tile { x: from, y: 0, width: len, height },
            false => Tile { x: 0, y: from, width, height: len },
        }
    };
    (0..count).map(part).collect()
}

/// How many tiles a line of `length` pixels takes.
fn count(length: usize, side: usize) -> usize {
    let overlap = side / OVERLAP;
    if length <= side { 1 } else { (length - overlap).div_ceil(side - overlap) }
}

/// Begin and length of the tiles of a line, spread evenly from one end to the other.
fn spans(length: usize, side: usize) -> Vec<(usize, usize)> {
    match count(length, side) {
        1 => vec![(0, length)],
        count => (0..count).map(|n| (n * (length - side) / (count - 1), side)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_picture_is_one_tile_and_a_screen_is_several() {
        let whole = Tile { x: 0, y: 0, width: 200, height: 100 };
        assert_eq!(
            Tiling::new(200, 100, 224, 16),
            Tiling { size: (200, 100), columns: 1, tiles: vec![whole] }
        );
        let screen = Tiling::new(1920, 1080, 896, 16);
        assert_eq!((screen.size, screen.columns, screen.tiles.len()), ((1920, 1080), 3, 6));
        assert_eq!(screen.tiles[0], Tile { x: 0, y: 0, width: 896, height: 896 });
        assert_eq!(screen.tiles[5], Tile { x: 1024, y: 184, width: 896, height: 896 });
    }

    #[test]
    fn what_takes_too_many_tiles_is_scaled_down_first() {
        let screen = Tiling::new(3840, 2160, 224, 16);
        assert!(screen.size.0 < 1100 && screen.size.0 > 700, "{:?}", screen.size);
        assert!(screen.tiles.len() <= 16 && screen.tiles.len() > 8, "{}", screen.tiles.len());
        assert_eq!(Tiling::new(5000, 40, 224, 1).size, (224, 1));
    }

    #[test]
    fn elongated_pictures_are_panned() {
        let shape = |width, height| {
            crops(width, height).iter().map(|t| (t.x, t.y, t.width, t.height)).collect::<Vec<_>>()
        };
        assert_eq!(shape(1920, 1080), [(0, 0, 960, 1080), (960, 0, 960, 1080)]);
        assert_eq!(shape(300, 901), [(0, 0, 300, 301), (0, 301, 300, 301), (0, 602, 300, 299)]);
        assert_eq!(shape(9000, 300).len(), 4);
        for (width, height) in [(1000, 900), (500, 400), (2000, 200), (1, 1), (600, 1)] {
            assert_eq!(shape(width, height), [], "{width} x {height}");
        }
    }

    proptest! {
        #[test]
        fn every_pixel_is_seen_and_no_tile_leaves_the_picture(
            width in 1usize..3000, height in 1usize..3000, side in 1usize..900, most in 1usize..30,
        ) {
            let tiling = Tiling::new(width, height, side, most);
            let (wide, high) = tiling.size;
            prop_assert!(wide <= width && high <= height);
            prop_assert!(tiling.tiles.len() <= most);
            prop_assert_eq!(tiling.tiles.len() % tiling.columns, 0);
            for tile in &tiling.tiles {
                prop_assert!(tile.width > 0 && tile.height > 0 && tile.width <= side && tile.height <= side);
                prop_assert!(tile.x + tile.width <= wide && tile.y + tile.height <= high);
            }
            // Tiles are a grid: where every column and every row is covered, every pixel is.
            let covered = |length: usize, spans: Vec<(usize, usize)>| {
                (0..length).all(|at| spans.iter().any(|(from, len)| (*from..from + len).contains(&at)))
            };
            let columns = tiling.tiles[..tiling.columns].iter().map(|t| (t.x, t.width)).collect();
            let rows = tiling.tiles.iter().step_by(tiling.columns).map(|t| (t.y, t.height)).collect();
            prop_assert!(covered(wide, columns) && covered(high, rows));
            for (n, tile) in tiling.tiles.iter().enumerate() {
                let (first, head) = (&tiling.tiles[n - n % tiling.columns], &tiling.tiles[n % tiling.columns]);
                prop_assert_eq!((tile.x, tile.y), (head.x, first.y));
            }
            // Reading order, and neighbours share enough.
            for pair in tiling.tiles.windows(2) {
                prop_assert!((pair[0].y, pair[0].x) < (pair[1].y, pair[1].x));
                if pair[0].y == pair[1].y {
                    prop_assert!(pair[0].x + pair[0].width >= pair[1].x + side / OVERLAP);
                }
            }
        }
    }
}
