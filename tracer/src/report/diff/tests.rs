//! Which sites are the same, what became of them, and whether that is more than noise.

use proptest::prelude::*;

use super::change::{Judgement, What};
use super::*;
use crate::base::ErrorKind;
use crate::event;
use crate::pprof::{HeapProfile, HeapSample};

/// Functions as `main.f:LINE main.main`, innermost first; a wrapper ends in `!`.
fn frames(stack: &str) -> Vec<event::Frame> {
    let frame = |text: &str| {
        let (function, line) = text.split_once(':').unwrap_or((text, "1"));
        let function = function.trim_end_matches('!').to_owned();
        let wrapper = text.ends_with('!');
        event::Frame { function, line: line.parse().unwrap_or(0), wrapper, ..event::Frame::default() }
    };
    stack.split(' ').map(frame).collect()
}

/// Stack, type (`?`: not known), and the objects of 48 bytes allocated there, half of them alive.
type Sample<'a> = (&'a str, &'a str, i64);

const SIZE: i64 = 48;

fn side(rate_bytes: u64, samples: &[Sample<'_>]) -> Side {
    let sample = |&(stack, type_name, objects): &Sample<'_>| HeapSample {
        frames: frames(stack),
        values: [objects, objects * SIZE, objects / 2, objects / 2 * SIZE],
        type_name: Some(type_name.to_owned()),
    };
    let samples = samples.iter().map(sample).collect();
    Side::of_profile("a.pb.gz", HeapProfile { rate_bytes, samples, ..HeapProfile::default() })
}

fn diff(before: Side, after: Side) -> Diff {
    let options = DiffOptions { measure: Some(Measure::AllocObjects), per: None };
    Diff::build(before, after, options).expect("a comparison")
}

/// Function, type, and the objects on both sides.
fn sites(diff: &Diff) -> Vec<(String, String, i64, i64)> {
    let site = |site: &DiffSite| {
        let function = site.frames.first().map_or(String::new(), |frame| frame.function.clone());
        let type_name = site.type_name.clone().unwrap_or_else(|| "?".into());
        (function, type_name, site.changes.alloc_objects.before, site.changes.alloc_objects.after)
    };
    diff.sites.iter().map(site).collect()
}

fn check(before: &[Sample<'_>], after: &[Sample<'_>], expected: &[(&str, &str, i64, i64)]) {
    let found = sites(&diff(side(1, before), side(1, after)));
    let found: Vec<_> = found.iter().map(|(f, t, a, b)| (f.as_str(), t.as_str(), *a, *b)).collect();
    assert_eq!(found, expected, "{before:?} {after:?}");
}

#[test]
fn sites_are_the_same_by_the_functions_of_their_stacks() {
    // A line that moved, and two lines of one function.
    check(&[("main.f:7 main.main", "T", 3)], &[("main.f:9 main.main", "T", 5)], &[("main.f", "T", 3, 5)]);
    check(
        &[("main.f:7 main.main", "T", 3), ("main.f:8 main.main", "T", 10)],
        &[("main.f:9 main.main", "T", 5)],
        &[("main.f", "T", 13, 5)],
    );
    // Called from elsewhere.
    check(
        &[("main.f main.main", "T", 3)],
        &[("main.f main.g", "T", 5)],
        &[("main.f", "T", 0, 5), ("main.f", "T", 3, 0)],
    );
}

#[test]
fn how_a_stack_was_walked_makes_no_difference() {
    for stack in [
        "runtime.mallocgc runtime.newobject main.f main.main",
        "internal/runtime/maps.newarray runtime.makemap main.f main.main",
        "internal/bytealg.MakeNoZero main.f main.main runtime.goexit",
        "main.f main.f.deferwrap1! main.main main.main.gowrap1!",
    ] {
        check(&[("main.f main.main", "T", 3)], &[(stack, "T", 5)], &[("main.f", "T", 3, 5)]);
    }
    // Of the runtime alone.
    check(
        &[("runtime.mallocgc runtime.newobject runtime.malg runtime.newproc1", "T", 3)],
        &[("runtime.malg runtime.newproc1", "T", 5)],
        &[("runtime.malg", "T", 3, 5)],
    );
    // Some print type arguments.
    check(
        &[("main.Map[...] main.main", "T", 3)],
        &[("main.Map[go.shape.int] main.main", "T", 5), ("main.Map[go.shape.[]int] main.main", "T", 1)],
        &[("main.Map[go.shape.int]", "T", 3, 6)],
    );
    check(
        &[("main.Map[go.shape.string] main.main", "T", 3)],
        &[("main.Map[go.shape.int] main.main", "T", 5)],
        &[("main.Map[go.shape.int]", "T", 0, 5), ("main.Map[go.shape.string]", "T", 3, 0)],
    );
}

#[test]
fn types_count_where_both_sides_know_them() {
    let both = [("main.f main.main", "T", 3), ("main.f main.main", "", 1)];
    check(&both, &[("main.f main.main", "T", 5)], &[("main.f", "T", 3, 5), ("main.f", "", 1, 0)]);
    check(&both, &[("main.f main.main", "?", 5)], &[("main.f", "?", 4, 5)]);
    check(&both[..1], &[("main.f main.main", "?", 5)], &[("main.f", "T", 3, 5)]);
}

#[test]
fn a_stack_that_was_cut_off_is_the_inner_part_of_whole_ones() {
    let deep = |frames: usize, roots: &str| format!("main.f{}{roots}", " main.r".repeat(frames));
    let (cut, one, other) = (deep(25, ""), deep(40, " main.main"), deep(60, " main.main"));
    check(&[(&cut, "T", 3)], &[(&one, "T", 5), (&other, "T", 1)], &[("main.f", "T", 3, 6)]);
    // Not what is as short as whole stacks are.
    let (short, longer) = (deep(5, ""), deep(9, ""));
    check(&[(&short, "T", 3)], &[(&longer, "T", 5)], &[("main.f", "T", 0, 5), ("main.f", "T", 3, 0)]);
}

#[test]
fn each_site_has_appeared_gone_grown_shrunk_or_stayed() {
    let before = [("main.a", "T", 10), ("main.b", "T", 10), ("main.c", "T", 10), ("main.d", "T", 10)];
    let after = [("main.b", "T", 14), ("main.c", "T", 7), ("main.d", "T", 10), ("main.e", "T", 2)];
    let diff = diff(side(1, &before), side(1, &after));
    let what: Vec<What> =
        diff.sites.iter().map(|site| site.changes.live_bytes.expect("known").what).collect();
    assert_eq!(what, [What::Gone, What::Grown, What::Shrunk, What::Appeared, What::Same]);
    let total = diff.totals.alloc_objects;
    assert_eq!((total.before, total.after, total.change, total.significant), (40, 33, -7, 4));
    assert_eq!([total.appeared, total.gone, total.grown, total.shrunk, total.same], [1; 5]);
    assert!(diff.sites.iter().all(|site| site.changes.alloc_bytes.judgement == Judgement::Exact));
}

#[test]
fn rows_hold_the_sites_of_one_function_and_type() {
    let before = [("main.f main.a", "T", 10), ("main.f main.b", "T", 10), ("main.f main.b", "U", 1)];
    let after = [("main.f main.a", "T", 30), ("main.f main.c", "T", 5)];
    let (rows, totals) = diff(side(1, &before), side(1, &after)).rows();
    let row = |row: &DiffRow| (row.place.clone(), row.type_name.clone(), row.changes.alloc_objects.change);
    let expected = [("T", 15), ("U", -1)].map(|(t, n)| ("main.f".to_owned(), Some(t.to_owned()), n));
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), expected);
    assert_eq!((totals.alloc_objects.grown, totals.alloc_objects.gone), (1, 1));
}

#[test]
fn what_is_not_known_is_neither_measured_nor_normalised_by() {
    let fails = |per, measure| {
        let mut unknown = side(1, &[("main.a", "T", 10)]);
        unknown.totals.live_bytes = None;
        unknown.totals.live_objects = None;
        let error = Diff::build(side(1, &[]), unknown, DiffOptions { measure, per }).expect_err("not known");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint_text().is_some(), "{error}");
        error.to_string()
    };
    assert!(fails(None, Some(Measure::LiveBytes)).contains("which objects are alive"));
    assert!(fails(Some(Per::Duration), None).contains("how long it took"));
    assert!(fails(Some(Per::Cycles), None).contains("how many GC cycles"));
    assert!(fails(Some(Per::Measure(Measure::AllocBytes)), None).contains("has none"));
    let neither = diff(side(0, &[]), side(1, &[]));
    let said = neither.notes.join("\n");
    for what in ["A has no site at all", "B has no site at all", "A does not say how it was sampled"] {
        assert!(said.contains(what), "{said}");
    }
    let strangers = diff(side(1, &[("main.a", "T", 1)]), side(1, &[("main.b", "T", 1)])).notes.join("\n");
    assert!(strangers.contains("of the same program?"), "{strangers}");
}

#[test]
fn few_samples_are_noise_and_many_are_not() {
    // Each sample of 48 bytes stands for 85.8 objects.
    for (before, after, expected) in [
        (0, 1, Judgement::Noise),
        (0, 5, Judgement::Noise),
        (0, 6, Judgement::Significant),
        (7, 0, Judgement::Significant),
        (10, 12, Judgement::Noise),
        (100, 112, Judgement::Noise),
        (100, 150, Judgement::Significant),
        (5, 5, Judgement::Noise),
    ] {
        let seen = |samples: i64| side(4096, &[("main.a", "T", samples * 858 / 10)]);
        let change = diff(seen(before), seen(after)).sites[0].changes.alloc_bytes;
        assert_eq!(change.judgement, expected, "{before} {after}: {change:?}");
    }
    let unknown = diff(side(0, &[("main.a", "T", 1)]), side(1, &[]));
    assert_eq!(unknown.sites[0].changes.alloc_bytes.judgement, Judgement::Unknown);
}

/// Samples of sites that did not change differ significantly no more often than is said, and those
/// of sites that doubled do.
#[test]
fn chance_is_called_significant_as_often_as_is_said() {
    const SITES: u32 = 1000;
    const RATE: u64 = 4096;
    let mut random = fastrand::Rng::with_seed(7);
    for objects in [50, 500, 2500] {
        let p = -(-SIZE as f64 / RATE as f64).exp_m1();
        let mut sampled = |objects: i64| -> i64 {
            let seen = (0..objects).filter(|_| random.f64() < p).count();
            (seen as f64 / p) as i64
        };
        let mut significant = [0_u32; 2];
        for _ in 0..SITES {
            let before = sampled(objects);
            for (count, after) in significant.iter_mut().zip([sampled(objects), sampled(3 * objects)]) {
                let sides = (side(RATE, &[("main.a", "T", before)]), side(RATE, &[("main.a", "T", after)]));
                let diff = diff(sides.0, sides.1);
                *count += diff.sites.iter().filter(|site| site.changes.alloc_objects.counts()).count() as u32;
            }
        }
        let [by_chance, found] = significant.map(|count| f64::from(count) / f64::from(SITES));
        assert!(by_chance < 0.06, "{objects}: {by_chance}");
        // Of 29 samples before and 88 after, next to all.
        assert!(objects < 2500 || found > 0.99, "{objects}: {found}");
    }
}

fn samples() -> impl Strategy<Value = Vec<(u8, i64)>> {
    prop::collection::vec((0..9_u8, 1..100_000_i64), 1..9)
}

fn any_side(samples: &[(u8, i64)], times: i64) -> Side {
    let stacks: Vec<String> = samples.iter().map(|(site, _)| format!("main.f{site} main.main")).collect();
    let samples: Vec<Sample<'_>> =
        stacks.iter().zip(samples).map(|(stack, (_, n))| (stack.as_str(), "T", n * 2 * times)).collect();
    side(1, &samples)
}

proptest! {
    /// What has all numbers times something is the same per any of its measures.
    #[test]
    fn a_multiple_is_the_same_once_normalised(samples in samples(), times in 1..50_i64, which in 0..4_usize) {
        let per = Some(Per::Measure(Measure::ALL[which]));
        let (one, many) = (any_side(&samples, 1), any_side(&samples, times));
        let diff = Diff::build(one, many, DiffOptions { measure: None, per }).expect("a comparison");
        prop_assert!((diff.normalisation.expect("normalised").factor - times as f64).abs() < 1e-6);
        for measure in Measure::ALL {
            let total = diff.totals.get(measure).expect("known");
            prop_assert_eq!((total.change, total.same as usize), (0, diff.sites.len()));
        }
    }

    /// Changes of sites add up to that of all, and back is the same with the other sign.
    #[test]
    fn changes_add_up_and_turn_round(before in samples(), after in samples()) {
        let there = diff(any_side(&before, 1), any_side(&after, 1));
        let back = diff(any_side(&after, 1), any_side(&before, 1));
        for measure in Measure::ALL {
            let total = there.totals.get(measure).expect("known");
            let sum: i64 = there.sites.iter().filter_map(|s| s.changes.get(measure)).map(|c| c.change).sum();
            prop_assert_eq!(total.change, sum);
            let turned = back.totals.get(measure).expect("known");
            prop_assert_eq!((turned.change, turned.appeared, turned.grown), (-total.change, total.gone, total.shrunk));
        }
    }
}
