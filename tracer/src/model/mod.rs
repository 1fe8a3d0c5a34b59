//! What the events add up to: sites, stacks, GC cycles, loss (tier 2).
