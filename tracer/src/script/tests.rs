//! Session files, good and bad.

use std::path::Path;

use proptest::prelude::*;
use toml::Spanned;

use super::expr::{Expr, Values, Verdict};
use super::source::Source;
use super::{Host, Session, TEMPLATE};
use crate::base::{Error, Result};

struct Quiet;

impl Host for Quiet {
    fn note(&mut self, _: &str) {}

    fn progress(&mut self, _: &str) {}

    fn report_ending(&self, format: &str) -> Option<&'static str> {
        ["table", "pprof"].contains(&format).then_some("txt")
    }

    fn diff_ending(&self, format: &str) -> Option<&'static str> {
        (format == "table").then_some("txt")
    }

    fn write_diff(&self, _: [&Path; 2], _: &str, _: &Path) -> Result<()> {
        Ok(())
    }

    fn write_report(&self, _: &Path, _: &str, _: &Path) -> Result<()> {
        Ok(())
    }
}

fn parse(text: &str, set: &[(&str, &str)]) -> Result<Session> {
    let set: Vec<_> = set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Session::parse(text, "s.toml", &set, &Quiet)
}

/// What is said of a bad file, and the hint.
fn refusal(text: &str, set: &[(&str, &str)]) -> String {
    let error: Error = parse(text, set).expect_err(text);
    format!("{error} | {}", error.hint_text().unwrap_or_default())
}

#[test]
fn the_template_is_a_session() {
    let session = parse(TEMPLATE, &[("warmup", "90s"), ("name", "other")]).expect("template");
    assert_eq!(session.summary(), "s: 3 phases (1m 30s and what is waited for), 1 trigger, 2 assertions");
    assert!(matches!(&session.target.who, super::seek::Who::Name(name) if name == "other"));
    assert!(session.sites.contains("upload"));
}

const TARGET: &str = "[target]\npid = 1\n";
const PHASE: &str = "[[phase]]\nname = \"a\"\nduration = \"1s\"\n";

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (tables, want) in [
        ("[target]\npdi = 1", "s.toml:2:1: unknown key `pdi` | did you mean `pid`?"),
        ("[traget]\n", "s.toml:1:2: unknown key `traget` | did you mean `target`?"),
        ("x = ", "s.toml:1:5: "),
        ("[target]\n", "s.toml:1:1: a target is given by one of pid"),
        ("[target]\npid = 1\nname = \"x\"", "s.toml:1:1: a target is given by one of pid"),
        ("[target]\npid = 1\nreattach = true", "another id"),
        ("[target]\nname = \"x\"\nwait = \"soon\"", "s.toml:3:8: not a duration"),
        ("[target]\npid = 1\n[capture]\nmode = \"exakt\"", "s.toml:4:8: unknown variant `exakt`"),
        ("[target]\npid = 1\n[capture]\nbudget = \"0%\"", "s.toml:4:10: not a share in percent"),
        ("[target]\npid = 1\n", "a session has at least one phase"),
        ("[set]\nlong = 5\n[target]\npid = 1", "s.toml:2:8: a setting is a string"),
        (
            "[set]\nlong = \"5\"\n[target]\nname = \"{{log}}\"",
            "s.toml:4:8: there is no setting `log` | did you mean `long`?",
        ),
    ] {
        let said = refusal(tables, &[]);
        assert!(said.contains(want), "{tables}\n{said}");
    }
    let said = refusal(TARGET, &[("x", "1")]);
    assert!(said.contains("--set x: s.toml has no such setting | there is none"), "{said}");
}

#[test]
fn phases_triggers_and_assertions_are_checked() {
    for (tables, want) in [
        ("[[phase]]\nname = \"b\"", "s.toml:6:1: a phase has a `duration`, an `until` or a command"),
        ("[[phase]]\nname = \"a/b\"\nduration = \"1s\"", "s.toml:6:1: \"a/b\" cannot name a phase"),
        ("[[phase]]\nname = \"a\"\nduration = \"1s\"", "s.toml:6:1: there is a phase \"a\" already"),
        ("[[phase]]\nname = \"b\"\nduration = \"1s\"\ntimeout = \"2s\"", "needs no `timeout`"),
        (
            "[[phase]]\nname = \"b\"\nuntil = 'phase(\"b\").rss > 1'",
            "s.toml:8:10: no phase \"b\" has ended by then",
        ),
        ("[[trigger]]\nwhen = 'rss > 1'\ndo = \"switch\"", "s.toml:6:1: a `mode` goes with"),
        ("[[trigger]]\nwhen = 'rss > 1'\ndo = \"snap\"", "s.toml:8:6: unknown variant `snap`"),
        ("[[assert]]\nthat = 'rss > 1'\nphase = \"A\"", "s.toml:8:9: there is no phase \"A\""),
        ("[output]\nreports = [\"jsn\"]", "s.toml:7:12: there is no report format \"jsn\""),
        ("[output]\ndiff = [\"table\", \"csv\"]", "s.toml:7:18: there is no diff format \"csv\""),
    ] {
        let said = refusal(&format!("{TARGET}{PHASE}{tables}"), &[]);
        assert!(said.contains(want), "{tables}\n{said}");
    }
}

#[test]
fn bad_conditions_are_refused_with_their_place() {
    for (condition, column, want) in [
        ("heap.alive > 1", 1, "there is no value `heap.alive` | did you mean `heap.live`?"),
        ("rss > 1 && heap.alive > 1", 12, "there is no value `heap.alive`"),
        ("rss > 1 && phase(\"a\").rs > 1", 12, "did you mean `rss`?"),
        ("heap > 1", 1, "there is no value `heap`"),
        ("site(\"x\") > 1", 1, "site(\"x\") is no value by itself"),
        ("1 < site(\"(\").live_bytes", 5, "no regular expression"),
        ("rss > size(\"x\")", 7, "there is no function `size`"),
        ("rss > [1]", 7, "lists, maps and macros"),
        ("rss +", 6, ""),
        ("rss > > 1", 7, ""),
        ("rss > \"1\"", 1, "overload"),
        ("rss + 1", 1, "neither true nor false"),
        ("", 0, ""),
    ] {
        let text = format!("{TARGET}{PHASE}[[assert]]\nthat = '{condition}'\n");
        let said = refusal(&text, &[]);
        let place = format!("s.toml:7:{}: ", column + 8);
        assert!(said.starts_with(&place) && said.contains(want), "{condition}: {said}");
    }
    let lines = format!("{TARGET}{PHASE}[[assert]]\nthat = '''\nrss > 1 &&\n  heap.alive > 1'''\n");
    assert!(refusal(&lines, &[]).starts_with("s.toml:9:3: "), "{}", refusal(&lines, &[]));
}

fn holds(condition: &str, values: &[(&str, f64)]) -> Verdict {
    let text = format!("that = '{condition}'");
    let source = Source { name: "s.toml", text: &text };
    let expr = Expr::compile(&source, &Spanned::new(7..text.len(), condition.to_owned()), &["a"]);
    let values: Values = values.iter().map(|(name, value)| ((*name).into(), *value)).collect();
    expr.expect(condition).holds(&values)
}

#[test]
fn conditions_hold_or_do_not_or_are_not_known() {
    let values = [("heap.live", 3e6), ("phase(\"a\").heap.live", 2.0 * 1048576.0), ("rss", 10.0)];
    for (condition, want) in [
        ("heap.live < 1.5 * phase(\"a\").heap.live", Verdict::Yes),
        ("heap.live > 2 * MiB && rss == 10", Verdict::Yes),
        ("1 / 2 == 0.5", Verdict::Yes),
        ("heap.live < 1u", Verdict::No),
        ("gc.cycles > 1", Verdict::Unknown("gc.cycles is not known".into())),
        // As CEL has it: what is not known makes no difference here.
        ("gc.cycles > 1 || rss > 1", Verdict::Yes),
        (
            "site(\"x\\\\.y\").live_bytes > 1",
            Verdict::Unknown("site(\"x\\\\.y\").live_bytes is not known".into()),
        ),
        ("!(rss > 1) ? true : -rss < 0", Verdict::Yes),
    ] {
        assert_eq!(holds(condition, &values), want, "{condition}");
    }
}

/// Parts of conditions, to be put together in any way.
const PARTS: [&str; 24] = [
    "rss",
    "heap",
    ".live",
    "phase(\"a\").",
    "site(\"x\").",
    "alloc_bytes",
    "1",
    "2.5",
    "1u",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    " && ",
    " > ",
    "-",
    "!",
    " ? ",
    " : ",
    "\"\\",
    "has(",
    "\u{fc}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_condition_breaks_the_parser(parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..12)) {
        let text = format!("{TARGET}{PHASE}[[assert]]\nthat = '''{}'''\n", parts.concat());
        // It is a session, or it is said where it is none.
        if let Err(e) = parse(&text, &[]) {
            prop_assert!(e.to_string().starts_with("s.toml:7:"), "{e}");
        }
    }
}
