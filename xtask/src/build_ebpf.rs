//! Builds the eBPF object and its sidecar, and installs what that takes.
//!
//! `core` has to be compiled for the BPF target, so the compiler must come with its
//! sources; `bpf-linker` links with an LLVM at least as new as the compiler's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xtask::ebpf::{Sidecar, object_path, sha256, sidecar_path, sources};
use xtask::shell::{apt_install, cargo, output, root, run as run_command, succeeds};

/// What `cargo xtask build-ebpf` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build, compare with the checked-in object, write nothing
    #[arg(long)]
    pub(crate) check: bool,
}

const TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler with its sources, and the LLVM it was built with.
const DEBIAN_PACKAGES: [&str; 6] =
    ["rustc-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = Toolchain::find_or_install()?;
    let object = toolchain.build()?;
    let sidecar = Sidecar {
        object: sha256(&object),
        rustc: toolchain.rustc_version()?,
        linker: output(Command::new(&toolchain.linker).arg("--version"))?.trim().to_owned(),
        sources: sources()?,
    };
    if args.check {
        return compare(&sidecar);
    }
    fs::create_dir_all(object_path().parent().context("no directory")?)?;
    fs::write(object_path(), object)?;
    fs::write(sidecar_path(), serde_json::to_string_pretty(&sidecar)? + "\n")?;
    println!("wrote {} ({})", object_path().display(), sidecar.rustc);
    Ok(())
}

/// Whether what was built is what is checked in.
fn compare(built: &Sidecar) -> Result<()> {
    let checked_in = Sidecar::read()?;
    if checked_in.sources != built.sources {
        bail!("the checked-in eBPF object is older than its sources; run: cargo xtask build-ebpf");
    }
    if sha256(&fs::read(object_path())?) != checked_in.object {
        bail!("the checked-in eBPF object is not the one its sidecar names; run: cargo xtask build-ebpf");
    }
    if (&checked_in.rustc, &checked_in.linker) != (&built.rustc, &built.linker) {
        println!("it builds; its bytes are not compared: checked in is a build by {}", checked_in.rustc);
    } else if checked_in.object != built.object {
        bail!("the same toolchain builds another object from the same sources");
    } else {
        println!("the checked-in eBPF object is what its sources give");
    }
    Ok(())
}

/// A compiler that comes with its sources, and a linker to match.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// What is there is used: Debian's compiler, else a rustup nightly with `rust-src`. Else the
    /// former is installed, or the latter where there is no such package.
    ///
    /// Not the other way round: `bpf-linker` has to be linked with an LLVM as new as the
    /// compiler's, which Debian has for its own, but nobody for each nightly.
    fn find_or_install() -> Result<Toolchain> {
        if let Some(found) = Toolchain::debian().or_else(Toolchain::nightly) {
            return Ok(found);
        }
        if let Err(e) = Toolchain::install_debian() {
            println!("{e:#}; trying a nightly of rustup");
            let mut nightly = Command::new("rustup");
            nightly.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
            run_command(nightly.args(["--component", "rust-src"]))?;
            if linker().is_none() {
                run_command(cargo().args(["install", "--locked", "bpf-linker"]))?;
            }
        }
        let found = Toolchain::debian().or_else(Toolchain::nightly);
        found.context("no compiler with its sources, from neither apt-get nor rustup")
    }

    fn install_debian() -> Result<()> {
        apt_install(&DEBIAN_PACKAGES)?;
        if linker().is_some() {
            return Ok(());
        }
        let mut install = cargo();
        install.args(["install", "bpf-linker", "--version", "0.13.0"]);
        install.args(["--no-default-features", "--features", "llvm-22"]);
        run_command(install.env("LLVM_PREFIX", DEBIAN_LLVM))
    }

    /// A toolchain named nightly may well be there without its sources.
    fn nightly() -> Option<Toolchain> {
        let which = |program| {
            let mut rustup = Command::new("rustup");
            rustup.args(["which", "--toolchain", "nightly", program]).stderr(Stdio::null());
            let out = rustup.output().ok().filter(|out| out.status.success())?;
            Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
        };
        Toolchain { cargo: which("cargo")?, rustc: which("rustc")?, linker: linker()? }.if_it_has_sources()
    }

    fn debian() -> Option<Toolchain> {
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        Toolchain { cargo: cargo().get_program().into(), rustc, linker: linker()? }.if_it_has_sources()
    }

    fn if_it_has_sources(self) -> Option<Toolchain> {
        let out = Command::new(&self.rustc).args(["--print", "sysroot"]).output().ok()?;
        let sysroot = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
        sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists().then_some(self)
    }

    fn rustc_version(&self) -> Result<String> {
        Ok(output(Command::new(&self.rustc).arg("--version"))?.trim().to_owned())
    }

    /// Compiles `tracer-ebpf` and returns the object.
    ///
    /// Without debug information, so that no path of this machine is in it and the same
    /// toolchain gives the same bytes anywhere.
    fn build(&self) -> Result<Vec<u8>> {
        let target_dir = root().join("tracer-ebpf/target");
        let flags = format!("-C linker={} -C debuginfo=0", self.linker.display());
        let mut build = Command::new(&self.cargo);
        build.current_dir(root().join("tracer-ebpf")).args(["build", "--release", "--locked"]);
        build.args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"]).arg(&target_dir);
        build.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
        // The compiler is the one chosen here, and these would choose or wrap another.
        build
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        run_command(&mut build).context("building the eBPF program")?;
        let object = target_dir.join(TARGET).join("release/heaptap");
        fs::read(&object).with_context(|| format!("reading {}", object.display()))
    }
}

/// `bpf-linker`, on the path or where cargo installs it.
fn linker() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    [PathBuf::from("bpf-linker"), home.join("bin/bpf-linker")]
        .into_iter()
        .find(|linker| succeeds(Command::new(linker).arg("--version")))
}
