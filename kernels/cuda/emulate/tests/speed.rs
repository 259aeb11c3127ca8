//! How long launches take.
use gemma_emulation::{Emulated, SCHEDULES};
use gemma_kernels::cuda::{Arg, Driver, Launch};

#[test]
#[ignore = "it measures"]
fn launches() {
    for schedule in SCHEDULES {
        let device = Emulated::new(1 << 30, schedule);
        let more: Vec<_> = (0..200).map(|_| device.allocate(1 << 16).unwrap()).collect();
        let (x, y) = (device.allocate(4096).unwrap(), device.allocate(4096).unwrap());
        let zeros = vec![0; 4096];
        unsafe {
            device.upload(x, &zeros).unwrap();
            device.upload(y, &zeros).unwrap()
        };
        let cases: [(&str, u32, &[Arg]); 3] = [
            ("add_rows", 4, &[Arg::Address(x), Arg::Address(y), Arg::Int(1024)]),
            ("probe_ten_barriers", 1, &[Arg::Address(x)]),
            ("probe_ten_shuffles", 1, &[Arg::Address(x)]),
        ];
        for (kernel, blocks, args) in cases {
            let launch = Launch { kernel, grid: [blocks, 1, 1], block: 256, shared: 0, overlaps: true, args };
            let (start, mut count) = (cpu(), 0);
            while cpu() - start < 0.2 {
                unsafe { device.launch(&launch).unwrap() };
                count += 1;
            }
            let micros = (cpu() - start) * 1e6 / f64::from(count);
            println!("{schedule:?} {kernel}: {micros:.1} us a launch");
        }
        for a in more {
            unsafe { device.free(a) }
        }
    }
}
fn cpu() -> f64 {
    let mut t: libc::timespec = unsafe { std::mem::zeroed() };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
