//! Kernels with planted bugs: each is found under one schedule at least, with words that name the kernel, and the line
//! where the emulation can know it.

use gemma_emulation::{Bare, SCHEDULES, Schedule, covers, hopper};
use gemma_kernels::cuda::{Address, Arg, CudaError, Driver, Launch};

/// Threads of a block, and numbers of a buffer.
const THREADS: usize = 256;

/// A kernel with a bug, and how it is launched.
#[derive(Clone, Copy)]
struct Bug {
    kernel: &'static str,
    source: &'static str,
    file: &'static str,
    blocks: u32,
    shared: u32,
    launches: usize,
}

impl Bug {
    fn of(file: &'static str, kernel: &'static str) -> Self {
        let source = match file {
            "barriers.cu" => include_str!("../bugs/barriers.cu"),
            "bounds.cu" => include_str!("../bugs/bounds.cu"),
            "blocks.cu" => include_str!("../bugs/blocks.cu"),
            _ => include_str!("../bugs/unwritten.cu"),
        };
        Self { kernel, source, file, blocks: 1, shared: 0, launches: 1 }
    }

    fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    /// The marked line of the kernel.
    fn line(&self) -> String {
        let mut lines = self.source.lines().enumerate();
        lines.find(|(_, line)| line.starts_with(&format!("KERNEL {}(", self.kernel))).expect("the kernel");
        let (at, _) = lines.find(|(_, line)| line.ends_with("// named")).expect("a marked line");
        format!("{}:{}", self.file, at + 1)
    }

    fn launch(&self, device: &Bare, args: &[Arg]) -> Result<(), CudaError> {
        let launch = Launch {
            kernel: self.kernel,
            grid: [self.blocks, 1, 1],
            block: THREADS as u32,
            shared: self.shared,
            overlaps: true,
            args,
        };
        (0..self.launches).try_for_each(|_| device.launch(&launch))
    }

    /// Says under each schedule what a run gives.
    fn everywhere<T>(&self, mut run: impl FnMut(&Self, &Bare) -> T) -> Vec<(Schedule, T)> {
        SCHEDULES.map(|schedule| (schedule, run(self, &Bare::new(1 << 20, schedule)))).into()
    }

    /// The words in which each schedule's launch fails; none that does not.
    fn refused(&self, mut run: impl FnMut(&Self, &Bare) -> Result<(), CudaError>) -> Vec<String> {
        let runs = self.everywhere(|bug, device| match run(bug, device) {
            Err(CudaError::Lost(text)) => {
                assert!(text.starts_with(bug.kernel), "{text} names {}", bug.kernel);
                Some(text)
            }
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        });
        runs.into_iter().filter_map(|(_, text)| text).collect()
    }
}

fn upload(device: &Bare, numbers: &[f32]) -> Address {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let address = device.allocate(bytes.len()).expect("there is room");
    device.upload(address, &bytes).expect("it can be written");
    address
}

fn download(device: &Bare, from: Address, len: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * len];
    device.download(from, &mut bytes).expect("it can be read");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn numbers() -> Vec<f32> {
    (0..THREADS).map(|i| i as f32).collect()
}

/// Launches a kernel of `(const float* x, float* out)`.
fn x_to_out(bug: &Bug, device: &Bare) -> Result<Address, CudaError> {
    let (x, out) = (upload(device, &numbers()), device.allocate(4 * THREADS)?);
    bug.launch(device, &[Arg::Address(x), Arg::Address(out)]).map(|()| out)
}

#[test]
fn threads_that_do_not_meet_are_named() {
    let kernels = [
        "bug_divergent_barrier",
        "bug_two_barriers",
        "bug_missing_lane",
        "bug_lane_elsewhere",
        "bug_lane_outside_mask",
        "bug_no_wait",
        "bug_polls_for_ever",
    ];
    for kernel in kernels {
        let bug = Bug::of("barriers.cu", kernel);
        let found = bug.refused(|bug, device| x_to_out(bug, device).map(drop));
        assert_eq!(found.len(), SCHEDULES.len(), "{kernel}: {found:?}");
        found.iter().for_each(|text| assert!(text.contains(&bug.line()), "{text} names {}", bug.line()));
    }
    let bug = Bug::of("barriers.cu", "bug_no_wait_for_launch");
    let found = bug.refused(|bug, device| x_to_out(bug, device).map(drop));
    assert_eq!(found.len(), SCHEDULES.len(), "{found:?}");
    covers(&["bug_divergent_barrier", "bug_missing_lane", "bug_no_wait", "bug_no_wait_for_launch"]);
}

#[test]
fn threads_that_do_not_wait_give_other_numbers() {
    let want: Vec<f32> = (0..THREADS).map(|i| ((i + 32) % THREADS) as f32).collect();
    for (kernel, want) in [("bug_missing_barrier", want), ("bug_wrong_wait", numbers())] {
        let runs = Bug::of("barriers.cu", kernel).everywhere(|bug, device| {
            let out = x_to_out(bug, device).unwrap();
            download(device, out, THREADS) == want
        });
        assert!(runs.iter().any(|&(_, right)| !right), "{kernel}: {runs:?}");
    }
    covers(&["bug_missing_barrier", "bug_wrong_wait"]);
}

#[test]
fn accesses_outside_of_memory_are_named() {
    // 64 numbers end where their pages end; 65 leave 12 bytes behind them.
    let run = |len: usize| {
        move |bug: &Bug, device: &Bare| {
            let out = upload(device, &vec![1.0; len]);
            bug.launch(device, &[Arg::Address(out), Arg::Int(len as i32)])
        }
    };
    let cases = [
        ("bug_writes_behind", 64, "writes 0 bytes behind the end of a buffer of 256 bytes"),
        ("bug_writes_far_behind", 256, "bytes behind the end of a buffer of 1024 bytes"),
        ("bug_reads_behind", 64, "reads 0 bytes behind the end of a buffer of 256 bytes"),
        ("bug_writes_behind_shared", 65, "0 bytes behind the end of the shared array `part` of 256 bytes"),
        ("bug_reads_behind_dynamic_shared", 256, "behind the end of the dynamic shared memory of 256 bytes"),
        ("bug_misaligned", 256, "not aligned"),
        ("bug_misaligned_copy", 256, "not aligned"),
    ];
    for (kernel, len, says) in cases {
        let bug = Bug { shared: 256, ..Bug::of("bounds.cu", kernel) };
        let found = bug.refused(run(len));
        assert_eq!(found.len(), SCHEDULES.len(), "{kernel}");
        for text in found {
            assert!(text.contains(&bug.line()) && text.contains(says), "{text} names {}: {says}", bug.line());
        }
    }
    for (kernel, len) in [("bug_writes_behind", 65), ("bug_writes_in_front", 64)] {
        let found = Bug::of("bounds.cu", kernel).refused(run(len));
        assert_eq!(found.len(), SCHEDULES.len(), "{kernel}");
        assert!(found.iter().all(|text| text.contains("next to a buffer of")), "{found:?}");
    }
}

#[test]
fn what_was_never_written_is_no_number() {
    for kernel in ["bug_unwritten_shared", "bug_unwritten_global", "bug_shared_of_block_before"] {
        let blocks = if kernel == "bug_shared_of_block_before" { 2 } else { 1 };
        let runs = Bug::of("unwritten.cu", kernel).blocks(blocks).everywhere(|bug, device| {
            let out = x_to_out(bug, device).unwrap();
            download(device, out, THREADS).iter().any(|n| n.is_nan())
        });
        assert!(runs.iter().any(|&(_, poisoned)| poisoned), "{kernel}: {runs:?}");
    }
}

#[test]
fn blocks_that_expect_too_much_of_each_other_give_other_numbers() {
    const BLOCKS: usize = 7;
    // What the blocks' numbers, the counter behind them, and the sum behind that should be after the launches.
    let rising: Vec<f32> = (1..=BLOCKS).map(|n| n as f32).collect();
    type Wanted<'a> = &'a dyn Fn(&[f32]) -> bool;
    let cases: [(&str, usize, Wanted<'_>); 5] = [
        ("bug_block_order", 1, &|n| n[..BLOCKS] == rising),
        ("bug_race_of_blocks", 1, &|n| n[0] == BLOCKS as f32 - 1.0),
        ("bug_sum_without_atomic", 1, &|n| n[0] == BLOCKS as f32),
        ("bug_counter_not_reset", 2, &|n| n[BLOCKS + 1] == 2.0 * BLOCKS as f32),
        ("bug_counts_before_writing", 1, &|n| n[BLOCKS + 1] == BLOCKS as f32),
    ];
    for (kernel, launches, right) in cases {
        let bug = Bug { blocks: BLOCKS as u32, launches, ..Bug::of("blocks.cu", kernel) };
        let runs = bug.everywhere(|bug, device| {
            let sums = upload(device, &[0.0; BLOCKS + 2]);
            bug.launch(device, &[Arg::Address(sums), Arg::Int(BLOCKS as i32)]).unwrap();
            right(&download(device, sums, BLOCKS + 2))
        });
        assert!(runs.iter().any(|&(_, right)| !right), "{kernel}: {runs:?}");
    }

    let bug = Bug::of("blocks.cu", "bug_all_resident").blocks(BLOCKS as u32);
    let found = bug.refused(|bug, device| {
        let sums = upload(device, &[0.0; BLOCKS + 2]);
        bug.launch(device, &[Arg::Address(sums), Arg::Int(BLOCKS as i32)])
    });
    assert_eq!(found.len(), SCHEDULES.len(), "{found:?}");
    assert!(found.iter().all(|text| text.contains(&bug.line())), "{found:?} names {}", bug.line());
}

/// What a device that is told of every access says of two launches of a kernel.
fn watched(bug: &Bug, args: impl Fn(&Bare) -> Vec<Arg>) -> Vec<String> {
    let runs = SCHEDULES.map(|schedule| {
        let device = Bare::watched(hopper(1 << 20), schedule);
        let args = args(&device);
        match bug.launch(&device, &args).and_then(|()| bug.launch(&device, &args)) {
            Err(CudaError::Lost(text)) => Some(text),
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        }
    });
    runs.into_iter().flatten().collect()
}

#[test]
fn accesses_that_nothing_orders_are_named() {
    const BLOCKS: usize = 7;
    let rows = |device: &Bare| {
        let out = upload(device, &numbers());
        vec![Arg::Address(upload(device, &numbers())), Arg::Address(out)]
    };
    let sums =
        |device: &Bare| vec![Arg::Address(upload(device, &[0.0; BLOCKS + 2])), Arg::Int(BLOCKS as i32)];
    let of_threads = [
        "bug_missing_barrier",
        "bug_missing_barrier_behind",
        "bug_missing_syncwarp",
        "bug_reads_before_waiting",
    ];
    for kernel in of_threads {
        let bug = Bug::of("barriers.cu", kernel);
        let found = watched(&bug, rows);
        assert_eq!(found.len(), SCHEDULES.len(), "{kernel}: {found:?}");
        found.iter().for_each(|text| assert!(text.contains(&bug.line()), "{text} names {}", bug.line()));
    }
    for kernel in ["bug_block_order", "bug_race_of_blocks", "bug_sum_without_atomic", "bug_missing_fence"] {
        let bug = Bug::of("blocks.cu", kernel).blocks(BLOCKS as u32);
        let found = watched(&bug, sums);
        assert_eq!(found.len(), SCHEDULES.len(), "{kernel}: {found:?}");
        found.iter().for_each(|text| assert!(text.contains(&bug.line()), "{text} names {}", bug.line()));
    }
}

#[test]
fn accesses_that_are_ordered_are_not() {
    let bug = Bug::of("blocks.cu", "probe_last_block").blocks(7);
    let found = watched(&bug, |device| vec![Arg::Address(upload(device, &[0.0; 9])), Arg::Int(7)]);
    assert!(found.is_empty(), "{found:?}");
    let bug = Bug::of("", "probe_ten_barriers");
    let found = watched(&bug, |device| vec![Arg::Address(upload(device, &numbers()))]);
    assert!(found.is_empty(), "{found:?}");
}
