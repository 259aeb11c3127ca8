//! How long products take on this processor: `cargo bench -p gemma-kernels --bench products [-- FORMAT [INPUTS [OUTPUTS [THREADS [ROWS]]]]]`.
//!
//! One thread unless told otherwise, the fastest of many runs, so that other programs disturb little; weights that do not
//! fit the caches (65,536 outputs are enough) are read from memory, as when a model decodes.

use std::time::Instant;

use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Activation, Cpu, Format, Level, Ops, Projection};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = arguments.first().map(|name| name.to_lowercase());
    let number = |i: usize, default: usize| arguments.get(i).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (cols, rows, threads) = (number(1, 2048), number(2, 16384), number(3, 1));
    let formats =
        [Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q5_0, Format::Q4_K, Format::Q5_K, Format::Q6_K];
    let cpu = Cpu::new(threads, Level::detect());
    println!("{:?}, {cols} inputs, {rows} outputs, {threads} threads", cpu.level());
    println!("{:>6} {:>5} {:>10} {:>10} {:>10}", "", "rows", "ms", "GFLOP/s", "GB/s");
    for format in formats {
        let name = format!("{format:?}");
        if wanted.as_ref().is_some_and(|wanted| *wanted != name.to_lowercase()) {
            continue;
        }
        assert!(FORMATS.contains(&format));
        let mut random = Random::new(1);
        let bytes = random.matrix(format, rows, cols);
        let matrix = cpu.matrix(format, rows, cols, &bytes).expect("the shape is the format's");
        let all = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
        for n in all.into_iter().filter(|&n| number(4, n) == n) {
            let x = random.numbers(n * cols);
            let mut out = vec![0.0; n * rows];
            let mut best = f64::INFINITY;
            let begun = Instant::now();
            while begun.elapsed().as_secs_f64() < 0.4 {
                let start = Instant::now();
                cpu.project(&x, n, Activation::Rounded, &mut [Projection::new(&matrix, &mut out)]);
                best = best.min(start.elapsed().as_secs_f64());
            }
            let operations = (2 * n * cols * rows) as f64;
            println!(
                "{name:>6} {n:>5} {:>10.3} {:>10.1} {:>10.1}",
                best * 1e3,
                operations / best / 1e9,
                bytes.len() as f64 / best / 1e9
            );
        }
    }
}
