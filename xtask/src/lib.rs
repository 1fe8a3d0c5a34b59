//! What the development tasks and the tests package share: Go toolchains, the Go target
//! programs and the leak zoo, a browser, and processes that do not outlive their owner.

#![expect(clippy::print_stderr, reason = "a development tool reports its progress on stderr")]

pub mod browser;
pub mod ebpf;
pub mod go;
pub mod process;
pub mod shell;
pub mod targets;
pub mod zoo;
