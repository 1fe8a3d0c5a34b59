//! What the Go runtime looks like in memory: layouts, globals, counters, types (tier 2).
