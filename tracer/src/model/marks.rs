//! Marked functions and lines: how often they were passed, and how long regions took.
//!
//! A begin and an end belong together by goroutine and depth of its stack. What a panic has
//! unwound has no end: it is noticed when something begins or ends above it.

use hashbrown::HashMap;

use super::Durations;
use crate::event::{Mark, MarkInfo, SiteId};

/// Regions that may be open at one time; of more the ends are not known.
const MOST_OPEN: usize = 1 << 17;

/// What is known of one mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    pub info: MarkInfo,
    /// How often it was passed.
    pub count: u64,
    /// Of regions whose begin and end were seen.
    pub durations: Durations,
    /// Regions that have not ended as far as is known.
    pub open: u64,
    /// Regions that are over, but their end was not seen.
    pub unended: u64,
    /// Ends of regions whose begin was not seen.
    pub unbegun: u64,
}

/// A mark that was passed, or the end of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Index of the mark.
    pub mark: usize,
    pub goroutine: u64,
    pub begin_ns: u64,
    /// `None`: it is no region.
    pub end_ns: Option<u64>,
}

/// All marks of a capture.
#[derive(Debug, Default)]
pub struct Marks {
    pub all: Vec<Marked>,
    sites: HashMap<SiteId, Role>,
    /// By goroutine, the innermost last.
    open: HashMap<u64, Vec<Open>>,
    open_count: usize,
    /// What the latest event has completed.
    pub latest: Option<Passed>,
}

#[derive(Debug, Clone, Copy)]
struct Role {
    mark: usize,
    is_end: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    mark: usize,
    depth: u64,
    begin_ns: u64,
}

impl Marks {
    /// These are the marks.
    pub fn define(&mut self, infos: &[MarkInfo]) {
        for (mark, info) in infos.iter().enumerate() {
            let roles = info.begins.iter().map(|site| (*site, false));
            let roles = roles.chain(info.ends.iter().map(|site| (*site, true)));
            self.sites.extend(roles.map(|(site, is_end)| (site, Role { mark, is_end })));
        }
        self.all = infos.iter().map(|info| Marked { info: info.clone(), ..Marked::default() }).collect();
    }

    /// One was passed.
    pub fn passed(&mut self, event: &Mark) {
        self.latest = None;
        let Some(&Role { mark, is_end }) = self.sites.get(&event.site) else { return };
        if is_end {
            self.end(mark, event);
        } else {
            self.begin(mark, event);
        }
    }

    fn begin(&mut self, mark: usize, event: &Mark) {
        let Mark { goroutine, depth, time_ns, .. } = *event;
        self.all[mark].count += 1;
        if !self.all[mark].info.is_region {
            self.latest = Some(Passed { mark, goroutine, begin_ns: time_ns, end_ns: None });
            return;
        }
        // What began where this begins, or deeper, is over.
        self.unwind(goroutine, |open| open.depth >= depth);
        if self.open_count < MOST_OPEN {
            self.open_count += 1;
            self.all[mark].open += 1;
            self.open.entry(goroutine).or_default().push(Open { mark, depth, begin_ns: time_ns });
        } else {
            self.all[mark].unended += 1;
        }
    }

    fn end(&mut self, mark: usize, event: &Mark) {
        let Mark { goroutine, depth, time_ns, .. } = *event;
        self.unwind(goroutine, |open| open.depth > depth);
        let innermost =
            self.open.get_mut(&goroutine).and_then(|open| open.pop_if(|open| open.depth == depth));
        match innermost {
            Some(open) if open.mark == mark => {
                self.close(goroutine);
                self.all[mark].open -= 1;
                self.all[mark].durations.add(open.begin_ns, time_ns);
                let (begin_ns, end_ns) = (open.begin_ns, Some(time_ns));
                self.latest = Some(Passed { mark, goroutine, begin_ns, end_ns });
            }
            // Another function's, that a jump has made this of.
            Some(open) => {
                self.close(goroutine);
                self.all[open.mark].open -= 1;
                self.all[open.mark].unended += 1;
                self.all[mark].unbegun += 1;
            }
            None => self.all[mark].unbegun += 1,
        }
    }

    /// Gives up the innermost regions of which this holds.
    fn unwind(&mut self, goroutine: u64, is_over: impl Fn(&Open) -> bool) {
        while let Some(open) =
            self.open.get_mut(&goroutine).and_then(|open| open.pop_if(|open| is_over(open)))
        {
            self.close(goroutine);
            self.all[open.mark].open -= 1;
            self.all[open.mark].unended += 1;
        }
    }

    /// One of a goroutine's is no longer open.
    fn close(&mut self, goroutine: u64) {
        self.open_count -= 1;
        if self.open.get(&goroutine).is_some_and(Vec::is_empty) {
            self.open.remove(&goroutine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: SiteId = SiteId(1);
    const OUTER_END: SiteId = SiteId(2);
    const INNER: SiteId = SiteId(3);
    const INNER_END: SiteId = SiteId(4);
    const EVENT: SiteId = SiteId(5);

    fn marks(events: &[(SiteId, u64, u64)]) -> Marks {
        let region = |name: &str, begin, end| MarkInfo {
            name: name.into(),
            is_region: true,
            begins: vec![begin],
            ends: vec![end],
        };
        let event = MarkInfo { name: "event".into(), begins: vec![EVENT], ..MarkInfo::default() };
        let mut marks = Marks::default();
        marks.define(&[region("outer", OUTER, OUTER_END), region("inner", INNER, INNER_END), event]);
        for (time_ns, &(site, goroutine, depth)) in (10..).step_by(10).zip(events) {
            marks.passed(&Mark { site, goroutine, depth, time_ns });
        }
        marks
    }

    /// Count, total, open, without end, without begin.
    fn sums(marks: &Marks) -> [[u64; 5]; 3] {
        let sums = |m: &Marked| [m.count, m.durations.total_ns, m.open, m.unended, m.unbegun];
        [sums(&marks.all[0]), sums(&marks.all[1]), sums(&marks.all[2])]
    }

    #[test]
    fn regions_nest_by_goroutine() {
        let marks = marks(&[
            (OUTER, 1, 100),
            (INNER, 1, 200),
            (INNER, 2, 200),
            (INNER, 1, 300),
            (EVENT, 1, 300),
            (INNER_END, 1, 300),
            (INNER_END, 2, 200),
            (INNER_END, 1, 200),
            (OUTER_END, 1, 100),
        ]);
        assert_eq!(sums(&marks), [[1, 80, 0, 0, 0], [3, 60 + 40 + 20, 0, 0, 0], [1, 0, 0, 0, 0]]);
        let outer = Passed { mark: 0, goroutine: 1, begin_ns: 10, end_ns: Some(90) };
        assert_eq!(marks.latest, Some(outer));
        assert!(marks.open.is_empty() && marks.open_count == 0);
    }

    #[test]
    fn what_a_panic_unwinds_has_no_end() {
        let marks = marks(&[(OUTER, 1, 100), (INNER, 1, 200), (INNER, 1, 300), (OUTER_END, 1, 100)]);
        assert_eq!(sums(&marks)[..2], [[1, 30, 0, 0, 0], [2, 0, 0, 2, 0]]);
        // Called again from the same place, and from further up.
        let marks = self::marks(&[(INNER, 1, 200), (INNER, 1, 200), (INNER, 1, 150), (INNER_END, 1, 150)]);
        assert_eq!(sums(&marks)[1], [3, 10, 0, 2, 0]);
    }

    #[test]
    fn what_began_before_the_capture_has_only_an_end() {
        let marks = marks(&[(OUTER_END, 1, 100), (INNER, 1, 100), (OUTER, 2, 100)]);
        assert_eq!(sums(&marks)[..2], [[1, 0, 1, 0, 1], [1, 0, 1, 0, 0]]);
    }
}
