//! Responses whose bodies nobody closed: each keeps its connection, whose goroutine waits in
//! `readLoop` for the body to be read to its end. (Those of idle connections wait for input.)

use std::collections::BTreeMap;

use super::census::{self, Rise};
use super::{Case, Suspect};
use crate::event::{Census, GoroutineGroup};
use crate::report::{Finding, Frame, LeakKind, Severity, Site};

/// A rise by fewer connections is no matter.
const LEAST: f64 = 10.0;

/// What waits for a body: of HTTP/1, of HTTP/2 bundled, and of its own package.
const WAITS: [&str; 3] = [
    "net/http.(*persistConn).readLoop",
    "net/http.(*http2clientStream).doRequest",
    "net/http/internal/http2.(*clientStream).doRequest",
];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = rise(case).map(|rise| finding(case, &rise)).into_iter().collect();
    census::add_descriptors(case, &mut findings);
    findings
}

/// Whether there are such.
pub(super) fn is_seen(case: &Case<'_>) -> bool {
    rise(case).is_some()
}

fn rise(case: &Case<'_>) -> Option<Rise> {
    let number = |census: &Census| census::count(census, |group| waits_for_body(case, group));
    Rise::of(case, census::series(case, number)).filter(|rise| rise.grown() >= LEAST)
}

/// Whether goroutines wait until somebody has read a body.
pub(super) fn waits_for_body(case: &Case<'_>, group: &GoroutineGroup) -> bool {
    group.state == "select"
        && census::frames(case, group).iter().any(|frame| WAITS.contains(&frame.function.as_str()))
}

fn finding(case: &Case<'_>, rise: &Rise) -> Finding {
    let is_client = |frames: &[Frame]| {
        let of = |prefix: &str| frames.iter().any(|frame| frame.function.starts_with(prefix));
        of("net/http.(*Client).") || of("net/http.(*Transport).") || of("net/http.(*persistConn).")
    };
    let is_http = |frames: &[Frame]| frames.iter().any(|frame| frame.function.starts_with("net/http."));
    let (suspects, mut sites, growth) =
        census::explained(case, |site| is_http(&site.frames) && !census::is_descriptor(site));
    let main = main_site(case, &suspects, is_client);
    if let Some(main) = main {
        sites.retain(|id| *id != main.id);
        sites.insert(0, main.id.clone());
    }
    let waiting = census::latest(case).map_or(&[][..], census::groups).iter();
    let waiting = waiting.filter(|group| waits_for_body(case, group)).max_by_key(|group| group.count);
    let stack = waiting.map_or(Vec::new(), |group| census::frames(case, group));
    let place = stack.first().map_or("readLoop", |frame| frame.function.as_str());
    let waited = waiting.map_or(String::new(), census::waited);
    let what = format!("wait in {place} until a body is read or closed{waited}");
    let evidence = vec![rise.evidence("connections", &what)];
    let frames = main.map_or(stack, |site| site.frames.clone());
    let caller = census::innermost(&frames).map_or(String::new(), |name| format!(" by {name}"));
    Finding {
        kind: LeakKind::HttpBody,
        severity: Severity::Critical,
        confidence: rise.backed_by(&suspects),
        site: sites.first().cloned(),
        sites,
        // Of goroutines on both ends, if both are in this process.
        growth_bytes_per_s: growth + census::stack_growth(case, |_| true),
        summary: format!(
            "bodies of HTTP responses are not closed: {:.1} more connections each second, got{caller}, stay open \
             with their goroutines and buffers",
            rise.per_s
        ),
        frames,
        evidence,
        advice: "Close each response's body (defer resp.Body.Close() after the check of err), and read it to its end \
                 (io.Copy(io.Discard, resp.Body)) so that the connection can serve the next request."
            .into(),
        disproof: "The connections end by themselves after a while: their bodies are long downloads or streams that \
                   are still being read."
            .into(),
    }
}

/// The site that says most of who did not close them: of the function of the program by whose
/// requests most is kept, as far as that is seen to grow, else that has most alive; else what the
/// library has made for them.
fn main_site<'a>(
    case: &Case<'a>,
    suspects: &[&Suspect],
    is_client: impl Fn(&[Frame]) -> bool,
) -> Option<&'a Site> {
    let clients = || suspects.iter().filter(|suspect| is_client(&case.site(suspect).frames));
    let mut callers: BTreeMap<Option<&str>, f64> = BTreeMap::new();
    for suspect in clients() {
        *callers.entry(census::innermost(&case.site(suspect).frames)).or_default() +=
            suspect.trend.bytes_per_s;
    }
    let most = callers.iter().max_by(|a, b| a.0.is_some().cmp(&b.0.is_some()).then(a.1.total_cmp(b.1)));
    let growing = most.and_then(|(caller, _)| {
        clients().map(|suspect| case.site(suspect)).find(|site| census::innermost(&site.frames) == *caller)
    });
    let of_program = |site: &&Site| is_client(&site.frames) && census::innermost(&site.frames).is_some();
    let live = |site: &&Site| site.live_bytes.unwrap_or(0);
    let alive = || case.report.sites.iter().filter(of_program).max_by_key(live).filter(|site| live(site) > 0);
    growing.filter(of_program).or_else(alive).or(growing)
}
