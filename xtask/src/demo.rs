//! The demonstration: a leaky HTTP service, stripped, attached to while it is under load.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::process::Process;
use xtask::targets::Variant;
use xtask::{go, shell, targets};

/// What `cargo xtask demo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to record, as 10s
    #[arg(long, default_value = "10s")]
    duration: String,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// The load is meant to be a busy service's, not the most this machine can do.
const PAUSE_BETWEEN_REQUESTS: Duration = Duration::from_millis(1);

/// A mix of requests: mostly healthy ones, some that leak.
const REQUESTS: [&str; 8] = [
    "/search?q=heap",
    "/search?q=stack",
    "/login?user=gopher",
    "/search?q=span",
    "/upload",
    "/search?q=mark",
    "/search?q=sweep",
    "/subscribe",
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("attaching needs root: run `sudo -E cargo xtask demo`");
    }
    let service = targets::build("leakyhttp", go::NEWEST, Variant::Stripped)?;
    // Not optimised: on a fresh machine the difference is two minutes of compiling.
    shell::run(shell::cargo().args(["build", "--package", "tracer"]))?;
    let heaptap = || Command::new(shell::root().join("target/debug/heaptap"));
    let out = shell::root().join("target/demo");
    fs::create_dir_all(&out)?;
    let (capture, pprof) = (out.join("demo.heaptap"), out.join("demo.pprof.gz"));

    let mut service = Process::spawn(&mut Command::new(service))?;
    let address = listening_address(&mut service)?;
    println!("a leaky HTTP service runs as process {} on {address}; attaching to it", service.pid());

    let mut record = heaptap();
    record
        .args([
            "record",
            "--mode",
            "exact",
            "--pid",
            &service.pid().to_string(),
            "--for",
            &args.duration,
            "-o",
        ])
        .arg(&capture);
    let mut record = Process::spawn(&mut record)?;
    record.stderr_line(|line| line.starts_with("recording"), PATIENCE)?;

    let over = AtomicBool::new(false);
    let requests = AtomicU64::new(0);
    let recorded = std::thread::scope(|scope| {
        let load = scope.spawn(|| drive(address, &over, &requests));
        // The duration asked for is heaptap's to keep; this bounds a heaptap that hangs.
        let recorded = record.wait(Duration::from_secs(170));
        over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow::anyhow!("the load failed"))??;
        recorded
    })?;
    if !recorded.status.success() {
        bail!("heaptap record failed: {}\n{}", recorded.status, recorded.stderr);
    }
    println!("{}served {} requests meanwhile\n", recorded.stderr, requests.load(Ordering::Relaxed));

    shell::run(heaptap().arg("report").arg(&capture).args(["--sort", "inuse-bytes", "--limit", "15"]))?;
    shell::run(heaptap().arg("report").arg(&capture).args(["--format", "pprof", "-o"]).arg(&pprof))?;
    println!("\nwrote {}; look at it with: go tool pprof -http=: {0}", pprof.display());
    Ok(())
}

fn listening_address(service: &mut Process) -> Result<SocketAddr> {
    const PREFIX: &str = "listening on ";
    let line = service.stdout_line(|line| line.starts_with(PREFIX), PATIENCE)?;
    let address: SocketAddr = line[PREFIX.len()..].parse().context("the service's address")?;
    if address.ip() != Ipv4Addr::LOCALHOST {
        bail!("the service listens on {address}, not on the loopback address");
    }
    Ok(address)
}

/// Sends one request after the other until `over`.
fn drive(address: SocketAddr, over: &AtomicBool, requests: &AtomicU64) -> Result<()> {
    for path in REQUESTS.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        get(address, path).with_context(|| format!("GET {path}"))?;
        requests.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE_BETWEEN_REQUESTS);
    }
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    if !response.starts_with(b"HTTP/1.0 200") {
        bail!("unexpected response: {}", String::from_utf8_lossy(&response));
    }
    Ok(())
}
