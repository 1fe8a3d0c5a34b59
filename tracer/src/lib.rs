//! heaptap: attaches to a running Go process and says where its heap goes.
//!
//! The modules stand in tiers; each imports only from lower ones (ARCHITECTURE.md).

// Tier 0
pub mod base;

// Tier 1
pub mod binary;
pub mod event;
pub mod memory;

// Tier 2
pub mod capture;
pub mod model;
pub mod pprof;
pub mod runtime;
pub mod symbol;
pub mod target;

// Tier 3
pub mod plan;

// Tier 4
pub mod report;
pub mod source;

// Tier 5
pub mod detect;

// Tier 6
pub mod export;

// Tier 7
pub mod session;

// Tier 8
pub mod script;

// Tier 9
pub mod cli;
