//! Kernels that work row by row, held against the oracle under every schedule.

use std::sync::Arc;

use gemma_emulation::{Emulated, SCHEDULES};
use gemma_kernels::cuda::{Device, rows};
use gemma_kernels::{Ops, Reference};

#[test]
fn rows_are_added() {
    for schedule in SCHEDULES {
        let device = Device::new(Arc::new(Emulated::new(1 << 20, schedule)));
        let (mut x, y) = (vec![1.5; 1000], vec![0.25; 1000]);
        let mut on_device = device.numbers(&x).unwrap();
        rows::add(&mut on_device, &device.numbers(&y).unwrap(), 1000).unwrap();
        Reference.add(&mut x, &y);
        assert_eq!(on_device.read_numbers(0, 1000).unwrap(), x, "{schedule:?}");
    }
}
