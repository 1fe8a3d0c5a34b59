//! The capture file: framed, versioned, checksummed, compressed (tier 2).
