//! The findings of a page, which read as the report of an incident: what, how sure, why, what to do.

use maud::{Markup, html};

use super::super::findings::{heading, place, stages, verdict};
use super::super::printable;
use super::chart;
use crate::report::{Evidence, Finding, Report, Stage};

pub(super) fn section(report: &Report) -> Markup {
    html! {
        @if let Some(said) = &report.verdict {
            section #findings aria-labelledby="findings-title" {
                h2 #findings-title { "Verdict and findings" }
                p.verdict { strong { (printable(&verdict(said))) } }
                p.hint { "Stages: " (stages(said)) ". GC cycles judged: " (said.judged_gc_cycles) "." }
                @for finding in &report.findings { (one(finding, &said.stages)) }
            }
        }
    }
}

fn one(finding: &Finding, stages: &[Stage]) -> Markup {
    html! {
        article.finding {
            h3 { (heading(finding)) }
            p { (printable(&finding.summary)) }
            ol.stack { @for frame in &finding.frames { li { code { (printable(&place(frame))) } } } }
            ul { @for evidence in &finding.evidence { li { (shown(evidence, stages)) } } }
            p { strong { "To do: " } (printable(&finding.advice)) }
            p { strong { "Wrong if: " } (printable(&finding.disproof)) }
        }
    }
}

fn shown(evidence: &Evidence, stages: &[Stage]) -> Markup {
    html! {
        (printable(&evidence.what))
        @if let Some(series) = evidence.series.as_ref().filter(|series| series.points.len() > 1) {
            (chart::series(series, stages))
        }
    }
}
