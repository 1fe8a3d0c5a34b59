//! The leak zoo hunted through: what heaptap says of each leak and each healthy twin, as a
//! confusion matrix.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask::go::{self, GoLine};
use xtask::shell;
use xtask::targets::Variant;
use xtask::zoo::{self, Animal, Found, Grade, Program};

/// What `cargo xtask zoo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go lines to build the programs with: a list as `1.24,1.27`
    #[arg(long, value_name = "LINES", default_value = "1.27")]
    go: String,
    /// The lane: `exact`, or what heaptap chooses
    #[arg(long, default_value = "exact", value_parser = ["exact", "auto"])]
    mode: String,
    /// How the programs are built
    #[arg(long, value_delimiter = ',', default_value = "plain,stripped", value_parser = variant)]
    variant: Vec<Variant>,
    /// Only these kinds, or programs that are named otherwise
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<String>,
    /// The length of a hunt; that of a leak ends when it is sure
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// How many programs are hunted at a time
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    /// Hunt only the service whose load goes up and down in steps, for ten minutes
    #[arg(long, conflicts_with = "only")]
    steps: bool,
}

fn variant(name: &str) -> Result<Variant> {
    match name {
        "plain" => Ok(Variant::Plain),
        "stripped" => Ok(Variant::Stripped),
        _ => bail!("neither plain nor stripped"),
    }
}

/// One program to be hunted.
struct Job<'a> {
    animal: &'a Animal,
    program: Program,
    line: GoLine,
    variant: Variant,
    executable: PathBuf,
}

/// What came of it.
struct Hunted<'a> {
    job: Job<'a>,
    grade: Grade,
    found: Found,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("attaching needs root: run `sudo -E cargo xtask zoo`");
    }
    let heaptap = heaptap()?;
    if args.steps {
        return hunt_steps(args, &heaptap);
    }
    let animals = chosen(&args.only)?;
    let length = args.length.as_deref().unwrap_or(if args.mode == "exact" { "60s" } else { "3m" });
    let hunts = zoo::in_parallel(jobs(args, &animals)?, args.parallel, |job| {
        let mut hunting = vec!["--mode", &args.mode, "--for", length];
        if job.program == Program::Leak {
            hunting.push("--until-sure");
        }
        let name = job.name();
        let found = job.animal.hunt(&job.executable, Command::new(&heaptap), &hunting).context(name)?;
        let grade = job.animal.grade(job.program, &found);
        let hunted = Hunted { job, grade, found };
        eprintln!("{hunted}");
        Ok(hunted)
    });
    let hunts: Vec<Hunted> = hunts.into_iter().collect::<Result<_>>()?;
    print!("{}", matrix(&animals, &hunts));
    let wrong = hunts.iter().filter(|hunted| !hunted.grade.is_right()).count();
    if wrong > 0 {
        bail!("{wrong} of {} are wrong", hunts.len());
    }
    Ok(())
}

/// Hunts a service without a leak; its steps take a minute each.
fn hunt_steps(args: &Args, heaptap: &Path) -> Result<()> {
    let length = args.length.as_deref().unwrap_or("10m");
    for line in go::parse_lines(&args.go)? {
        let program = zoo::build(&zoo::dir().join("steps/service.go"), line, Variant::Stripped, &[])?;
        let hunting = ["--mode", &args.mode, "--for", length];
        let found = zoo::hunt(&mut Command::new(program), Command::new(heaptap), &hunting)?;
        let told: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        println!("Go {line}: {} Findings: {}", found.verdict.summary, told.len());
        if !told.is_empty() {
            bail!("a service without a leak is accused: {}", told.join(", "));
        }
    }
    Ok(())
}

/// The program `heaptap`: `HEAPTAP_BIN`, else the one that is built here.
fn heaptap() -> Result<PathBuf> {
    if let Some(built) = std::env::var_os("HEAPTAP_BIN") {
        return Ok(built.into());
    }
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    Ok(shell::root().join("target/release/heaptap"))
}

fn chosen(only: &[String]) -> Result<Vec<Animal>> {
    let mut animals = zoo::animals()?;
    if let Some(unknown) = only.iter().find(|kind| animals.iter().all(|animal| animal.name() != **kind)) {
        bail!("no kind {unknown:?} in the zoo");
    }
    animals.retain(|animal| only.is_empty() || only.iter().any(|name| name == animal.name()));
    Ok(animals)
}

fn jobs<'a>(args: &Args, animals: &'a [Animal]) -> Result<Vec<Job<'a>>> {
    let mut jobs = Vec::new();
    for line in go::parse_lines(&args.go)? {
        for &variant in &args.variant {
            for animal in animals {
                for program in Program::BOTH {
                    let executable = animal.build(program, line, variant)?;
                    jobs.push(Job { animal, program, line, variant, executable });
                }
            }
        }
    }
    Ok(jobs)
}

impl Job<'_> {
    fn name(&self) -> String {
        format!("{} {}, Go {} {}", self.animal.name(), self.program.name(), self.line, self.variant)
    }
}

impl std::fmt::Display for Hunted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.found.capture.duration_s;
        write!(f, "{}: {} ({seconds:.0} s; {})", self.job.name(), self.grade, self.found.verdict.summary)
    }
}

/// The confusion matrix in Markdown: a row for each kind, with what was said how often.
fn matrix(animals: &[Animal], hunts: &[Hunted]) -> String {
    let mut text =
        "| kind | leak | after | growth, of what it is | twin |\n| --- | --- | --: | --: | --- |\n"
            .to_owned();
    for animal in animals {
        let of = |program| {
            hunts.iter().filter(move |h| h.job.animal.name() == animal.name() && h.job.program == program)
        };
        text += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            animal.name(),
            tally(of(Program::Leak)),
            range(of(Program::Leak).map(|h| h.found.capture.duration_s), " s"),
            range(of(Program::Leak).filter_map(Hunted::growth_percent), "%"),
            tally(of(Program::Twin)),
        );
    }
    let right = hunts.iter().filter(|hunted| hunted.grade.is_right()).count();
    text + &format!("\n{right} of {} right.\n", hunts.len())
}

impl Hunted<'_> {
    /// How fast the leak is said to grow, in percent of how fast it grows.
    fn growth_percent(&self) -> Option<f64> {
        let finding = self.found.findings.iter().find(|f| f.kind == self.job.animal.kind)?;
        let known = self.job.animal.bytes_per_s;
        (known > 0).then(|| 100.0 * finding.growth_bytes_per_s / known as f64)
    }
}

/// Each grade with how often it was given.
fn tally<'a>(hunts: impl Iterator<Item = &'a Hunted<'a>>) -> String {
    let mut grades: BTreeMap<String, usize> = BTreeMap::new();
    for hunted in hunts {
        *grades.entry(hunted.grade.to_string()).or_default() += 1;
    }
    grades.iter().map(|(grade, count)| format!("{count} {grade}")).collect::<Vec<_>>().join("; ")
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>, unit: &str) -> String {
    let bounds = values.fold(None, |bounds: Option<(f64, f64)>, value| {
        let (least, greatest) = bounds.unwrap_or((value, value));
        Some((least.min(value), greatest.max(value)))
    });
    bounds.map_or(String::new(), |(least, greatest)| format!("{least:.0}–{greatest:.0}{unit}"))
}
