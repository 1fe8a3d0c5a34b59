//! Who holds objects of real Go processes, against what these say of themselves.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{GoLine, PATIENCE, Process, Variant, build, check_programs, matrix};
use tracer::memory::LiveMemory;
use tracer::runtime::references::{Container, Held, Look, Map, Place, ReferenceReader, Root, Wanted};
use tracer::runtime::{Layout, slot_size};
use tracer::target::identify;

/// An object that the target program tells of.
#[derive(Debug)]
struct Told {
    kind: String,
    addr: u64,
    size: u64,
    pointerful: bool,
}

fn parse(line: &str) -> Option<Told> {
    let mut fields = line.split('\t');
    let kind = fields.next()?.to_owned();
    let addr = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(Told { kind, addr, size: fields.next()?.parse().ok()?, pointerful: fields.next()? == "true" })
}

impl Told {
    fn wanted(&self, layout: &Layout) -> Wanted {
        let size = slot_size(self.size, self.pointerful, layout.malloc_headers);
        let page = self.addr - self.addr % 8192;
        Wanted { name: page + self.addr % 8192 / size * size, size }
    }
}

/// What was found in a process, and how to ask more.
struct Looked {
    reader: ReferenceReader,
    memory: LiveMemory,
    look: Look,
}

impl Looked {
    fn map(&self, container: Option<Container>) -> Option<&Map> {
        match container {
            Some(Container::Map(map)) => self.look.maps.get(map),
            _ => None,
        }
    }

    /// Whether the first holder is a map with so many entries, that has the object as a key or not.
    fn is_in_map(&self, held: &Held, is_key: bool) -> Result<()> {
        let holder = held.holders.first().context("no holder")?;
        let map = self.map(holder.container).context("not a map")?;
        ensure!(map.count == 3000 && (3000..=8192).contains(&map.capacity), "{map:?}");
        let (_, offset) = holder.entry.context("no entry")?;
        // Where the runtime does not say what the tables are made of, others must.
        if let Some(type_addr) = self.look.table_types.get(&map.addr) {
            let table = self.reader.map_table(&self.memory, *type_addr).context("not a table's type")?;
            ensure!(table.is_key(offset) == is_key, "{table:?} {offset}");
        } else {
            ensure!(map.is_key(offset) == is_key.then_some(true), "{map:?} {offset}");
        }
        Ok(())
    }

    fn check(&self, kind: &str, held: &Held) -> Result<()> {
        let has = |container| held.holders.iter().any(|holder| holder.container == Some(container));
        let last = held.holders.last().map(|last| last.place);
        let slices = || held.references.iter().map(|r| (r.offset, r.len));
        match kind {
            "value" => self.is_in_map(held, false)?,
            "key" => self.is_in_map(held, true)?,
            "body" => {
                let map = held.holders.get(1).and_then(|holder| self.map(holder.container));
                ensure!(map.is_some_and(|map| map.count == 3000), "{map:?}");
                ensure!(slices().any(|slice| slice == (0, Some(48))));
            }
            "head" => ensure!(slices().any(|slice| slice == (1000, Some(16)))),
            "prefix" => ensure!(slices().any(|slice| slice == (0, Some(8)))),
            "job" => {
                let channel = self.look.channels.iter().position(|c| (c.count, c.capacity) == (90, 100));
                ensure!(channel.is_some_and(|channel| has(Container::Channel(channel))), "{channel:?}");
            }
            "node" => ensure!(held.holders.len() == 3),
            "pooled" => ensure!(has(Container::Pool)),
            "stack" => return ensure_that(matches!(last, Some(Place::Root(Root::Stack(_), _)))),
            _ => ensure!(false, "unknown"),
        }
        ensure_that(matches!(last, Some(Place::Root(Root::Global, _))))
    }
}

fn ensure_that(holds: bool) -> Result<()> {
    ensure!(holds, "the way ends elsewhere");
    Ok(())
}

fn check_holders(line: GoLine, variant: Variant) -> Result<()> {
    let mut process = Process::spawn(&mut Command::new(build("holders", line, variant)?))?;
    let mut told = Vec::new();
    loop {
        let text = process.stdout_line(|_| true, PATIENCE)?;
        match parse(&text) {
            Some(object) => told.push(object),
            None => break ensure!(text == "ready", "{text}"),
        }
    }
    let pid = i32::try_from(process.pid())?;
    let it = identify(pid, None)?;
    let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
    let reader = ReferenceReader::new(&it.binary, &layout, it.target.load_bias)?;
    let memory = LiveMemory::new(pid);
    let wanted: Vec<Wanted> = told.iter().map(|told| told.wanted(&layout)).collect();
    let look = reader.look(&memory, &wanted)?;
    let looked = Looked { reader, memory, look };
    for (told, held) in told.iter().zip(&looked.look.held) {
        let held = held.as_ref().with_context(|| format!("{told:x?} is not there"))?;
        looked.check(&told.kind, held).with_context(|| format!("{} of {held:x?}", told.kind))?;
    }
    // Maps that were emptied: one with ten entries left, many with none.
    let emptied = |count: u64, room: u64| {
        looked.look.maps.iter().filter(|map| map.count == count && map.capacity >= room).count()
    };
    ensure!(emptied(10, 3000) == 1 && emptied(0, 400) > 20, "{:x?}", looked.look.maps);
    Ok(())
}

/// heaptap reads a process that is not its child.
mod privileged {
    use super::*;

    #[test]
    fn holders_are_found() -> Result<()> {
        check_programs(matrix()?, check_holders)
    }
}
