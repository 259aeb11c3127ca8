//! Where a pass stands in its sequence, on the device: positions, pages and what each row sees. Kernels read it there,
//! so that a recorded step can be replayed at another position.

use std::sync::Arc;

use super::{Address, Buffer, CudaError, Device, PageBuffer};
use crate::kv::PAGE_TOKENS;

/// Ints in front: start, position, index of the first page, rows.
const HEAD: usize = 4;

/// Positions, pages and ranges of a pass.
#[derive(Debug)]
pub struct Place {
    buffer: Buffer,
    most_rows: usize,
    most_pages: usize,
    sights: usize,
    rows: usize,
    page_bytes: usize,
    image: Vec<u8>,
}

/// What [`Place::set`] sets.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Tokens of the sequence before the first row.
    pub start: usize,
    /// The first row's position for rotary embedding.
    pub position: usize,
    /// Position of the first page's first token.
    pub pages_from: usize,
    /// The sequence's pages from there on, with room for all rows.
    pub pages: &'a [Arc<PageBuffer>],
    /// For each sight (layers with the same window have the same one) and each row the keys that it sees, first and
    /// behind the last.
    pub ranges: &'a [Vec<(usize, usize)>],
}

impl Place {
    /// Room for passes of so many rows over so many pages, with so many different sights.
    pub fn new(
        device: &Device,
        most_rows: usize,
        most_pages: usize,
        sights: usize,
    ) -> Result<Self, CudaError> {
        let bytes = 8 * most_pages + 4 * HEAD + 8 * most_rows * sights;
        let buffer = device.buffer(bytes)?;
        Ok(Self { buffer, most_rows, most_pages, sights, rows: 0, page_bytes: 0, image: Vec::new() })
    }

    /// Whether a pass fits.
    pub fn holds(&self, rows: usize, pages: usize) -> bool {
        rows <= self.most_rows && pages <= self.most_pages
    }

    /// Sets all of it. Panics where ranges lie outside of the pages or without their own row, or there is more than was
    /// made room for.
    pub fn set(&mut self, standing: Standing<'_>) -> Result<(), CudaError> {
        let Standing { start, position, pages_from, pages, ranges } = standing;
        let rows = ranges.first().map_or(0, Vec::len);
        let covered = pages_from..pages_from + pages.len() * PAGE_TOKENS;
        assert!(self.holds(rows, pages.len()) && ranges.len() == self.sights, "room for the pass");
        assert!(start + rows <= covered.end && pages_from.is_multiple_of(PAGE_TOKENS), "pages for all rows");
        self.image.clear();
        for page in pages {
            self.image.extend(page.buffer().address().to_le_bytes());
        }
        self.image.resize(8 * self.most_pages, 0);
        let head = [start, position, pages_from / PAGE_TOKENS, rows];
        self.image.extend(head.iter().flat_map(|&n| (n as i32).to_le_bytes()));
        for sight in ranges {
            assert_eq!(sight.len(), rows, "a range for each row");
            for (row, &(first, end)) in (start..).zip(sight) {
                // A key that its own row does not see would not be stored.
                let sees = covered.start <= first && first <= row && row < end && end <= start + rows;
                assert!(sees, "row {row} sees {first}..{end}");
                self.image.extend([first, end].iter().flat_map(|&n| (n as i32).to_le_bytes()));
            }
            let filled = self.image.len() + 8 * (self.most_rows - rows);
            self.image.resize(filled, 0);
        }
        self.buffer.upload(0, &self.image)?;
        self.buffer.hold(pages.iter().map(|page| page.clone() as Arc<_>).collect());
        self.page_bytes = pages.first().map_or(0, |page| page.buffer().bytes());
        self.rows = rows;
        Ok(())
    }

    /// Rows of the pass.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of each page; 0 without one.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// `unsigned long long[]`: the pages' addresses.
    pub(crate) fn pages(&self) -> Address {
        self.buffer.address()
    }

    /// `int[4]`: start, position, index of the first page, rows.
    pub(crate) fn head(&self) -> Address {
        self.pages() + 8 * self.most_pages as u64
    }

    /// `int2[rows]`: what each row sees.
    pub(crate) fn ranges(&self, sight: usize) -> Address {
        assert!(sight < self.sights, "a sight of this place");
        self.head() + (4 * HEAD + 8 * self.most_rows * sight) as u64
    }
}
