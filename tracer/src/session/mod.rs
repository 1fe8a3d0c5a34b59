//! The loop that moves events from a source to a capture file and a model (tier 6).
