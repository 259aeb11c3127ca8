//! Rows of an embedding table, held against the oracle.
#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::embed::embed;
use gemma_kernels::cuda::{Arrangement, DeviceMatrix, Part};
use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Format, Ops, Reference};
use half::bf16;

#[test]
fn rows_of_every_format_are_embedded() {
    let ids = [0u32, 8, 39, 17, 39];
    for (seed, format) in FORMATS.into_iter().enumerate() {
        let cols = if format.block_len() == 256 { 512 } else { 96 };
        let bytes = Random::new(seed as u64).matrix(format, 40, cols);
        let table = Reference.matrix(format, 40, cols, &bytes).unwrap();
        let mut want = vec![0.0; ids.len() * cols];
        Reference.embed(&table, &ids, 45.25, &mut want);
        for (name, device) in devices(1 << 20) {
            for exact in [false, true] {
                let part = Part { format, rows: 40, bytes: &bytes };
                let table = DeviceMatrix::new(&device, &[part], cols, Arrangement::Stacked, exact).unwrap();
                let ids_there = device.buffer_of(&ids.map(u32::to_le_bytes).concat()).unwrap();
                let out = device.buffer(4 * want.len()).unwrap();
                embed(&table, &ids_there, ids.len(), 45.25, &out).unwrap();
                let rounded = !exact && matches!(format, Format::F32 | Format::F16);
                let want = want
                    .iter()
                    .map(|&x| if rounded { 45.25 * bf16::from_f32(x / 45.25).to_f32() } else { x });
                for (got, want) in out.read_numbers(0, want.len()).unwrap().into_iter().zip(want) {
                    let near = (got - want).abs() <= 1e-6 * want.abs();
                    assert!(near, "{format:?} on {name}, exact {exact}: {got} is not {want}");
                }
            }
        }
    }
    covers(&["embed_rows"]);
}

#[test]
fn an_id_behind_the_table_reads_its_last_row() {
    let numbers: Vec<u8> = (0..16u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    for (name, device) in devices(1 << 20) {
        let part = Part { format: Format::F32, rows: 2, bytes: &numbers };
        let table = DeviceMatrix::new(&device, &[part], 8, Arrangement::Stacked, true).unwrap();
        let (ids, out) = (device.buffer_of(&u32::MAX.to_le_bytes()).unwrap(), device.buffer(32).unwrap());
        embed(&table, &ids, 1, 1.0, &out).unwrap();
        let want: Vec<f32> = (8..16u8).map(f32::from).collect();
        assert_eq!(out.read_numbers(0, 8).unwrap(), want, "{name}");
    }
    covers(&["embed_rows"]);
}

#[test]
fn a_matrix_of_several_pieces_arrives_whole() {
    // More than is repacked at a time; the second piece begins with row 4096.
    let (rows, cols) = (5000, 1024);
    let bytes = Random::new(20).matrix(Format::BF16, rows, cols);
    let ids = [0usize, 15, 4095, 4096, 4999];
    let row = |id: usize| &bytes[2 * id * cols..2 * (id + 1) * cols];
    let want: Vec<f32> = ids
        .iter()
        .flat_map(|&id| row(id).chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()))
        .collect();
    let (_, device) = devices(16 << 20).remove(0);
    let part = Part { format: Format::BF16, rows, bytes: &bytes };
    let table = DeviceMatrix::new(&device, &[part], cols, Arrangement::Stacked, false).unwrap();
    let ids_there = device.buffer_of(&ids.map(|id| (id as u32).to_le_bytes()).concat()).unwrap();
    let out = device.buffer(4 * want.len()).unwrap();
    embed(&table, &ids_there, ids.len(), 1.0, &out).unwrap();
    assert_eq!(out.read_numbers(0, want.len()).unwrap(), want);
    covers(&["embed_rows"]);
}
