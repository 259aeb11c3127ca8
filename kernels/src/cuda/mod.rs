//! The same operations on NVIDIA GPUs: memory, launches and how weights lie there.
//!
//! The kernels themselves are CUDA C++ in `kernels/cuda`. They reach a device through a [`Driver`]: NVIDIA's, or in
//! tests one that runs them on the CPU.

pub mod attention;
pub mod best;
mod device;
mod driver;
pub mod embed;
pub mod few;
pub mod low_rank;
pub mod many;
pub mod matrix;
mod measure;
mod nvidia;
mod page;
mod place;
pub mod recurrent;
mod repack;
pub mod rows;
mod states;

pub use device::{Buffer, Device, Recording, Strided};
pub use driver::{Address, Arg, CudaError, Driver, Launch, Properties};
pub use matrix::{Arrangement, DeviceMatrix, MatrixError, Part};
pub use nvidia::{open, probe};
pub use page::{DevicePage, PageBuffer, PageMemory};
pub use place::{Place, Standing};
pub use states::States;
