//! The live source on real processes, with plans written by hand: every event arrives,
//! loss is counted, and detaching leaves nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::{GoLine, PATIENCE, Process, Variant, build, start_target};
use tracer::binary::Binary;
use tracer::event::{Alloc, Event, StackId, UNKNOWN_SLOT};
use tracer::plan::{CostClass, Place, ProbePlan, Purpose, Recipe, Site};
use tracer::source::live::{Allocations, AttachOptions, LiveSource, Method};

/// The program `steps` of one Go line, running.
struct Target {
    path: PathBuf,
    binary: Binary,
    plan: ProbePlan,
    process: Process,
}

impl Target {
    fn start(go: &str) -> Result<Target> {
        let line = GoLine::parse(go)?;
        let path = build("steps", line, Variant::Plain)?;
        let binary = Binary::parse(std::fs::read(&path)?.into())?;
        let plan = plan(&binary, line)?;
        let process = start_target(&path, &[])?;
        Ok(Target { path, binary, plan, process })
    }

    fn options(&self, method: Method) -> AttachOptions<'_> {
        AttachOptions {
            pid: self.process.pid(),
            plan: &self.plan,
            load_bias: 0,
            gc_addresses: None,
            curg: None,
            g_goid: 0,
            step_traps: 1,
            sampler: None,
            c: None,
            ring_bytes: 16 << 20,
            max_depth: 128,
            bpf_log: false,
            method,
            baseline: false,
            allocations: Allocations::Sent,
        }
    }

    fn attach(&self, method: Method) -> Result<LiveSource> {
        Ok(LiveSource::attach(&self.options(method))?)
    }

    /// Probes, as the last site, any instruction that is passed once a GC cycle with the
    /// world stopped: the first one behind the stack check of freeStackSpans, `push %rbp`.
    fn add_epoch_site(&mut self) -> Result<()> {
        let start = self.binary.functions()?.by_name("runtime.freeStackSpans").context("no function")?.start;
        let code = self.binary.read(start, 64).context("no code")?;
        let push = code.iter().position(|byte| *byte == 0x55).context("no push %rbp")? as u64;
        let mut site = self.plan.sites[0].clone();
        site.address = start + push;
        site.file_offset = self.binary.file_offset(site.address).context("not in the file")?;
        site.purpose = Purpose::GcEpoch;
        self.plan.sites.push(site);
        Ok(())
    }

    /// Has the target do something, and awaits that it is done.
    fn tell(&mut self, command: &str) -> Result<()> {
        self.process.send(command)?;
        self.process.stdout_line(|line| line == "done", PATIENCE)?;
        Ok(())
    }

    /// The code at each site as it is in the process now; five bytes hold any probe.
    fn code(&self) -> Result<Vec<[u8; 5]>> {
        let memory = File::open(format!("/proc/{}/mem", self.process.pid()))?;
        let read = |site: &Site| {
            let mut bytes = [0; 5];
            memory.read_exact_at(&mut bytes, site.address)?;
            Ok(bytes)
        };
        self.plan.sites.iter().map(read).collect()
    }
}

/// Sites at offsets found by hand in the runtime of exactly these releases, GOAMD64=v1.
fn plan(binary: &Binary, line: GoLine) -> Result<ProbePlan> {
    let alloc =
        |ptr, slot| Purpose::Alloc(Recipe { ptr, size: Place::Frame(16), type_: Place::Frame(24), slot });
    let (rax, rbx) = (Place::Reg(0), Place::Reg(3));
    let sites = match line.version {
        // `call publicationBarrier`; the `jne` behind `m.locks--` where a tiny object fits.
        "1.23.9" => {
            vec![(1720, alloc(Place::Stack(112), Place::None)), (547, alloc(rax, Place::Const(0)))]
        }
        // The `jcc` behind the last test of gcBlackenEnabled.
        "1.26.6" => vec![(218, alloc(rax, rbx))],
        "1.27.3" => vec![(289, alloc(rax, rbx))],
        other => anyhow::bail!("no sites are known for Go {other}"),
    };
    let start = binary.functions()?.by_name("runtime.mallocgc").context("no mallocgc")?.start;
    let site = |(offset, purpose): (u32, Purpose)| {
        let address = start + u64::from(offset);
        Ok(Site {
            function: "runtime.mallocgc".to_owned(),
            offset,
            address,
            file_offset: binary.file_offset(address).context("not in the file")?,
            instruction: String::new(),
            cost: CostClass::Emulated,
            purpose,
        })
    };
    let sites = sites.into_iter().map(site).collect::<Result<_>>()?;
    Ok(ProbePlan { sites, ..ProbePlan::default() })
}

/// Everything a detached source still sends.
#[derive(Debug, Default)]
struct Received {
    allocs: Vec<Alloc>,
    stacks: HashMap<StackId, Vec<u64>>,
    epochs: Vec<u32>,
    lost_events: HashMap<u32, u64>,
    lost_stacks: HashMap<u32, u64>,
}

impl Received {
    fn rest_of(mut source: LiveSource) -> Received {
        source.detach();
        let mut received = Received::default();
        while let Some(batch) = source.blocking_recv() {
            for event in batch {
                received.take(event);
            }
        }
        received
    }

    #[expect(clippy::panic, reason = "a live source sends no other events")]
    fn take(&mut self, event: Event) {
        match event {
            Event::Alloc(alloc) => self.allocs.push(alloc),
            Event::Stack { id, pcs } => _ = self.stacks.insert(id, pcs),
            Event::GcEpoch { epoch, .. } => self.epochs.push(epoch),
            Event::Lost { cpu, events, stacks } => {
                self.lost_events.insert(cpu, events);
                self.lost_stacks.insert(cpu, stacks);
            }
            other => panic!("not an event of a live source: {other:?}"),
        }
    }

    fn lost(&self) -> u64 {
        self.lost_events.values().chain(self.lost_stacks.values()).sum()
    }

    /// The allocations that `main.allocate` asks for, going by their stacks: it is the
    /// caller, or that of `runtime.newobject`. Further up it stands also where one of its
    /// allocations began a collection, which makes the runtime allocate (`gcStart`).
    fn by_allocate(&self, target: &Target) -> Result<Vec<Alloc>> {
        let functions = target.binary.functions()?;
        let allocate = functions.by_name("main.allocate").context("no main.allocate")?;
        let inside = |pc: &u64| (allocate.start..allocate.end).contains(pc);
        let of_allocate: HashSet<StackId> =
            self.stacks.iter().filter(|(_, pcs)| pcs.iter().take(2).any(inside)).map(|(id, _)| *id).collect();
        Ok(self.allocs.iter().filter(|alloc| of_allocate.contains(&alloc.stack)).copied().collect())
    }
}

mod privileged {
    use super::*;

    /// All objects of several threads arrive, each with all its values.
    fn check_every_allocation_arrives(go: &str, method: Method, baseline: bool) -> Result<()> {
        let mut target = Target::start(go)?;
        let source = LiveSource::attach(&AttachOptions { baseline, ..target.options(method) })?;
        ensure!(source.method() == method, "attached by {:?}", source.method());
        target.tell("alloc 5000 4")?;
        target.tell("gc")?;
        target.tell("alloc 5000 1")?;
        let received = Received::rest_of(source);

        let allocs = received.by_allocate(&target)?;
        ensure!(allocs.len() == 25_000, "{} allocations", allocs.len());
        ensure!(received.lost() == 0, "lost {}", received.lost());
        for alloc in &received.allocs {
            ensure!(received.stacks.contains_key(&alloc.stack), "no stack for {alloc:?}");
        }
        let types: HashSet<u64> = allocs.iter().map(|alloc| alloc.type_addr).collect();
        ensure!(types.len() == 1 && !types.contains(&0), "types {types:x?}");
        let mut goroutines: HashMap<u64, usize> = HashMap::new();
        allocs.iter().for_each(|alloc| *goroutines.entry(alloc.goroutine).or_default() += 1);
        // One that begins later may get the descriptor of one that has ended.
        let whole = goroutines.iter().all(|(descriptor, made)| *descriptor != 0 && made % 5000 == 0);
        ensure!(whole, "goroutines {goroutines:x?}");
        let slot = if go == "1.23" { UNKNOWN_SLOT } else { 160 };
        for alloc in &allocs {
            ensure!(alloc.size == 160 && alloc.slot == slot && alloc.ptr % 16 == 0, "{alloc:?}");
        }
        let mut times = allocs.iter().map(|alloc| (alloc.cpu, alloc.time_ns)).collect::<Vec<_>>();
        times.sort_by_key(|(cpu, _)| *cpu);
        ensure!(times.is_sorted(), "the events of one CPU are not in order of time");
        Ok(())
    }

    #[test]
    fn every_allocation_arrives_by_one_link() -> Result<()> {
        ["1.23", "1.26", "1.27"]
            .into_iter()
            .try_for_each(|go| check_every_allocation_arrives(go, Method::Multi, false).context(go))
    }

    #[test]
    fn every_allocation_arrives_by_perf_events() -> Result<()> {
        ["1.23", "1.26", "1.27"]
            .into_iter()
            .try_for_each(|go| check_every_allocation_arrives(go, Method::Perf, false).context(go))
    }

    /// As on kernels without attach cookies and computed offsets into the program's stack.
    #[test]
    fn every_allocation_arrives_when_sites_are_found_baseline() -> Result<()> {
        check_every_allocation_arrives("1.23", Method::Perf, true)?;
        check_every_allocation_arrives("1.26", Method::Multi, true)
    }

    #[test]
    fn stacks_are_whole_up_to_the_depth_asked_for() -> Result<()> {
        let mut target = Target::start("1.26")?;
        let below = |depth| {
            Ok::<_, anyhow::Error>(AttachOptions { max_depth: depth, ..target.options(Method::Multi) })
        };
        let (whole, cut) = (LiveSource::attach(&below(128)?)?, LiveSource::attach(&below(7)?)?);
        target.tell("deep 100")?;
        target.tell("deep 1000")?;
        let mut depths = Vec::new();
        for source in [whole, cut] {
            let received = Received::rest_of(source);
            let allocs = received.by_allocate(&target)?;
            depths.push(allocs.iter().map(|alloc| received.stacks[&alloc.stack].len()).collect::<Vec<_>>());
        }
        // newobject, allocate, 101 times descend, main.main, runtime.main, goexit.
        ensure!(depths == [[106, 128], [7, 7]], "{depths:?}");
        Ok(())
    }

    #[test]
    fn gc_epochs_are_counted_and_carried_by_the_allocations_behind_them() -> Result<()> {
        let mut target = Target::start("1.26")?;
        target.add_epoch_site()?;
        let source = target.attach(Method::Multi)?;
        target.tell("alloc 10 1")?;
        target.tell("gc")?;
        target.tell("gc")?;
        target.tell("alloc 10 1")?;
        let received = Received::rest_of(source);
        let epochs: Vec<u32> = received.by_allocate(&target)?.iter().map(|alloc| alloc.epoch).collect();
        ensure!(received.epochs == [1, 2], "{:?}", received.epochs);
        ensure!(epochs == [[0; 10], [2; 10]].concat(), "{epochs:?}");
        Ok(())
    }

    /// More than the ring and the channel behind it hold, while nobody receives.
    #[test]
    fn a_full_ring_costs_counted_events_and_not_the_targets_time() -> Result<()> {
        const OBJECTS: u64 = 600_000;
        let mut target = Target::start("1.26")?;
        let source =
            LiveSource::attach(&AttachOptions { ring_bytes: 64 << 10, ..target.options(Method::Multi) })?;
        target.tell(&format!("alloc {} 2", OBJECTS / 2))?;
        let received = Received::rest_of(source);
        let arrived = received.by_allocate(&target)?.len() as u64;
        ensure!(arrived < OBJECTS, "nothing was lost: is the test's ring too large?");
        // The runtime's own few are among either.
        let all = received.allocs.len() as u64 + received.lost_events.values().sum::<u64>();
        ensure!((OBJECTS..OBJECTS + 1000).contains(&all), "{all} of {OBJECTS}");
        Ok(())
    }

    #[test]
    fn detaching_leaves_the_code_as_it_was() -> Result<()> {
        for method in [Method::Multi, Method::Perf] {
            let mut target = Target::start("1.23")?;
            let original = target.code()?;
            let mut source = target.attach(method)?;
            for (site, (before, during)) in original.iter().zip(target.code()?).enumerate() {
                ensure!(*before != during, "{method:?}: no probe at site {site}");
            }
            source.detach();
            ensure!(target.code()? == original, "{method:?}: probes are still in place");
            target.tell("alloc 1000 1")?;
            let received = Received::rest_of(source);
            ensure!(received.by_allocate(&target)?.is_empty(), "{method:?}: events of a detached source");

            drop(target.attach(method)?);
            ensure!(target.code()? == original, "{method:?}: probes of a dropped source");
        }
        Ok(())
    }

    #[test]
    fn probes_on_allocations_come_off_alone() -> Result<()> {
        for method in [Method::Multi, Method::Perf] {
            let mut target = Target::start("1.26")?;
            target.add_epoch_site()?;
            let original = target.code()?;
            let mut source = target.attach(method)?;
            target.tell("alloc 10 1")?;
            source.detach_allocations();
            let changed: Vec<bool> =
                target.code()?.iter().zip(&original).map(|(now, was)| now != was).collect();
            ensure!(changed == [false, true], "{method:?}: {changed:?}");

            let hits = source.hits()?;
            target.tell("alloc 1000 1")?;
            target.tell("gc")?;
            ensure!(source.hits()? == hits + 1, "{method:?}: {} after {hits}", source.hits()?);
            let received = Received::rest_of(source);
            ensure!(received.by_allocate(&target)?.len() == 10, "{method:?}: {}", received.allocs.len());
            ensure!(received.epochs == [1], "{method:?}: {:?}", received.epochs);
        }
        Ok(())
    }

    #[test]
    fn a_deleted_executable_can_be_probed() -> Result<()> {
        let mut target = Target::start("1.27")?;
        let scratch = tempfile::tempdir()?;
        let copy = scratch.path().join("deleted");
        tests::copy_program(&target.path, &copy)?;
        target.process = start_target(&copy, &[])?;
        std::fs::remove_file(&copy)?;
        let source = target.attach(Method::Auto)?;
        target.tell("alloc 100 1")?;
        let received = Received::rest_of(source);
        ensure!(received.by_allocate(&target)?.len() == 100);
        Ok(())
    }

    #[test]
    fn a_process_that_has_ended_is_said_to_have() -> Result<()> {
        let mut target = Target::start("1.27")?;
        let gone = target.process.pid();
        target.process = start_target(Path::new(&target.path), &[])?;
        for method in [Method::Multi, Method::Perf] {
            let error = LiveSource::attach(&AttachOptions { pid: gone, ..target.options(method) });
            let error = error.err().context("attached to nothing")?;
            ensure!(error.to_string().contains("has ended"), "{method:?}: {error}");
            ensure!(error.kind() == tracer::base::ErrorKind::Failed, "{method:?}: {:?}", error.kind());
        }
        Ok(())
    }

    #[test]
    fn this_kernel_passes_every_check() {
        use tracer::source::live::doctor::{Verdict, checks};
        for check in checks() {
            assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        }
    }
}
