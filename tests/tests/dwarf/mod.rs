//! Where DWARF says the parameters of runtime functions lie: an oracle for the dataflow.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result};
use gimli::{AttributeValue, EndianSlice, Expression, LittleEndian, Operation};
use object::{Object, ObjectSection};
use tracer::plan::Place;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = gimli::DebuggingInformationEntry<Slice<'a>>;

/// Locations of variables of allocation functions, by function and variable.
pub(crate) struct Locations(HashMap<(String, String), Vec<Range>>);

/// Where a variable lies while the program counter is in a range.
struct Range {
    pcs: std::ops::Range<u64>,
    place: Place,
}

impl Locations {
    pub(crate) fn read(executable: &[u8]) -> Result<Locations> {
        let file = object::File::parse(executable)?;
        let sections = gimli::DwarfSections::load(|id| -> Result<Cow<'_, [u8]>> {
            let section = file.section_by_name(id.name());
            Ok(section.map(|s| s.uncompressed_data()).transpose()?.unwrap_or_default())
        })?;
        let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
        let mut locations = Locations(HashMap::new());
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let unit = dwarf.unit(header)?;
            if unit.name.is_some_and(|name| name.slice() == b"runtime") {
                locations.read_unit(&dwarf, &unit)?;
            }
        }
        Ok(locations)
    }

    /// The register or frame slot that holds a variable at an address; `None` where
    /// DWARF does not say, or says something more complicated.
    pub(crate) fn place(&self, function: &str, variable: &str, address: u64) -> Option<Place> {
        let ranges = self.0.get(&(function.to_owned(), variable.to_owned()))?;
        ranges.iter().find(|range| range.pcs.contains(&address)).map(|range| range.place)
    }

    pub(crate) fn knows(&self, function: &str, variable: &str) -> bool {
        self.0.contains_key(&(function.to_owned(), variable.to_owned()))
    }

    fn read_unit<'a>(
        &mut self,
        dwarf: &gimli::Dwarf<Slice<'a>>,
        unit: &gimli::Unit<Slice<'a>>,
    ) -> Result<()> {
        let mut entries = unit.entries();
        // The subprogram that the entries met belong to, and where it stands in the tree.
        let mut function: Option<(String, isize)> = None;
        while let Some(entry) = entries.next_dfs()? {
            if function.as_ref().is_some_and(|(_, depth)| entry.depth() <= *depth) {
                function = None;
            }
            match entry.tag() {
                gimli::DW_TAG_subprogram => {
                    let name = name(dwarf, unit, entry)?.filter(|name| name.starts_with("runtime.mallocgc"));
                    function = name.map(|name| (name, entry.depth()));
                }
                // Parameters of calls inlined into the function lie deeper.
                gimli::DW_TAG_formal_parameter | gimli::DW_TAG_variable => {
                    let Some((function, depth)) = &function else { continue };
                    let parameter = entry.tag() == gimli::DW_TAG_formal_parameter;
                    let name = name(dwarf, unit, entry)?.unwrap_or_default();
                    if (parameter && entry.depth() == depth + 1) || name == "userSize" {
                        let ranges = ranges(dwarf, unit, entry)?;
                        self.0.entry((function.clone(), name)).or_default().extend(ranges);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn name<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &Entry<'a>,
) -> Result<Option<String>> {
    if let Some(name) = entry.attr_value(gimli::DW_AT_name) {
        return Ok(Some(dwarf.attr_string(unit, name)?.to_string_lossy().into_owned()));
    }
    let Some(AttributeValue::UnitRef(origin)) = entry.attr_value(gimli::DW_AT_abstract_origin) else {
        return Ok(None);
    };
    name(dwarf, unit, &unit.entry(origin)?)
}

fn ranges<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &Entry<'a>,
) -> Result<Vec<Range>> {
    let mut found = Vec::new();
    let Some(location) = entry.attr_value(gimli::DW_AT_location) else { return Ok(found) };
    if let AttributeValue::Exprloc(expression) = location {
        found.extend(place(unit, expression)?.map(|place| Range { pcs: 0..u64::MAX, place }));
    }
    let Some(mut list) = dwarf.attr_locations(unit, location)? else { return Ok(found) };
    while let Some(entry) = list.next()? {
        let pcs = entry.range.begin..entry.range.end;
        found.extend(place(unit, entry.data)?.map(|place| Range { pcs, place }));
    }
    Ok(found)
}

/// The place of an expression of one operation.
///
/// In a function with a frame the CFA, which Go's frame bases are, is rbp + 16.
fn place<'a>(unit: &gimli::Unit<Slice<'a>>, expression: Expression<Slice<'a>>) -> Result<Option<Place>> {
    let mut operations = expression.operations(unit.encoding());
    let first = operations.next()?;
    if operations.next()?.is_some() {
        return Ok(None);
    }
    Ok(match first {
        Some(Operation::Register { register }) => register_number(register.0).map(Place::Reg),
        Some(Operation::FrameOffset { offset }) => {
            Some(Place::Frame(i32::try_from(offset + 16).context("frame offset")?))
        }
        Some(Operation::CallFrameCFA) => Some(Place::Frame(16)),
        _ => None,
    })
}

/// The encoding number of a register that DWARF numbers otherwise (System V ABI, AMD64).
fn register_number(dwarf: u16) -> Option<u8> {
    const FIRST: [u8; 8] = [0, 2, 1, 3, 6, 7, 5, 4];
    FIRST.get(usize::from(dwarf)).copied().or_else(|| u8::try_from(dwarf).ok().filter(|n| *n < 16))
}
