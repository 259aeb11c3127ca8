//! What the emulated device makes of a host that misuses it, and of devices that have less.

use gemma_emulation::{Bare, Schedule, ampere, hopper};
use gemma_kernels::cuda::{Address, Arg, CudaError, Driver, Launch};

const FLOATS: usize = 256;

fn device() -> Bare {
    Bare::new(1 << 20, Schedule::Forward)
}

fn add(device: &Bare, x: Address, y: Address) -> Result<(), CudaError> {
    let args = [Arg::Address(x), Arg::Address(y), Arg::Int(FLOATS as i32)];
    let launch =
        Launch { kernel: "add_rows", grid: [1, 1, 1], block: 256, shared: 0, overlaps: true, args: &args };
    device.launch(&launch)
}

fn buffer(device: &Bare) -> Address {
    let address = device.allocate(4 * FLOATS).expect("there is room");
    device.fill(address, 0, 4 * FLOATS).expect("it can be written");
    address
}

/// The words of an error.
fn lost<T: std::fmt::Debug>(result: Result<T, CudaError>) -> String {
    match result {
        Err(CudaError::Lost(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_that_was_freed_is_not_used() {
    let device = device();
    let (x, y) = (buffer(&device), buffer(&device));
    device.free(y);
    let text = lost(add(&device, x, y));
    assert!(text.contains("argument 1") && text.contains("a buffer that was freed of 1024 bytes"), "{text}");
    let text = lost(device.allocate(1));
    assert!(text.contains("add_rows"), "a device that failed stays lost: {text}");
}

#[test]
fn memory_is_freed_once() {
    let device = device();
    let x = buffer(&device);
    device.free(x);
    device.free(x);
    let text = lost(device.finish());
    assert!(text.contains("what is freed begins in a buffer that was freed"), "{text}");
}

#[test]
fn copies_stay_inside_of_buffers() {
    type Misuse = fn(&Bare, Address) -> Result<(), CudaError>;
    let misuses: [(&str, Misuse); 4] = [
        ("an upload", |device, x| device.upload(x + 4, &[0; 4 * FLOATS])),
        ("a download", |device, x| device.download(x + 4, &mut [0; 4 * FLOATS])),
        ("a copy", |device, x| device.copy(x + 4, buffer(device), 4 * FLOATS)),
        ("a fill", |device, x| device.fill(x - 4, 0, 8)),
    ];
    for (what, misuse) in misuses {
        let device = device();
        let x = buffer(&device);
        let text = lost(misuse(&device, x));
        assert!(text.contains(what) && text.contains("a buffer of 1024 bytes"), "{text}");
    }
}

#[test]
fn what_is_recorded_happens_at_the_replay() {
    let device = device();
    let (x, y) = (buffer(&device), buffer(&device));
    let mut bytes = [0; 4];
    device.upload(y, &1.5f32.to_le_bytes()).unwrap();
    device.begin_recording().unwrap();
    add(&device, x, y).unwrap();
    let recording = device.end_recording().unwrap();
    device.download(x, &mut bytes).unwrap();
    assert_eq!(f32::from_le_bytes(bytes), 0.0);
    device.replay(recording).unwrap();
    device.replay(recording).unwrap();
    device.download(x, &mut bytes).unwrap();
    assert_eq!(f32::from_le_bytes(bytes), 3.0);

    device.free(y);
    let text = lost(device.replay(recording));
    assert!(text.contains("argument 1") && text.contains("freed"), "{text}");
}

#[test]
fn nothing_but_launches_is_recorded() {
    let device = device();
    let x = buffer(&device);
    device.begin_recording().unwrap();
    let text = lost(device.upload(x, &[0; 4]));
    assert!(text.contains("while launches are recorded"), "{text}");
    lost(device.end_recording());
}

#[test]
fn a_forgotten_recording_is_not_replayed() {
    let device = device();
    device.begin_recording().unwrap();
    let recording = device.end_recording().unwrap();
    device.forget(recording);
    let text = lost(device.replay(recording));
    assert!(text.contains("forgotten"), "{text}");
}

#[test]
fn arguments_are_those_of_the_kernel() {
    let launch = |kernel, args: &[Arg], shared, block| {
        let device = Bare::of(ampere(1 << 20), Schedule::Forward);
        let launch = Launch { kernel, grid: [1, 1, 1], block, shared, overlaps: false, args };
        lost(device.launch(&launch))
    };
    let two = [Arg::Float(0.0), Arg::Int(0)];
    assert!(launch("add_rows", &two, 0, 256).contains("its parameters are `aai`, the launch has `fi`"));
    assert!(launch("no_such_kernel", &two, 0, 256).contains("no such kernel"));
    assert!(launch("probe_ten_barriers", &[Arg::Address(0)], 100 << 10, 256).contains("more shared memory"));
    assert!(launch("probe_ten_barriers", &[Arg::Address(0)], 0, 1025).contains("1 to 1024 threads"));
}

#[test]
fn devices_differ_in_their_shared_memory() {
    assert_eq!(hopper(1).shared_bytes, 227 << 10);
    let shared = |properties, shared| {
        let device = Bare::of(properties, Schedule::Forward);
        let x = buffer(&device);
        let launch = Launch {
            kernel: "probe_ten_barriers",
            grid: [1, 1, 1],
            block: 256,
            shared,
            overlaps: false,
            args: &[Arg::Address(x)],
        };
        device.launch(&launch)
    };
    // The kernel declares a kilobyte besides.
    assert_eq!(shared(hopper(1 << 20), 226 << 10), Ok(()));
    assert!(lost(shared(hopper(1 << 20), 227 << 10)).contains("shared memory"));
    assert!(lost(shared(ampere(1 << 20), 226 << 10)).contains("shared memory"));
}

#[test]
fn there_is_as_much_memory_as_was_said() {
    let device = device();
    let half = device.allocate(1 << 19).unwrap();
    assert_eq!(device.allocate(1 + (1 << 19)), Err(CudaError::OutOfMemory { bytes: 1 + (1 << 19) }));
    device.free(half);
    assert_eq!(device.free_bytes(), Ok(1 << 20));
    device.lose();
    lost(device.free_bytes());
}
