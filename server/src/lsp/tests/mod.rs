//! The protocol, without a model: a client in memory drives the server, a fake completes.

mod actions;
mod ahead;
mod client;
mod completing;
mod fake;
mod index;
mod robust;
mod running;
mod settings;
mod statistics;
mod status;
mod talking;
