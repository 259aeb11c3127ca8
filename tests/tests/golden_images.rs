//! Pictures become the reference's pixels: the resized bytes exactly, the values behind them closely.

use std::collections::HashMap;

use gemma_engine::picture::{Picture, Resample};
use gemma_tests::golden;
use gemma_tests::numbers::worst;
use gemma_tests::places;
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    images: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    width: usize,
    height: usize,
    size: usize,
    resample: u8,
    resized: String,
    pixel_rows: String,
    mean: f64,
}

/// The bytes of every tensor of the case.
fn tensors() -> HashMap<String, Vec<u8>> {
    let path = places::golden("image-preprocess").join("golden.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("the golden tensors are sound");
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

#[test]
fn pictures_are_resized_as_the_reference_does() {
    let (golden, tensors): (Golden, _) = (golden::json("image-preprocess/golden.json"), tensors());
    assert_eq!(golden.images.len(), 6);
    for case in golden.images {
        let path = places::golden("image-preprocess").join(&case.file);
        let picture = Picture::open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((picture.width(), picture.height()), (case.width, case.height), "{}", case.file);
        let resample = if case.resample == 3 { Resample::Bicubic } else { Resample::Bilinear };

        let resized = picture.resized(case.size, case.size, resample);
        let differing = resized.pixels().iter().zip(&tensors[&case.resized]).filter(|(a, b)| a != b).count();
        assert_eq!(resized.pixels().len(), tensors[&case.resized].len(), "{}", case.file);
        assert_eq!(differing, 0, "bytes of {} that differ", case.file);

        let values = picture.pixel_values(case.size, resample);
        assert_eq!(values.len(), 3 * case.size * case.size);
        let planes = values.chunks_exact(case.size * case.size);
        let rows: Vec<f32> = planes.flat_map(|plane| &plane[..2 * case.size]).copied().collect();
        let expected: Vec<f32> = tensors[&case.pixel_rows]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert!(worst(&rows, &expected) < 1e-6, "{}: {:e}", case.file, worst(&rows, &expected));
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        assert!((mean - case.mean).abs() < 1e-6, "{}: mean {mean} and {}", case.file, case.mean);
    }
}
