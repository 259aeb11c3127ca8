//! Kernels that work row by row, held against the oracle.

use gemma_emulation::devices;
use gemma_kernels::cuda::rows;
use gemma_kernels::{Ops, Reference};

#[test]
fn rows_are_added() {
    for (name, device) in devices(1 << 20) {
        let (mut x, y) = (vec![1.5; 1000], vec![0.25; 1000]);
        let mut on_device = device.numbers(&x).unwrap();
        rows::add(&mut on_device, &device.numbers(&y).unwrap(), 1000).unwrap();
        Reference.add(&mut x, &y);
        assert_eq!(on_device.read_numbers(0, 1000).unwrap(), x, "{name}");
    }
}
