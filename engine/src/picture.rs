//! A picture: RGB in 8 bits, read from what screenshots and photos come in, within limits that are looked
//! at before anything is allocated.

mod resize;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::OnceLock;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// The longest file that is read, in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// The widest and the highest picture.
const MOST_SIDE: u32 = 16 << 10;
/// The most pixels: 8 bytes for each (RGBA in 16 bits) while decoding, 3 afterwards.
const MOST_PIXELS: u64 = 100_000_000;
/// What the decoder may hold, in bytes.
const MOST_MEMORY: u64 = MOST_PIXELS * 8;
/// Red, green, blue.
const CHANNELS: usize = 3;
/// The formats as a reader knows them.
const FORMATS: &str = "PNG, JPEG, WebP, GIF and BMP";

/// How colours between pixels are found when a picture is resized. Shrinking widens the filter, so that every
/// pixel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resample {
    /// Linear between neighbours: Gemma 3.
    Bilinear,
    /// Cubic with a = -0.5: PaliGemma.
    Bicubic,
}

/// A picture in memory: rows of RGB from the top left.
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    digest: OnceLock<[u8; 32]>,
}

impl Picture {
    /// Reads a picture from a file's content; `name` is what messages call it.
    ///
    /// The format is told by the content, never by the name. Of an animation the first frame counts, a
    /// transparent picture is laid on white, a grey one widened to RGB, and a photo turned as it says.
    ///
    /// Fails with [`BadFile`](ErrorKind::BadFile) on empty, truncated or broken content, with
    /// [`Unsupported`](ErrorKind::Unsupported) on another format, and with [`Input`](ErrorKind::Input) on a
    /// picture above the limits.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        if bytes.is_empty() {
            return Err(bad(name, "the file is empty").remedy("Save the picture again."));
        }
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.map_err(|e| bad(name, e))?;
        let Some(format) = reader.format().filter(ImageFormat::reading_enabled) else {
            return Err(Error::new(ErrorKind::Unsupported, name, "this is no picture of a known format")
                .remedy(format!("Known are {FORMATS}; the content counts, not the name.")));
        };
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MOST_MEMORY);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|e| failed(name, format, e))?;
        let (width, height) = decoder.dimensions();
        check_size(name, width, height)?;
        // A photo that does not say how it is to be turned is upright.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let has_alpha = decoder.color_type().has_alpha();
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(|e| failed(name, format, e))?;
        decoded.apply_orientation(orientation);
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let pixels = match has_alpha {
            true => on_white(&decoded.into_rgba8()),
            false => decoded.into_rgb8().into_raw(),
        };
        Self::from_rgb(width, height, pixels)
    }

    /// Reads a picture file; see [`decode`](Self::decode).
    ///
    /// Fails with [`NotFound`](ErrorKind::NotFound) where there is no such file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, &name, "there is no such file"),
            std::io::ErrorKind::PermissionDenied => bad(&name, "permission denied"),
            _ => bad(&name, e),
        })?;
        if path.is_dir() {
            return Err(bad(&name, "this is a folder, not a picture"));
        }
        Self::read(file, &name)
    }

    /// Reads a picture from a stream to its end, at most as far as a file may be long; see
    /// [`decode`](Self::decode).
    pub fn read(stream: impl Read, name: &str) -> Result<Self> {
        let mut bytes = Vec::new();
        stream.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| bad(name, e))?;
        if bytes.len() as u64 > MOST_BYTES {
            let problem = format!("the file is larger than {} MiB", MOST_BYTES >> 20);
            return Err(Error::new(ErrorKind::Input, name, problem)
                .remedy("Cut out the part that matters, or save it as PNG."));
        }
        Self::decode(&bytes, name)
    }

    /// A picture of pixels that are there: `height` rows of `width` times red, green, blue.
    ///
    /// Fails with [`Input`](ErrorKind::Input) where their number is another, or none.
    pub fn from_rgb(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(CHANNELS));
        if pixels.is_empty() || expected != Some(pixels.len()) {
            let problem = format!("{} bytes are no picture of {width} x {height}", pixels.len());
            return Err(Error::new(ErrorKind::Input, "pixels", problem));
        }
        Ok(Self { width, height, pixels, digest: OnceLock::new() })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The part of `width` x `height` pixels whose top left corner is (`x`, `y`). What would lie outside is
    /// left out, but at least one pixel is taken.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        let (width, height) = (width.clamp(1, self.width - x), height.clamp(1, self.height - y));
        let rows = self.pixels.chunks_exact(self.width * CHANNELS).skip(y).take(height);
        let pixels = rows.flat_map(|row| &row[x * CHANNELS..(x + width) * CHANNELS]).copied().collect();
        Self { width, height, pixels, digest: OnceLock::new() }
    }

    /// The whole picture in another size, at least 1 x 1.
    pub fn resized(&self, width: usize, height: usize, resample: Resample) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let pixels = resize::resize(&self.pixels, (self.width, self.height), (width, height), resample);
        Self { width, height, pixels, digest: OnceLock::new() }
    }

    /// What tells this picture from others: SHA-256 of its size and pixels.
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut hash = Sha256::new();
            hash.update((self.width as u64).to_le_bytes());
            hash.update((self.height as u64).to_le_bytes());
            hash.update(&self.pixels);
            hash.finalize().into()
        })
    }

    /// What a vision tower takes: `[3, size, size]`, squeezed into the square in 8 bits and mapped from
    /// 0..=255 to -1..=1.
    pub fn pixel_values(&self, size: usize, resample: Resample) -> Vec<f32> {
        let square = resize::resize(&self.pixels, (self.width, self.height), (size, size), resample);
        let values: [f32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0 - 0.5) / 0.5);
        let planes = (0..CHANNELS).flat_map(|channel| square.iter().skip(channel).step_by(CHANNELS));
        planes.map(|byte| values[usize::from(*byte)]).collect()
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

/// Refuses a size that no memory should be spent on.
fn check_size(name: &str, width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(bad(name, "the picture has no pixels"));
    }
    if width > MOST_SIDE || height > MOST_SIDE || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(too_large(name, format!("{width} x {height} pixels are too many")));
    }
    Ok(())
}

/// Lays a transparent picture on white.
fn on_white(picture: &image::RgbaImage) -> Vec<u8> {
    let blend = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        // At most 255 * 255 / 255, rounded to the nearest: it fits.
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    picture.pixels().flat_map(|p| [blend(p[0], p[3]), blend(p[1], p[3]), blend(p[2], p[3])]).collect()
}

fn bad(name: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::BadFile, name, problem)
}

fn too_large(name: &str, problem: impl std::fmt::Display) -> Error {
    let remedy = format!(
        "Cut out the part that matters: at most {MOST_SIDE} pixels a side and {} million in all.",
        MOST_PIXELS / 1_000_000
    );
    Error::new(ErrorKind::Input, name, problem).remedy(remedy)
}

/// What a decoder's error comes to for a reader.
fn failed(name: &str, format: ImageFormat, error: ImageError) -> Error {
    let format = match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => "picture",
    };
    match error {
        ImageError::Limits(_) => too_large(name, format!("this {format} would take too much memory")),
        ImageError::Unsupported(why) => {
            let problem = format!("this kind of {format} is not known ({})", first_line(&why));
            Error::new(ErrorKind::Unsupported, name, problem).remedy("Save it as a plain PNG.")
        }
        other => bad(name, format!("a broken or truncated {format} ({})", first_line(&other)))
            .remedy("Save or copy the picture again."),
    }
}

/// Messages of decoders may have several lines; ours have one.
fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
