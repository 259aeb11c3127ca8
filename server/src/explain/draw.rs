//! Boxes drawn into a picture, each kind of thing in a colour of its own.

use std::io::Cursor;

use gemma_engine::{Error, ErrorKind, Picture};
use image::{ImageFormat, Rgb, RgbImage};

use super::marks::Found;

/// Colours that are told apart on light and on dark, with their names for the legend.
const COLOURS: [(&str, [u8; 3]); 8] = [
    ("red", [230, 25, 75]),
    ("blue", [0, 110, 255]),
    ("green", [40, 160, 60]),
    ("orange", [245, 130, 48]),
    ("purple", [145, 30, 180]),
    ("cyan", [0, 170, 190]),
    ("magenta", [240, 50, 230]),
    ("brown", [154, 99, 36]),
];

/// The colour's name for each of what was found: the same for the same label.
pub fn legend(found: &[Found]) -> Vec<&'static str> {
    colours(found).into_iter().map(|(name, _)| name).collect()
}

fn colours(found: &[Found]) -> Vec<(&'static str, [u8; 3])> {
    let mut labels: Vec<&str> = Vec::new();
    let mut colour = |label| {
        let at = labels.iter().position(|known| *known == label).unwrap_or_else(|| {
            labels.push(label);
            labels.len() - 1
        });
        COLOURS[at % COLOURS.len()]
    };
    found.iter().map(|found| colour(&found.label)).collect()
}

/// The picture with a frame around everything that was found, as a PNG file.
pub fn png(picture: &Picture, found: &[Found]) -> Result<Vec<u8>, Error> {
    let failed = |why: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, "picture with boxes", why);
    // Pictures are limited to far less than 32 bits a side.
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    let mut canvas = RgbImage::from_raw(width, height, picture.pixels().to_vec())
        .ok_or_else(|| failed(&"its pixels are incomplete"))?;
    let thick = (picture.width().min(picture.height()) / 200).max(2);
    for (found, (_, colour)) in found.iter().zip(colours(found)) {
        frame(&mut canvas, found, thick, Rgb(colour));
    }
    let mut bytes = Cursor::new(Vec::new());
    canvas.write_to(&mut bytes, ImageFormat::Png).map_err(|e| failed(&e))?;
    Ok(bytes.into_inner())
}

/// Draws inside the box, so that one at the picture's edge is whole.
fn frame(canvas: &mut RgbImage, found: &Found, thick: usize, colour: Rgb<u8>) {
    let (width, height) = (canvas.width() as usize, canvas.height() as usize);
    let (x1, y1) = (found.x1.min(width), found.y1.min(height));
    for y in found.y0..y1 {
        for x in found.x0..x1 {
            let edge = (x - found.x0).min(x1 - 1 - x).min(y - found.y0).min(y1 - 1 - y);
            if edge < thick {
                canvas.put_pixel(x as u32, y as u32, colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: &str, x0: usize, y0: usize, x1: usize, y1: usize) -> Found {
        Found { label: label.into(), x0, y0, x1, y1, mask_codes: None }
    }

    #[test]
    fn frames_are_drawn_and_all_else_is_left() {
        let picture = Picture::from_rgb(20, 12, vec![7; 20 * 12 * 3]).expect("a picture");
        let boxes = [found("a", 2, 1, 12, 11), found("b", 15, 8, 99, 99)];
        let drawn = Picture::decode(&png(&picture, &boxes).expect("drawn"), "drawn").expect("a PNG");
        let at = |x: usize, y: usize| &drawn.pixels()[(y * 20 + x) * 3..][..3];
        assert_eq!(at(2, 1), COLOURS[0].1);
        assert_eq!(at(11, 10), COLOURS[0].1);
        assert_eq!(at(3, 2), COLOURS[0].1);
        assert_eq!(at(19, 11), COLOURS[1].1);
        for (x, y) in [(0, 0), (4, 3), (9, 8), (12, 1), (2, 11)] {
            assert_eq!(at(x, y), [7, 7, 7], "{x}, {y}");
        }
    }

    #[test]
    fn a_label_keeps_its_colour() {
        let boxes = [found("a", 0, 0, 1, 1), found("b", 0, 0, 1, 1), found("a", 1, 1, 2, 2)];
        assert_eq!(legend(&boxes), ["red", "blue", "red"]);
    }
}
