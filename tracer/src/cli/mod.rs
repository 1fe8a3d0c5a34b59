//! The command line: arguments, configuration, one file per command (tier 7).
