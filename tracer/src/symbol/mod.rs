//! From program counters to functions, files and lines (tier 2).
