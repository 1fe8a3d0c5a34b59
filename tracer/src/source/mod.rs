//! Where events come from: a live process or a capture file (tier 4).
