//! Pictures as they come: every format, turned, transparent, broken, lying about their size.

use std::io::Cursor;

use image::{ExtendedColorType, GrayImage, ImageEncoder, ImageFormat, RgbImage, RgbaImage};

use super::*;

/// A small picture without symmetry: colours grow to the right and downwards.
fn sample() -> RgbImage {
    RgbImage::from_fn(11, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 99]))
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("it can be written");
    bytes.into_inner()
}

fn decode(bytes: &[u8]) -> Result<Picture> {
    Picture::decode(bytes, "shot.png")
}

fn png() -> Vec<u8> {
    encoded(&sample().into(), ImageFormat::Png)
}

/// Writes a size into a PNG's header, with the checksum that goes with it.
fn with_size(mut png: Vec<u8>, width: u32, height: u32) -> Vec<u8> {
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = u32::MAX;
    for byte in &png[12..29] {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 * (sum & 1));
        }
    }
    png[29..33].copy_from_slice(&(!sum).to_be_bytes());
    png
}

fn refusal(bytes: &[u8]) -> Error {
    let error = decode(bytes).expect_err("this is no sound picture");
    let lines = error.to_string().lines().count();
    assert!(lines <= 2, "one line and a remedy: {error}");
    assert!(error.to_string().starts_with("shot.png: "), "{error}");
    error
}

#[test]
fn every_format_is_told_by_its_content() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp] {
        let picture = decode(&encoded(&sample().into(), format)).expect("a sound picture");
        assert_eq!((picture.width(), picture.height()), (11, 7), "{format:?}");
        assert_eq!(picture.pixels(), sample().as_raw(), "{format:?}");
    }
    let photo = decode(&encoded(&sample().into(), ImageFormat::Jpeg)).expect("a sound picture");
    assert_eq!((photo.width(), photo.height()), (11, 7));
}

#[test]
fn transparent_is_white_and_grey_is_three_times_the_same() {
    let alphas = [0u8, 128, 255];
    let glass = RgbaImage::from_fn(3, 1, |x, _| image::Rgba([10, 20, 30, alphas[x as usize]]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let picture = decode(&encoded(&glass.clone().into(), format)).expect("a sound picture");
        assert_eq!(picture.pixels(), [255, 255, 255, 132, 137, 142, 10, 20, 30], "{format:?}");
    }
    let grey = GrayImage::from_fn(2, 1, |x, _| image::Luma([x as u8 * 200]));
    let picture = decode(&encoded(&grey.into(), ImageFormat::Png)).expect("a sound picture");
    assert_eq!(picture.pixels(), [0, 0, 0, 200, 200, 200]);
}

#[test]
fn sixteen_bits_become_eight() {
    let deep = image::ImageBuffer::from_fn(3, 1, |x, _| image::Rgb([x as u16 * 32_767, 0, 65_535]));
    let picture = decode(&encoded(&DynamicImage::ImageRgb16(deep), ImageFormat::Png)).expect("sound");
    assert_eq!(picture.pixels(), [0, 0, 255, 127, 0, 255, 255, 0, 255]);
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    let frame = |colour: [u8; 4]| image::Frame::new(RgbaImage::from_pixel(4, 3, image::Rgba(colour)));
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    encoder.encode_frames([frame([200, 0, 0, 255]), frame([0, 200, 0, 255])]).expect("it can be written");
    drop(encoder);
    let picture = decode(&bytes).expect("a sound picture");
    assert_eq!(picture.pixels(), [200, 0, 0].repeat(12));
}

#[test]
fn a_photo_is_turned_as_it_says() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    // TIFF in little endian; one entry: orientation (0x112), one short, 6 (a quarter turn clockwise).
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    encoder.set_exif_metadata(exif.to_vec()).expect("JPEG has room for it");
    encoder.write_image(sample().as_raw(), 11, 7, ExtendedColorType::Rgb8).expect("it can be written");
    let picture = decode(&bytes).expect("a sound picture");
    assert_eq!((picture.width(), picture.height()), (7, 11));
    // What was at the bottom left is at the top left: no red, much green.
    let corner = &picture.pixels()[..3];
    assert!(corner[0] < 60 && corner[1] > 120, "{corner:?}");
}

#[test]
fn nothing_truncated_or_foreign_is_a_picture() {
    assert_eq!(refusal(b"").kind(), ErrorKind::BadFile);
    for junk in [&b"hello, world"[..], b"%PDF-1.7 and so on", b"\0", b"<svg></svg>"] {
        let error = refusal(junk);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("PNG, JPEG, WebP, GIF and BMP"), "{error}");
    }
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Jpeg]
    {
        let whole = encoded(&sample().into(), format);
        for len in [whole.len() / 2, whole.len() / 3, 14] {
            assert_eq!(refusal(&whole[..len]).kind(), ErrorKind::BadFile, "{format:?} of {len} bytes");
        }
    }
}

#[test]
fn a_flipped_byte_never_panics() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Jpeg]
    {
        let whole = encoded(&sample().into(), format);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xFF;
            // Some flips leave a sound picture; none may do worse than an error.
            if let Err(error) = decode(&broken) {
                assert!(error.to_string().lines().count() <= 2, "{format:?} at {at}: {error}");
            }
        }
    }
}

#[test]
fn a_size_is_looked_at_before_memory_is_spent() {
    for (width, height) in [(100_000, 100_000), (16_385, 1), (1, 16_385), (16_384, 16_384), (1 << 30, 1)] {
        let error = refusal(&with_size(png(), width, height));
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    }
    let error = refusal(&with_size(png(), 100_000, 100_000)).to_string();
    assert!(error.contains("100000 x 100000 pixels"), "{error}");
    assert_eq!(refusal(&with_size(png(), 0, 7)).kind(), ErrorKind::BadFile);
    let mut bitmap = encoded(&sample().into(), ImageFormat::Bmp);
    bitmap[18..22].copy_from_slice(&i32::MAX.to_le_bytes());
    refusal(&bitmap);
}

#[test]
fn files_are_opened_or_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kind = |path: &Path| Picture::open(path).expect_err("this is no picture").kind();
    assert_eq!(kind(&folder.path().join("missing.png")), ErrorKind::NotFound);
    assert_eq!(kind(folder.path()), ErrorKind::BadFile);
    let path = folder.path().join("really-a-png.jpg");
    std::fs::write(&path, png()).expect("the folder can be written");
    assert_eq!(Picture::open(&path).expect("its content counts").pixels(), sample().as_raw());
}

#[test]
fn an_endless_file_has_an_end() {
    let error = Picture::read(std::io::repeat(7), "pipe").expect_err("it never ends");
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
}

#[test]
fn a_crop_has_the_pixels_of_its_place() {
    let picture = decode(&png()).expect("a sound picture");
    let part = picture.crop(2, 3, 4, 2);
    assert_eq!((part.width(), part.height()), (4, 2));
    assert_eq!(part.pixels()[..3], [40, 90, 99]);
    assert_eq!(part.pixels()[7 * 3..], [100, 120, 99]);
    let corner = picture.crop(9, 6, 100, 100);
    assert_eq!((corner.width(), corner.height()), (2, 1));
    assert_eq!(picture.crop(50, 50, 1, 1).pixels(), [200, 180, 99]);
}

#[test]
fn the_digest_tells_pictures_apart() {
    let rgb = |width, height| Picture::from_rgb(width, height, vec![7; 36]).expect("a picture");
    assert_eq!(rgb(4, 3).digest(), rgb(4, 3).digest());
    assert_ne!(rgb(4, 3).digest(), rgb(3, 4).digest());
    let mut pixels = vec![7; 36];
    pixels[35] = 8;
    assert_ne!(rgb(4, 3).digest(), Picture::from_rgb(4, 3, pixels).expect("a picture").digest());
    assert!(Picture::from_rgb(4, 3, vec![7; 35]).is_err());
    assert!(Picture::from_rgb(0, 3, Vec::new()).is_err());
}

#[test]
fn pixel_values_are_planes_from_minus_one_to_one() {
    let picture = Picture::from_rgb(1, 1, vec![0, 255, 51]).expect("a picture");
    let values = picture.pixel_values(2, Resample::Bicubic);
    assert_eq!(values.len(), 12);
    assert_eq!(values[..8], [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]);
    assert!(values[8..].iter().all(|v| (v + 0.6).abs() < 1e-6), "{values:?}");
}
