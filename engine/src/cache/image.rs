//! The file in which a tree outlives its process: mapped when it is read, each part copied out when it is first
//! used.
//!
//! A header of fixed size names the format, whose tree it is and where the index stands; then come the pages and
//! the states, then the index: the tree, and a checksum of each part. Little-endian throughout. What does not fit
//! to the letter is refused whole; a damaged part is refused when it is asked for.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use gemma_kernels::KvPage;
use gemma_kernels::cuda::DevicePage;
use half::f16;

use super::ledger::Slot;
use super::sequence::Layout;
use crate::checkpoint::map::MappedFile;

const MAGIC: [u8; 8] = *b"gemmapfx";
/// To be raised whenever a file of before would be read wrongly.
pub(super) const VERSION: u32 = 1;
/// Magic, version, identity, place and length and checksum of the index, checksum of all of these.
const HEADER: usize = 8 + 4 + 32 + 8 + 8 + 4 + 4;
/// Stands for a page that is gone.
const NONE: u32 = u32::MAX;

/// A tree as it is written.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) clock: f64,
    /// Parents before their children.
    pub(super) records: Vec<Record>,
    /// Parts 0, 1, ... of the file.
    pub(super) pages: Vec<Slot<KvPage>>,
    /// The parts behind those.
    pub(super) states: Vec<Slot<[f32]>>,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// 0 for the root, else one more than the parent's index.
    pub(super) parent: u32,
    pub(super) used: f64,
    pub(super) tokens: Vec<u32>,
    /// Numbers of parts.
    pub(super) pages: Vec<Option<u32>>,
    /// Lengths, and numbers of parts.
    pub(super) snapshots: Vec<(u32, u32)>,
}

/// A file that was found to be whole, but for its parts.
pub(super) struct Image {
    map: MappedFile,
    layout: Arc<Layout>,
    /// How many of the parts are pages.
    pages: usize,
    checksums: Vec<u32>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("parts", &self.checksums.len()).finish_non_exhaustive()
    }
}

impl Image {
    /// Opens a file that was written for this identity and layout: itself, its clock and its nodes. Fails with a
    /// reason for the log.
    pub(super) fn open(
        path: &Path,
        identity: &[u8; 32],
        layout: &Arc<Layout>,
    ) -> Result<(Self, f64, Vec<Record>), String> {
        let map = MappedFile::open(path).map_err(|e| e.to_string())?;
        let (pages, checksums, clock, records) = read(map.bytes(), identity, layout)?;
        Ok((Self { map, layout: layout.clone(), pages, checksums }, clock, records))
    }

    /// A page, unless it is damaged.
    pub(super) fn page(&self, number: u32) -> Option<Arc<KvPage>> {
        let bytes = self.part(number).filter(|_| (number as usize) < self.pages)?;
        Some(Arc::new(page_from(&self.layout, bytes)))
    }

    /// A state, unless it is damaged.
    pub(super) fn state(&self, number: u32) -> Option<Arc<[f32]>> {
        let bytes = self.part(number).filter(|_| (number as usize) >= self.pages)?;
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn part(&self, number: u32) -> Option<&[u8]> {
        let (bytes, checksum) = self.raw(number)?;
        let whole = crc32fast::hash(bytes) == checksum;
        if !whole {
            tracing::debug!("part {number} of the kept prefixes is damaged");
        }
        whole.then_some(bytes)
    }

    /// A part as it stands there, and the checksum that it should have.
    fn raw(&self, number: u32) -> Option<(&[u8], u32)> {
        let number = number as usize;
        let checksum = *self.checksums.get(number)?;
        let at = HEADER + parts_len(&self.layout, number.min(self.pages), number.saturating_sub(self.pages))?;
        let len = if number < self.pages { page_len(&self.layout) } else { state_len(&self.layout) };
        Some((self.map.bytes().get(at..at.checked_add(len)?)?, checksum))
    }
}

fn page_len(layout: &Layout) -> usize {
    layout.kv().page_bytes()
}

fn state_len(layout: &Layout) -> usize {
    layout.state_len() * size_of::<f32>()
}

/// Bytes of so many pages and states.
fn parts_len(layout: &Layout, pages: usize, states: usize) -> Option<usize> {
    pages.checked_mul(page_len(layout))?.checked_add(states.checked_mul(state_len(layout))?)
}

/// Reads all but the parts: how many of them are pages, their checksums, the clock, the nodes.
fn read(
    file: &[u8],
    identity: &[u8; 32],
    layout: &Layout,
) -> Result<(usize, Vec<u32>, f64, Vec<Record>), String> {
    let damaged = || "it is damaged".to_owned();
    let mut header = Reader(file.get(..HEADER).ok_or_else(damaged)?);
    let checksum = crc32fast::hash(&file[..HEADER - 4]);
    let mut next = |n| header.take(n).ok_or_else(damaged);
    if next(8)? != MAGIC || next(4)? != VERSION.to_le_bytes() {
        return Err("it is of another format or version".to_owned());
    }
    if next(32)? != identity {
        return Err("it is of another model file, engine or machine".to_owned());
    }
    let (at, len, index_checksum) = (header.u64(), header.u64(), header.u32());
    if header.u32() != Some(checksum) {
        return Err(damaged());
    }
    let at = at.and_then(|at| usize::try_from(at).ok()).ok_or_else(damaged)?;
    let index = file.get(at..).ok_or_else(damaged)?;
    if len != Some(index.len() as u64) || index_checksum != Some(crc32fast::hash(index)) {
        return Err(damaged());
    }
    let (pages, checksums, clock, records) = read_index(index).ok_or_else(damaged)?;
    let parts = parts_len(layout, pages, checksums.len() - pages);
    if parts.and_then(|parts| parts.checked_add(HEADER)) != Some(at) {
        return Err(damaged());
    }
    Ok((pages, checksums, clock, records))
}

fn read_index(index: &[u8]) -> Option<(usize, Vec<u32>, f64, Vec<Record>)> {
    let mut index = Reader(index);
    let clock = f64::from_bits(index.u64()?);
    let count = index.u32()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let (parent, used) = (index.u32()?, f64::from_bits(index.u64()?));
        let [tokens, pages] = [index.list()?, index.list()?];
        let (lens, states) = (index.list()?, index.list()?);
        if lens.len() != states.len() {
            return None;
        }
        let pages = pages.into_iter().map(|page| (page != NONE).then_some(page)).collect();
        let snapshots = lens.into_iter().zip(states).collect();
        records.push(Record { parent, used, tokens, pages, snapshots });
    }
    let (mut pages, states) = (index.list()?, index.list()?);
    let of_pages = pages.len();
    pages.extend(states);
    index.0.is_empty().then_some((of_pages, pages, clock, records))
}

/// Takes numbers from the front of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A length and so many numbers.
    fn list(&mut self) -> Option<Vec<u32>> {
        let len = self.u32()? as usize;
        let bytes = self.take(len.checked_mul(4)?)?;
        Some(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

/// Writes a file. Parts that are stored are copied from `stored`, damage and checksum included.
pub(super) fn write(
    out: &mut (impl Write + Seek),
    identity: &[u8; 32],
    layout: &Layout,
    contents: &Contents,
    stored: Option<&Image>,
) -> io::Result<()> {
    out.write_all(&[0; HEADER])?;
    let (mut at, mut bytes) = (HEADER, Vec::new());
    let mut part = |bytes: &[u8], checksum: u32| {
        at += bytes.len();
        out.write_all(bytes).map(|()| checksum)
    };
    let missing = || io::Error::other("what it was loaded from is gone");
    let raw = |number: u32| stored.and_then(|image| image.raw(number)).ok_or_else(missing);
    let mut checksums = [Vec::new(), Vec::new()];
    for page in &contents.pages {
        checksums[0].push(match page {
            Slot::Gone => return Err(missing()),
            Slot::Stored(number) => raw(*number).and_then(|(bytes, checksum)| part(bytes, checksum))?,
            Slot::Here(page) => {
                page_into(page, &mut bytes)?;
                part(&bytes, crc32fast::hash(&bytes))?
            }
        });
    }
    for state in &contents.states {
        checksums[1].push(match state {
            Slot::Gone => return Err(missing()),
            Slot::Stored(number) => raw(*number).and_then(|(bytes, checksum)| part(bytes, checksum))?,
            Slot::Here(state) => {
                bytes.clear();
                bytes.extend(state.iter().flat_map(|number| number.to_le_bytes()));
                part(&bytes, crc32fast::hash(&bytes))?
            }
        });
    }
    debug_assert_eq!(
        Some(at - HEADER),
        parts_len(layout, contents.pages.len(), contents.states.len()),
        "every part has its layout's size"
    );
    let index = index(contents, &checksums);
    out.write_all(&index)?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(identity);
    header.extend((at as u64).to_le_bytes());
    header.extend((index.len() as u64).to_le_bytes());
    header.extend(crc32fast::hash(&index).to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&header)
}

fn index(contents: &Contents, checksums: &[Vec<u32>; 2]) -> Vec<u8> {
    let mut index = Vec::new();
    let list = |index: &mut Vec<u8>, numbers: &mut dyn ExactSizeIterator<Item = u32>| {
        index.extend((numbers.len() as u32).to_le_bytes());
        index.extend(numbers.flat_map(u32::to_le_bytes));
    };
    index.extend(contents.clock.to_bits().to_le_bytes());
    index.extend((contents.records.len() as u32).to_le_bytes());
    for Record { parent, used, tokens, pages, snapshots } in &contents.records {
        index.extend(parent.to_le_bytes());
        index.extend(used.to_bits().to_le_bytes());
        list(&mut index, &mut tokens.iter().copied());
        list(&mut index, &mut pages.iter().map(|page| page.unwrap_or(NONE)));
        list(&mut index, &mut snapshots.iter().map(|snapshot| snapshot.0));
        list(&mut index, &mut snapshots.iter().map(|snapshot| snapshot.1));
    }
    for checksums in checksums {
        list(&mut index, &mut checksums.iter().copied());
    }
    index
}

fn page_into(page: &KvPage, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    match page {
        KvPage::F32(numbers) => bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
        KvPage::F16(numbers) => bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
        KvPage::Q8(numbers) => bytes.extend_from_slice(numbers),
        KvPage::Device(page) => bytes.extend_from_slice(&page.contents().map_err(io::Error::other)?),
    }
    Ok(())
}

fn page_from(layout: &Layout, bytes: &[u8]) -> KvPage {
    if let Some(memory) = layout.memory() {
        return KvPage::Device(DevicePage::of(memory, bytes.into()));
    }
    let mut page = KvPage::new(layout.kv());
    match &mut page {
        KvPage::F32(numbers) => {
            for (number, b) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
                *number = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        KvPage::F16(numbers) => {
            for (number, b) in numbers.iter_mut().zip(bytes.chunks_exact(2)) {
                *number = f16::from_le_bytes([b[0], b[1]]);
            }
        }
        KvPage::Q8(numbers) => numbers.copy_from_slice(bytes),
        KvPage::Device(_) => unreachable!("made above"),
    }
    page
}
