//! The program `heaptap`: parses arguments, runs one command, exits with its code.

use std::process::ExitCode;

use clap::Parser;
use tracer::cli;

fn main() -> ExitCode {
    ExitCode::from(cli::run(&cli::args::Cli::parse()))
}
