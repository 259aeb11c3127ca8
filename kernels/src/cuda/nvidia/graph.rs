//! Launches on a stream, one by one or many as one: a CUDA graph.
//!
//! What is recorded is kept as a list, and captured into a graph at once behind the last launch. So nothing else is
//! ever put on a stream that captures, whatever other threads do, and what a driver cannot capture is launched one by
//! one instead.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{
    self, CUfunction, CUgraph, CUgraphExec, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchConfig, CUresult, CUstream, CUstreamCaptureMode,
};

use super::call::{Failure, get, ok};
use crate::cuda::{Arg, Launch};

/// A launch that holds all it needs.
#[derive(Debug)]
pub(super) struct Queued {
    function: CUfunction,
    kernel: &'static str,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    overlaps: bool,
    /// An argument in each.
    words: Vec<u64>,
}

/// Launches that are asked for as one.
#[derive(Debug)]
pub(super) struct Recorded {
    launches: Vec<Queued>,
    graph: Option<Graph>,
}

/// A graph that can be launched.
#[derive(Debug)]
struct Graph(CUgraphExec);

impl Queued {
    pub(super) fn new(function: CUfunction, launch: &Launch<'_>) -> Self {
        let Launch { kernel, grid, block, shared, overlaps, args } = *launch;
        Self { function, kernel, grid, block, shared, overlaps, words: args.iter().map(Arg::word).collect() }
    }

    /// Puts it on a stream. It may begin before the one in front has ended if it can wait for that by itself and
    /// `may_overlap`.
    ///
    /// # Safety
    /// The stream is there, the arguments are the kernel's, and what it reads and writes is allocated.
    pub(super) unsafe fn launch(&self, stream: CUstream, may_overlap: bool) -> Result<(), Failure> {
        // The driver reads as many bytes of each word as the parameter has: its first, on every system that it is for.
        let mut arguments: Vec<*mut c_void> =
            self.words.iter().map(|word| ptr::from_ref(word).cast_mut().cast()).collect();
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        let mut overlap = CUlaunchAttribute { id, pad: [0; 4], value };
        let config = CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: stream,
            attrs: &mut overlap,
            numAttrs: u32::from(self.overlaps && may_overlap),
        };
        // SAFETY: the caller vouches for the arguments, which the driver copies.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&config, self.function, arguments.as_mut_ptr(), ptr::null_mut()) };
        ok(launched).map_err(|failure| failure.during(self.kernel))
    }
}

impl Recorded {
    /// Makes a graph of launches if the driver can.
    ///
    /// # Safety
    /// The stream is there, and nobody else uses it meanwhile; the launches' arguments are their kernels'.
    pub(super) unsafe fn new(stream: CUstream, launches: Vec<Queued>, may_overlap: bool) -> Self {
        // SAFETY: the caller vouches for it.
        let graph = |overlap| unsafe { Graph::new(stream, &launches, overlap) };
        // There are drivers that take a launch which may overlap, but not into a graph.
        let graph = if may_overlap { graph(true).or_else(|_| graph(false)) } else { graph(false) };
        Self { launches, graph: graph.ok() }
    }

    /// Puts all of it on a stream.
    ///
    /// # Safety
    /// As [`Queued::launch`] for each of them.
    pub(super) unsafe fn launch(&self, stream: CUstream, may_overlap: bool) -> Result<(), Failure> {
        if let Some(Graph(graph)) = &self.graph {
            // SAFETY: the caller vouches for it.
            match ok(unsafe { sys::cuGraphLaunch(*graph, stream) }) {
                // The driver wants memory of its own for it, and may find none.
                Err(failure) if failure.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {}
                launched => return launched,
            }
        }
        // SAFETY: the caller vouches for it.
        self.launches.iter().try_for_each(|launch| unsafe { launch.launch(stream, may_overlap) })
    }
}

impl Graph {
    /// # Safety
    /// As [`Recorded::new`].
    unsafe fn new(stream: CUstream, launches: &[Queued], may_overlap: bool) -> Result<Self, Failure> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let mut captured: CUgraph = ptr::null_mut();
        // SAFETY: the caller vouches for the stream and for each launch. What was captured is given back, and so is
        // the graph made of it, which does not need it any more.
        unsafe {
            ok(sys::cuStreamBeginCapture_v2(stream, mode))?;
            let launched = launches.iter().try_for_each(|launch| launch.launch(stream, may_overlap));
            // In any case: the stream takes no work before.
            let ended = ok(sys::cuStreamEndCapture(stream, &mut captured));
            let made = launched.and(ended).and_then(|()| {
                get(ptr::null_mut(), |out| sys::cuGraphInstantiateWithFlags(out, captured, 0))
            });
            if !captured.is_null() {
                let _ = sys::cuGraphDestroy(captured);
            }
            made.map(Self)
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was made above; the driver waits for a launch of it that still runs.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}
