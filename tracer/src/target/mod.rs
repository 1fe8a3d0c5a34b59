//! Finding a process, its maps and what it is (tier 2).
