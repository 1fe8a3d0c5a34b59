//! What the leak detectors say of a capture: a verdict, and findings with their evidence.

use serde::Serialize;

use super::Frame;

/// Something that grows without end, or that costs more than it should.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub kind: LeakKind,
    pub severity: Severity,
    /// From 0 to 1.
    pub confidence: f64,
    /// [`super::Site::id`] of the site that says most of it; `None`: it is of no site.
    pub site: Option<String>,
    /// Of all sites it explains, that one first.
    pub sites: Vec<String>,
    /// Where it comes from, innermost first: a stack of that site, or of what else there is,
    /// as of goroutines.
    pub frames: Vec<Frame>,
    /// 0 where nothing grows.
    pub growth_bytes_per_s: f64,
    /// One sentence.
    pub summary: String,
    pub evidence: Vec<Evidence>,
    /// What to do: the Go idiom that cures it.
    pub advice: String,
    /// What would show that it is wrong.
    pub disproof: String,
}

/// What a finding rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// One sentence, with numbers.
    pub what: String,
    pub series: Option<Series>,
}

impl Evidence {
    /// Without a series.
    pub fn of(what: impl Into<String>) -> Evidence {
        Evidence { what: what.into(), series: None }
    }
}

/// Something measured again and again.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    pub name: String,
    /// `bytes`, or what else is counted.
    pub unit: String,
    /// Seconds since the capture began, and the value; in order of time.
    pub points: Vec<(f64, f64)>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs time or memory, but does not grow without end.
    Warning,
    /// A leak.
    Critical,
}

/// What kind of leak it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeakKind {
    SliceRetention,
    MapGrowth,
    MapResidue,
    MapPointerKey,
    Goroutine,
    Context,
    Timer,
    Finalizer,
    Pool,
    ChannelBacklog,
    HttpBody,
    ContextValue,
    AppendGrowth,
    LargeObject,
    Fragmentation,
    StackGrowth,
    Cgo,
    GcPressure,
    WarmUp,
    /// It grows, and nothing says why.
    Growth,
}

impl LeakKind {
    /// As in the JSON report.
    pub fn name(self) -> &'static str {
        match self {
            LeakKind::SliceRetention => "slice-retention",
            LeakKind::MapGrowth => "map-growth",
            LeakKind::MapResidue => "map-residue",
            LeakKind::MapPointerKey => "map-pointer-key",
            LeakKind::Goroutine => "goroutine",
            LeakKind::Context => "context",
            LeakKind::Timer => "timer",
            LeakKind::Finalizer => "finalizer",
            LeakKind::Pool => "pool",
            LeakKind::ChannelBacklog => "channel-backlog",
            LeakKind::HttpBody => "http-body",
            LeakKind::ContextValue => "context-value",
            LeakKind::AppendGrowth => "append-growth",
            LeakKind::LargeObject => "large-object",
            LeakKind::Fragmentation => "fragmentation",
            LeakKind::StackGrowth => "stack-growth",
            LeakKind::Cgo => "cgo",
            LeakKind::GcPressure => "gc-pressure",
            LeakKind::WarmUp => "warm-up",
            LeakKind::Growth => "growth",
        }
    }
}

/// What all of it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// From 0 to 1: it rises with GC cycles and time.
    pub confidence: f64,
    /// One sentence.
    pub summary: String,
    /// GC cycles after which is known what was alive.
    pub judged_gc_cycles: u64,
    /// By which all live memory grows; `None`: too few cycles to say.
    pub growth_bytes_per_s: Option<f64>,
    /// What was reached, in order.
    pub stages: Vec<Stage>,
}

/// Whether the program leaks, or what it does else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Leak,
    NoLeak,
    /// Too little was seen, or it says neither.
    Unsure,
    /// It grew, and then no more.
    WarmUp,
    /// Something was filled up to its bound.
    CacheFull,
    /// More is alive because more is done.
    LoadRose,
    /// No leak, but the garbage collector works more than it should.
    GcPressure,
}

/// A stage of a hunt, from `begin_s` seconds after the capture began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stage {
    pub name: StageName,
    pub begin_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    Before,
    /// The heap after a GC grew in three cycles in a row, by more than the noise.
    Suspect,
    /// What survives of the same sites explains the growth.
    Leaking,
}
