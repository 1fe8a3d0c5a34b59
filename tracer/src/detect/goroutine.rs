//! Goroutines that never end: their number grows by creation site, all wait for the same thing
//! at the same place, and the oldest of them wait longer and longer.

use super::census::{self, Rise};
use super::{Case, function, http_body};
use crate::base::units::format_bytes;
use crate::event::{self, Census, GoroutineGroup};
use crate::report::{Evidence, Finding, Frame, LeakKind, Severity};

/// A rise by fewer goroutines is no matter.
const LEAST: f64 = 20.0;
/// Of the time of the capture, what the oldest must have waited longer at its end, where the
/// wait is one that does not end.
const AGEING: f64 = 0.5;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let http = http_body::is_seen(case);
    let groups = case.state.census.iter().flat_map(census::groups);
    let sites = census::keys(groups.map(|group| group.go_pc));
    let mut findings: Vec<Finding> = sites.into_iter().filter_map(|go_pc| judge(case, go_pc, http)).collect();
    if !http {
        census::add_descriptors(case, &mut findings);
    }
    findings
}

/// What is to be said of the goroutines that one `go` statement creates.
fn judge(case: &Case<'_>, go_pc: u64, http: bool) -> Option<Finding> {
    let creation = census::creation(case, go_pc)?;
    let creator = creation.function.as_str();
    // The runtime has some for itself; and what lost connections leave behind is said of these.
    if creator.starts_with("runtime.") || http && creator.starts_with("net/http.") {
        return None;
    }
    let number = |census: &Census| census::count(census, |group| group.go_pc == go_pc);
    let rise = Rise::of(case, census::series(case, number)).filter(|rise| rise.grown() >= LEAST)?;
    let latest = census::groups(census::latest(case)?).iter();
    let largest = latest.filter(|group| group.go_pc == go_pc).max_by_key(|group| group.count)?;
    let is_others = http && http_body::waits_for_body(case, largest);
    (!is_others).then(|| finding(case, creation, largest, &rise))
}

fn finding(case: &Case<'_>, creation: &event::Frame, largest: &GoroutineGroup, rise: &Rise) -> Finding {
    let (go_pc, creator) = (largest.go_pc, creation.function.as_str());
    let frames = census::frames(case, largest);
    let (suspects, sites, growth) =
        census::explained(case, |site| is_of(&site.frames, &frames, creator) && !census::is_descriptor(site));
    let stacks = census::stack_growth(case, |group| group.go_pc == go_pc);
    let place = frames.first().map_or("?", |frame| frame.function.as_str());
    let own = function(&frames);
    let state = &largest.state;
    let at = format!("{}:{}", creation.file, creation.line);
    let evidence = vec![
        rise.evidence("goroutines", &format!("were created at {at} by {creator}")),
        Evidence::of(format!(
            "Of these {} stand at one place, in {place}, in state \"{state}\"{}.",
            largest.count,
            census::waited(largest)
        )),
        Evidence::of(format!("Their stacks grow by {} each second.", format_bytes(stacks as u64))),
    ];
    Finding {
        kind: LeakKind::Goroutine,
        severity: Severity::Critical,
        confidence: rise.backed_by(&suspects) * if ageing(case, largest) { 1.0 } else { 0.75 },
        site: sites.first().cloned(),
        sites,
        growth_bytes_per_s: growth + stacks,
        summary: format!(
            "goroutines that {creator} creates never end: {:.1} more each second wait in {own} ({state})",
            rise.per_s
        ),
        frames,
        evidence,
        advice: advice(state).into(),
        disproof: format!(
            "The number of goroutines created at {at} falls when load falls, as that of workers or of open \
             connections does."
        ),
    }
}

/// Whether the oldest at that place wait longer and longer.
fn ageing(case: &Case<'_>, group: &GoroutineGroup) -> bool {
    let wait = |census: &Census| {
        let same = |other: &&GoroutineGroup| {
            other.go_pc == group.go_pc && other.stack == group.stack && other.state == group.state
        };
        Some(census::groups(census).iter().find(same)?.oldest_wait_ns.unwrap_or(0) as f64 / 1e9)
    };
    let waits = census::series(case, wait);
    match waits.as_slice() {
        [first, .., last] => last.1 - first.1 >= AGEING * (last.0 - first.0),
        _ => false,
    }
}

/// Whether a site's objects were made by these goroutines, which began with the same function,
/// or for them, by the function that created them.
fn is_of(site: &[Frame], stack: &[Frame], creator: &str) -> bool {
    let outermost = |frames: &[Frame]| {
        let frames =
            frames.iter().rev().find(|frame| !frame.wrapper && !frame.function.starts_with("runtime."));
        frames.map(|frame| frame.function.clone())
    };
    let began = outermost(stack);
    let is_made_for = census::innermost(site) == Some(creator)
        || site
            .iter()
            .find(|frame| !frame.function.starts_with("runtime."))
            .is_some_and(|f| f.function == creator);
    is_made_for || began.is_some() && outermost(site) == began
}

/// How to cure it, by what the goroutines wait for.
fn advice(state: &str) -> &'static str {
    match state {
        _ if state.starts_with("chan send") => {
            "Make sure that somebody receives, or give the channel room for what is sent (make(chan T, 1) for one \
             answer), or send in a select with <-ctx.Done()."
        }
        _ if state.starts_with("chan receive") => {
            "Have the sender close the channel when it is done, also on its error paths, or receive in a select \
             with <-ctx.Done()."
        }
        "select (no cases)" => {
            "Replace select {} by waiting for what ends the work: <-ctx.Done(), or a WaitGroup."
        }
        "select" => "Give the select a case that ends it: <-ctx.Done(), with a context that is cancelled.",
        "sync.WaitGroup.Wait" => {
            "Call Done for each Add, with defer right at the start of the goroutine, so that no return or panic \
             skips it."
        }
        "sync.Cond.Wait" => {
            "Signal or Broadcast whenever the condition may have changed, also when the work ends."
        }
        "sync.Mutex.Lock" | "sync.RWMutex.Lock" | "sync.RWMutex.RLock" | "semacquire" => {
            "Find who holds the lock and does not release it: unlock with defer, and take several locks in one order."
        }
        "IO wait" => {
            "Set deadlines on the connections (SetDeadline, http.Server's timeouts), and close them."
        }
        "sleep" => {
            "Replace the sleep by a timer in a select with <-ctx.Done(), and end the loop when that is done."
        }
        _ => "Give the goroutine an end: a context that is cancelled, a channel that is closed, a deadline.",
    }
}
