//! State joined with symbols into plain data (tier 4).
