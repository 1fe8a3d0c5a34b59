//! What kind of expression allocated: decided by the runtime function it called.
//!
//! Names are those of Go 1.19 to 1.27 (`src/runtime`, `src/internal/runtime/maps`),
//! linknamed ones as they appear in the binary (`reflect.unsafe_New`). docs/json.md
//! lists the kinds for users.

use serde::Serialize;

/// What in the source made the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `new(T)`, `&T{}`, a variable that escapes.
    Newobject,
    /// `make([]T, n)`.
    Makeslice,
    /// `append`.
    Growslice,
    /// `make(map[K]V)`.
    Makemap,
    /// `m[k] = v` made the map grow.
    Mapassign,
    /// `make(chan T)`.
    Makechan,
    /// `a + b`, `string(bytes)`.
    String,
    /// `[]byte(s)`, `[]rune(s)`.
    Bytes,
    /// A function literal or method value that captures.
    Closure,
    /// A value put into an interface.
    Interface,
    /// `go f()`: the goroutine's descriptor.
    Goroutine,
    /// The runtime for itself.
    Runtime,
}

impl Kind {
    /// As in the JSON report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Newobject => "newobject",
            Kind::Makeslice => "makeslice",
            Kind::Growslice => "growslice",
            Kind::Makemap => "makemap",
            Kind::Mapassign => "mapassign",
            Kind::Makechan => "makechan",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Closure => "closure",
            Kind::Interface => "interface",
            Kind::Goroutine => "goroutine",
            Kind::Runtime => "runtime",
        }
    }
}

/// Entry points that compiled code calls, without the `runtime.` before them.
const RUNTIME: &[(&str, Kind)] = &[
    ("newobject", Kind::Newobject),
    ("makeslice", Kind::Makeslice),
    ("makeslice64", Kind::Makeslice),
    ("makeslicecopy", Kind::Makeslice),
    ("newarray", Kind::Makeslice),
    ("growslice", Kind::Growslice),
    // Go 1.26 and later: the backing store starts on the stack and moves to the heap.
    ("growsliceBuf", Kind::Growslice),
    ("growsliceNoAlias", Kind::Growslice),
    ("growsliceBufNoAlias", Kind::Growslice),
    ("moveSlice", Kind::Growslice),
    ("moveSliceNoScan", Kind::Growslice),
    ("moveSliceNoCap", Kind::Growslice),
    ("moveSliceNoCapNoScan", Kind::Growslice),
    ("makemap", Kind::Makemap),
    ("makemap64", Kind::Makemap),
    ("makemap_small", Kind::Makemap),
    ("mapassign", Kind::Mapassign),
    ("mapassign_fast32", Kind::Mapassign),
    ("mapassign_fast32ptr", Kind::Mapassign),
    ("mapassign_fast64", Kind::Mapassign),
    ("mapassign_fast64ptr", Kind::Mapassign),
    ("mapassign_faststr", Kind::Mapassign),
    ("makechan", Kind::Makechan),
    ("makechan64", Kind::Makechan),
    ("concatstrings", Kind::String),
    ("concatstring2", Kind::String),
    ("concatstring3", Kind::String),
    ("concatstring4", Kind::String),
    ("concatstring5", Kind::String),
    ("slicebytetostring", Kind::String),
    ("slicerunetostring", Kind::String),
    ("intstring", Kind::String),
    ("rawstring", Kind::String),
    ("rawstringtmp", Kind::String),
    ("gostring", Kind::String),
    ("gostringn", Kind::String),
    ("stringtoslicebyte", Kind::Bytes),
    ("stringtoslicerune", Kind::Bytes),
    ("rawbyteslice", Kind::Bytes),
    ("rawruneslice", Kind::Bytes),
    ("concatbytes", Kind::Bytes),
    ("concatbyte2", Kind::Bytes),
    ("concatbyte3", Kind::Bytes),
    ("concatbyte4", Kind::Bytes),
    ("concatbyte5", Kind::Bytes),
    ("convT", Kind::Interface),
    ("convTnoptr", Kind::Interface),
    ("convT16", Kind::Interface),
    ("convT32", Kind::Interface),
    ("convT64", Kind::Interface),
    ("convTstring", Kind::Interface),
    ("convTslice", Kind::Interface),
    ("newproc", Kind::Goroutine),
    // Go 1.19: `systemstack` has no frame, which hides its caller `newproc`.
    ("newproc1", Kind::Goroutine),
    ("malg", Kind::Goroutine),
];

/// Runtime functions under another package's name: no frame of theirs is trimmed.
const LINKNAMED: &[(&str, Kind)] = &[
    ("reflect.unsafe_New", Kind::Newobject),
    ("internal/reflectlite.unsafe_New", Kind::Newobject),
    ("reflect.unsafe_NewArray", Kind::Makeslice),
    ("internal/bytealg.MakeNoZero", Kind::Makeslice),
    ("reflect.growslice", Kind::Growslice),
    ("reflect.makemap", Kind::Makemap),
    ("maps.clone", Kind::Makemap),
    ("reflect.mapassign", Kind::Mapassign),
    ("reflect.mapassign0", Kind::Mapassign),
    ("reflect.mapassign_faststr", Kind::Mapassign),
    ("reflect.mapassign_faststr0", Kind::Mapassign),
    ("reflect.makechan", Kind::Makechan),
];

/// Stand between the entry point and the allocator without saying anything of it.
const TRANSPARENT: &[&str] = &["runtime.systemstack", "runtime.systemstack_switch", "runtime.mcall"];

/// Whether a frame is hidden at the innermost end of a stack, as `runtime/pprof` does
/// in heap profiles (`writeHeapProto`, src/runtime/pprof/protomem.go).
pub(super) fn is_runtime(function: &str) -> bool {
    function.starts_with("runtime.") || function.starts_with("internal/runtime/")
}

/// Whether a function does nothing but allocate: the runtime's, and those that other packages know
/// by a name of theirs. Where a stack begins among these depends on who walks it.
pub(super) fn is_allocating(function: &str) -> bool {
    match lookup(LINKNAMED, function).or_else(|| lookup(RUNTIME, function.strip_prefix("runtime.")?)) {
        Some(kind) => kind != Kind::Goroutine,
        None => is_allocator(function),
    }
}

/// The kind of an object of type `type_name` (empty: none) whose innermost frames are
/// `hidden`, innermost first, called by `top`, the first frame a report shows.
pub(super) fn classify(hidden: &[&str], top: &str, type_name: &str) -> Kind {
    if is_runtime(top) || within_allocator(hidden) {
        return Kind::Runtime;
    }
    let kind = lookup(LINKNAMED, top).unwrap_or_else(|| {
        let entry = hidden.iter().rev().find(|f| !TRANSPARENT.contains(f));
        // From Go 1.27 compiled code calls the allocator itself.
        match entry {
            // `make` and `copy` in one (cmd/compile/internal/walk `walkMakeSliceCopy`).
            None | Some(&"runtime.mallocgc") if type_name.is_empty() => Kind::Makeslice,
            Some(function) => of_runtime_function(function),
            None => Kind::Newobject,
        }
    });
    if kind == Kind::Newobject && is_closure(type_name) { Kind::Closure } else { kind }
}

/// Whether the allocator itself needed the memory, as when it starts a GC cycle: then
/// it stands in the stack with other functions inside. (The probed function, of which
/// the object is, stands in none.)
fn within_allocator(hidden: &[&str]) -> bool {
    let innermost = hidden.iter().take_while(|f| is_allocator(f)).count();
    hidden.iter().skip(innermost).any(|f| is_allocator(f))
}

/// `mallocgc` and, from Go 1.24, the functions it is divided into; and what calls nothing
/// else, since below `systemstack` in Go 1.19 `mallocgc` does not show.
fn is_allocator(function: &str) -> bool {
    function.starts_with("runtime.mallocgc") || ["runtime.newobject", "runtime.newarray"].contains(&function)
}

fn of_runtime_function(function: &str) -> Kind {
    // A function literal speaks for the function it stands in: `newproc.func1`.
    let function = function.find(".func").map_or(function, |n| &function[..n]);
    if let Some(name) = function.strip_prefix("runtime.") {
        if name.starts_with("mallocgc") {
            return Kind::Newobject;
        }
        return lookup(RUNTIME, name).unwrap_or(Kind::Runtime);
    }
    match function.strip_prefix("internal/runtime/maps.") {
        Some("NewMap" | "NewEmptyMap") => Kind::Makemap,
        Some(_) => Kind::Mapassign,
        None => Kind::Runtime,
    }
}

fn lookup(table: &[(&str, Kind)], name: &str) -> Option<Kind> {
    table.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
}

/// The compiler's type of a closure starts with the code pointer `F`
/// (cmd/compile/internal/typecheck `ClosureType`, `MethodValueType`).
fn is_closure(type_name: &str) -> bool {
    let literal = type_name.strip_prefix("noalg.").unwrap_or(type_name);
    literal.strip_prefix("struct { F uintptr").is_some_and(|rest| rest.starts_with([';', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_function_has_its_kind_behind_any_helper() {
        for (name, kind) in RUNTIME {
            let entry = format!("runtime.{name}");
            assert_eq!(classify(&["runtime.mallocgc", &entry], "main.f", ""), *kind, "{entry}");
            assert_eq!(classify(&["runtime.newarray", &entry], "main.f", ""), *kind, "{entry}");
        }
        for (name, kind) in LINKNAMED {
            assert_eq!(classify(&["runtime.mallocgc"], name, ""), *kind, "{name}");
        }
    }

    #[test]
    fn tables_name_each_function_once() {
        for table in [RUNTIME, LINKNAMED] {
            for (i, (name, _)) in table.iter().enumerate() {
                assert!(table[..i].iter().all(|(n, _)| n != name), "{name}");
            }
        }
    }

    #[test]
    fn stacks_of_real_programs_are_classified() {
        let closure = "struct { F uintptr; X0 *int }";
        let cases: &[(&[&str], &str, &str, Kind)] = &[
            // Go 1.27: straight into a size-specialised leaf.
            (&[], "main.f", "main.T", Kind::Newobject),
            (&["runtime.mallocgcSmallScanNoHeaderSC3"], "main.f", "main.T", Kind::Newobject),
            (&[], "main.f", closure, Kind::Closure),
            (&["runtime.newobject"], "main.f", closure, Kind::Closure),
            (&["runtime.newobject"], "main.f", "struct { F uintptr }", Kind::Closure),
            (&["runtime.newobject"], "main.f", "struct { F uintptrish }", Kind::Newobject),
            (&["runtime.makeslice"], "main.f", closure, Kind::Makeslice),
            (
                &["runtime.newarray", "runtime.hashGrow", "runtime.mapassign_faststr"],
                "main.f",
                "",
                Kind::Mapassign,
            ),
            (
                &[
                    "runtime.newarray",
                    "internal/runtime/maps.newarray",
                    "internal/runtime/maps.(*table).grow",
                    "internal/runtime/maps.(*table).rehash",
                    "runtime.mapassign_fast64",
                ],
                "main.f",
                "",
                Kind::Mapassign,
            ),
            (&["internal/runtime/maps.NewEmptyMap"], "main.f", "", Kind::Makemap),
            (
                &["internal/runtime/maps.newobject", "internal/runtime/maps.(*Map).PutSlot"],
                "main.f",
                "",
                Kind::Mapassign,
            ),
            (
                &[
                    "runtime.malg",
                    "runtime.newproc1",
                    "runtime.newproc.func1",
                    "runtime.systemstack",
                    "runtime.newproc",
                ],
                "main.f",
                "runtime.g",
                Kind::Goroutine,
            ),
            // Go 1.19: systemstack hides newproc.
            (
                &["runtime.malg", "runtime.newproc1", "runtime.newproc.func1", "runtime.systemstack"],
                "main.f",
                "runtime.g",
                Kind::Goroutine,
            ),
            (&["runtime.growslice", "runtime.(*Frames).Next"], "main.f", "", Kind::Runtime),
            // Go 1.19: systemstack hides mallocgc.
            (&["runtime.newobject", "runtime.allocm", "runtime.newobject"], "main.f", "", Kind::Runtime),
            (&[], "main.f", "", Kind::Makeslice),
            (&["runtime.mallocgc"], "main.f", "", Kind::Makeslice),
            (&[], "main.f", "?", Kind::Newobject),
            (&["runtime.newobject"], "runtime.doInit", "", Kind::Runtime),
            // The allocator starts a GC cycle, which starts its workers.
            (
                &[
                    "runtime.malg",
                    "runtime.newproc",
                    "runtime.gcStart",
                    "runtime.mallocgc",
                    "runtime.newobject",
                ],
                "main.f",
                "runtime.g",
                Kind::Runtime,
            ),
        ];
        for (hidden, top, type_name, kind) in cases {
            assert_eq!(classify(hidden, top, type_name), *kind, "{hidden:?} {top} {type_name}");
        }
    }

    #[test]
    fn only_the_runtime_itself_is_hidden() {
        for (function, hidden) in [
            ("runtime.mallocgc", true),
            ("internal/runtime/maps.newobject", true),
            ("runtime/pprof.Do", false),
            ("reflect.unsafe_New", false),
            ("main.runtime.x", false),
        ] {
            assert_eq!(is_runtime(function), hidden, "{function}");
        }
    }
}
