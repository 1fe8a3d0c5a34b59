//! Leak detectors: which sites' survivors grow, whether that is a leak, of which kind, and what
//! cures it (tier 5).
//!
//! Pure: a capture's [`State`] and what a [`Report`] says of it come in, findings come out. Each
//! kind of leak has a file with one function, `look`, which is listed in [`DETECTORS`].

mod append_growth;
mod case;
mod census;
mod cgo;
mod channel_backlog;
mod claim;
mod claims;
mod context;
mod context_value;
mod drift;
mod finalizer;
mod fragmentation;
mod gc_pressure;
mod goroutine;
mod growth;
mod heap;
mod held;
mod http_body;
mod large_object;
mod map_growth;
mod map_pointer_key;
mod map_residue;
mod maps;
mod pool;
mod shape;
mod slice_retention;
mod stack_growth;
mod timer;
mod trend;
mod verdict;
mod warm_up;

pub use case::{Case, Suspect};
pub use trend::Trend;

use crate::model::State;
use crate::report::{Finding, Frame, Report};

/// Looks for one kind of leak.
type Detector = fn(&Case<'_>) -> Vec<Finding>;

/// The most specific first: what one has explained, those below it need not explain again.
const DETECTORS: &[Detector] = &[
    http_body::look,
    cgo::look,
    goroutine::look,
    context_value::look,
    context::look,
    timer::look,
    finalizer::look,
    pool::look,
    channel_backlog::look,
    slice_retention::look,
    map_residue::look,
    map_pointer_key::look,
    map_growth::look,
    stack_growth::look,
    fragmentation::look,
    append_growth::look,
    // Anything else that grows.
    growth::look,
    // No leaks.
    warm_up::look,
    large_object::look,
    gc_pressure::look,
];

/// What a capture says, with findings and a verdict: everything that shows a report shows this.
pub fn report(state: &State) -> Report {
    let mut report = Report::build(state);
    let mut case = Case::new(state, &report);
    let steady = maps::steady(&case);
    case.suspects.retain(|suspect| !steady.contains(&suspect.site));
    let said = DETECTORS.iter().flat_map(|look| look(&case)).collect();
    let findings = claims::settle(&case, said);
    let verdict = report.capture.following.map(|_| verdict::of(&case, &findings));
    // It borrows the report.
    drop(case);
    report.findings = findings;
    report.verdict = verdict;
    report
}

/// The innermost function of the program itself, as far as it can be told from the libraries that
/// it uses; else of all.
fn function(frames: &[Frame]) -> &str {
    own(frames).next().or(frames.first()).map_or("?", |frame| frame.function.as_str())
}

/// Frames of Go functions outside the standard library, innermost first.
fn own(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    frames.iter().filter(|frame| is_own(&frame.function))
}

/// A C function goes by its library and offset, `libc.so.6+0x9a0`.
fn is_own(function: &str) -> bool {
    let first = function.split(['/', '.', '[']).next().unwrap_or_default();
    function.contains('.') && !function.contains('+') && STANDARD.binary_search(&first).is_err()
}

/// What the paths of packages of the standard library begin with (`go list std` of Go 1.27), and of
/// no module: names without a dot are kept for it, though programs nobody downloads use others.
const STANDARD: &[&str] = &[
    "archive",
    "bufio",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "uuid",
    "vendor",
    "weak",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_functions_are_told_from_gos_own() {
        for function in ["main.serve", "example.com/shop/cart.(*Cart).Add", "shop/cart.New[go.shape.int]"] {
            assert!(is_own(function), "{function}");
        }
        for function in
            ["net/http.(*conn).serve", "slices.Grow[example.com/a.T]", "libc.so.6+0x9a0", "0x7f00"]
        {
            assert!(!is_own(function), "{function}");
        }
        assert!(STANDARD.is_sorted());
    }
}
