//! What an executable's bytes say: ELF, build info, functions, line tables, DWARF,
//! machine code (tier 1). Pure: no I/O, and total on hostile input.
