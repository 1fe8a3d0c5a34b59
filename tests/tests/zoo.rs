//! The leak zoo: each leak is named with its kind and site, and no healthy twin is accused.

use anyhow::{Context, Result, ensure};
use tests::{NEWEST, Variant, heaptap};
use xtask::zoo::{self, Animal, Found, Program, Severity};

/// What a hunt found that is worth a ticket.
fn told(found: &Found) -> Vec<String> {
    found.findings.iter().filter(|f| f.severity != Severity::Info).map(ToString::to_string).collect()
}

mod privileged {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Most programs wait most of the time, and so does heaptap.
    fn at_a_time() -> usize {
        3 * std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// What is wrong about a hunt of a program.
    fn wrong(animal: &Animal, program: Program, executable: &Path) -> Result<Option<String>> {
        let name = format!("{} {}", animal.name(), program.name());
        let mut args = vec!["--mode", "exact", "--for"];
        args.extend(if program == Program::Leak { &["60s", "--until-sure"][..] } else { &["20s"] });
        let found = animal.hunt(executable, heaptap(), &args).context(name.clone())?;
        let grade = animal.grade(program, &found);
        Ok((!grade.is_right()).then(|| format!("{name}: {grade}; {}", found.verdict.summary)))
    }

    #[test]
    fn each_leak_is_named_with_kind_and_site_and_no_twin_is_accused() -> Result<()> {
        let animals = zoo::animals()?;
        let mut jobs = Vec::new();
        for animal in &animals {
            for program in Program::BOTH {
                let executable = animal.build(program, NEWEST, Variant::Stripped)?;
                jobs.push((animal, program, executable));
            }
        }
        let said = zoo::in_parallel(jobs, at_a_time(), |(animal, program, executable)| {
            let said = wrong(animal, program, &executable)?;
            Ok(said.map(|said| (animal, program, executable, said)))
        });
        let said: Vec<_> = said.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        // Several at a time disturb each other: where a leak's rate falls, so does how sure a hunt is.
        // One that was not named is to be named alone; a twin that was accused stays accused.
        let mut all = Vec::new();
        for (animal, program, executable, said) in said {
            match program {
                Program::Leak => all.extend(wrong(animal, program, &executable)?),
                Program::Twin => all.push(said),
            }
        }
        ensure!(all.is_empty(), "\n{}", all.join("\n"));
        Ok(())
    }

    #[test]
    fn three_leaks_at_once_are_three_findings_and_a_cache_that_fills_is_none() -> Result<()> {
        let program = zoo::build(&zoo::dir().join("mixed/service.go"), NEWEST, Variant::Stripped, &[])?;
        let found = zoo::hunt(&mut Command::new(program), heaptap(), &["--mode", "exact", "--for", "40s"])?;
        let ranked =
            ["slice-retention at main.receive", "goroutine at main.query", "map-growth at main.newSession"];
        ensure!(told(&found) == ranked, "{:#?}", told(&found));
        Ok(())
    }

    #[test]
    fn load_that_goes_up_and_down_is_no_leak() -> Result<()> {
        let program = zoo::build(&zoo::dir().join("steps/service.go"), NEWEST, Variant::Stripped, &[])?;
        let mut steps = Command::new(program);
        let found = zoo::hunt(steps.arg("4s"), heaptap(), &["--mode", "exact", "--for", "30s"])?;
        ensure!(told(&found).is_empty() && !found.leaks(), "{:#?}", found.findings);
        Ok(())
    }
}
