//! Reports as text, JSON, pprof and folded stacks (tier 5).
