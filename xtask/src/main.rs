//! heaptap's development tasks; `cargo xtask --help` lists them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks print results, and why they failed")]

mod bench;
mod build_ebpf;
mod ci;
mod demo;
mod fuzz;
mod gen_layouts;
mod hunt_zoo;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::go::GoLine;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "heaptap's development tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Attach to a leaky HTTP service and show where its heap goes (needs root)
    Demo(demo::Args),
    /// Run every test, the privileged ones included (needs root)
    Test(test::Args),
    /// Everything CI checks: format, lints, tidy, a rebuilt eBPF object, tests, fuzzing
    Ci(ci::Args),
    /// Check what the compiler does not: tiers, unsafe, file heads, doc links
    Tidy(tidy::Args),
    /// Hunt every leak of the zoo, and its healthy twin, and print the confusion matrix (needs root)
    Zoo(hunt_zoo::Args),
    /// Measure
    Bench(bench::Args),
    /// Run each fuzz target for a bounded time
    Fuzz(fuzz::Args),
    /// Find or install a Go toolchain and print the path of its `go`
    Go {
        /// As 1.27
        line: String,
    },
    /// Build the checked-in eBPF object from its sources
    BuildEbpf(build_ebpf::Args),
    /// Generate the tables of Go runtime struct layouts
    GenLayouts(gen_layouts::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Tidy(args) => tidy::run(&args),
        Task::Zoo(args) => hunt_zoo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Go { line } => {
            println!("{}", GoLine::parse(&line)?.go()?.display());
            Ok(())
        }
        Task::BuildEbpf(args) => build_ebpf::run(&args),
        Task::GenLayouts(args) => gen_layouts::run(&args),
    }
}
