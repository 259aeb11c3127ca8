//! Measuring the server as people meet it: an editing session, recorded key by key, goes through the real
//! message loop, and what each keystroke cost is written down.
//!
//! A [`trace`] is read and checked; [`playback`] knows what its documents say at each of its events, and
//! [`kind`] what a request is a case of; [`client`] speaks to a server in this process; [`replay`] plays the
//! one to the other; [`report`] makes numbers of it. [`fim`] measures which prompt suits a model, on code of
//! the user's own.

pub mod client;
pub mod fim;
pub mod kind;
pub mod memory;
pub mod playback;
pub mod random;
pub mod replay;
pub mod report;
pub mod trace;
