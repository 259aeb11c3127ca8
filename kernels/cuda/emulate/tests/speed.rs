//! How long launches take; `cargo test --release -p gemma-emulation --test speed -- --ignored --nocapture` says it.

use std::time::Instant;

use gemma_emulation::{Bare, SCHEDULES, covers};
use gemma_kernels::cuda::{Arg, Driver, Launch};

/// Bytes of 1024 numbers.
const BYTES: usize = 4096;

#[test]
#[ignore = "it measures"]
fn launches_take_microseconds() {
    for schedule in SCHEDULES {
        let device = Bare::new(1 << 30, schedule);
        // As many buffers as a small model has.
        for _ in 0..200 {
            device.allocate(16 * BYTES).unwrap();
        }
        let [x, y] = [(); 2].map(|()| device.allocate(BYTES).unwrap());
        for address in [x, y] {
            device.fill(address, 0, BYTES).unwrap();
        }
        let cases: [(&str, u32, &[Arg]); 3] = [
            ("add_rows", 4, &[Arg::Address(x), Arg::Address(y), Arg::Int(1024)]),
            ("probe_ten_barriers", 1, &[Arg::Address(x)]),
            ("probe_ten_shuffles", 1, &[Arg::Address(x)]),
        ];
        for (kernel, blocks, args) in cases {
            let launch = Launch { kernel, grid: [blocks, 1, 1], block: 256, shared: 0, overlaps: true, args };
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed().as_secs_f64() < 0.2 {
                device.launch(&launch).unwrap();
                count += 1;
            }
            let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(count);
            println!("{schedule:?}: {kernel}, {blocks} blocks of 256 threads: {micros:.1} us a launch");
        }
    }
    covers(&["probe_ten_barriers", "probe_ten_shuffles"]);
}
