//! What the eBPF program and the collector share, byte for byte.
#![no_std]
