//! What owns a device's memory: buffers, recordings, pages.

use std::sync::Arc;

use gemma_emulation::{Emulated, Schedule, devices};
use gemma_kernels::cuda::{CudaError, Device, DevicePage, PageMemory, Place, Standing, rows};

#[test]
fn a_recording_keeps_the_memory_that_it_names() {
    for (name, device) in devices(1 << 20) {
        let x = device.numbers(&[1.0; 100]).unwrap();
        let y = device.numbers(&[0.5; 100]).unwrap();
        let full = device.free_bytes().unwrap();
        let recording = device.record(|| rows::add(&x, &y, 100)).unwrap();
        assert_eq!(x.read_numbers(0, 100).unwrap(), [1.0; 100], "{name}: recorded, not launched");
        drop(y);
        recording.replay().and_then(|()| recording.replay()).unwrap();
        assert_eq!(x.read_numbers(0, 100).unwrap(), [2.0; 100], "{name}");
        assert_eq!(device.free_bytes().unwrap(), full, "{name}: held by the recording");
        drop(recording);
        assert_eq!(device.free_bytes().unwrap(), full + 400, "{name}");
    }
}

#[test]
fn a_table_holds_what_it_names() {
    let device = Device::new(Arc::new(Emulated::new(1 << 20, Schedule::Forward)));
    let memory = PageMemory::new(&device, 1 << 16);
    let mut place = Place::new(&device, 1, 1, 1).unwrap();
    for _ in 0..2 {
        let page = DevicePage::new(&memory, 64).to_write().unwrap();
        let ranges = [vec![(0, 1)]];
        let standing = Standing { start: 0, position: 0, pages_from: 0, pages: &[page], ranges: &ranges };
        place.set(standing).unwrap();
        assert_eq!(memory.used(), 64, "the page that it names now, and no other");
    }
    drop(place);
    assert_eq!(memory.used(), 0);
}

#[test]
fn pages_are_copied_when_written_and_come_back_from_where_they_were_put() {
    let device = Device::new(Arc::new(Emulated::new(1 << 20, Schedule::Forward)));
    let memory = PageMemory::new(&device, 2 * 64);
    let first = DevicePage::of(&memory, Box::from([7; 64]));
    assert_eq!(memory.used(), 0, "nothing is there before it is needed");
    drop(first.to_write().unwrap());
    let copy = first.clone();
    drop(copy.to_read().unwrap());
    assert_eq!(memory.used(), 64, "a page that is only read is shared");
    drop(copy.to_write().unwrap());
    assert_eq!((memory.used(), copy.contents().unwrap()), (128, Box::from([7; 64])));

    let fresh = DevicePage::new(&memory, 64);
    assert_eq!(fresh.to_write().unwrap_err(), CudaError::OutOfMemory { bytes: 64 });
    let in_use = first.to_read().unwrap();
    assert_eq!((first.put_away(), copy.put_away()), (Ok(0), Ok(64)), "what is in use stays");
    drop(in_use);
    assert_eq!(fresh.to_write().map(|_| fresh.contents().unwrap()), Ok(Box::from([0; 64])));
    assert_eq!(copy.contents().unwrap(), Box::from([7; 64]));
    drop((first, fresh));
    assert_eq!(copy.to_read().map(|_| memory.used()), Ok(64));
}
