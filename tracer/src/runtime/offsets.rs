//! Where fields lie in the runtime's structs: from DWARF, or from measured tables.

use std::collections::{HashMap, HashSet};

use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian, UnitRef};

use super::version::GoVersion;
use crate::binary::Binary;

/// Measured offsets; its head says how it came to be.
const TABLE: &str = include_str!("tables/offsets.tsv");

/// Struct and field, as Go names them, to byte offset; `_size` is a struct's size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offsets(HashMap<(String, String), u64>);

impl Offsets {
    /// The measured offsets of a release; None when it was not measured.
    pub(super) fn measured(version: &GoVersion) -> Option<Offsets> {
        let mut lines = TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
        let headings = lines.next()?.skip(2).enumerate();
        let (column, _) = headings
            .filter_map(|(i, heading)| Some((i, GoVersion::parse(heading)?)))
            .filter(|(_, begins)| begins.minor == version.minor && begins.patch <= version.patch)
            .filter(|(_, begins)| begins.experiments.iter().all(|e| version.has_experiment(e)))
            .max_by_key(|(_, begins)| (begins.experiments.len(), begins.patch))?;
        let cells = lines.filter_map(|mut cells| {
            let (name, field) = (cells.next()?.to_owned(), cells.next()?.to_owned());
            Some(((name, field), cells.nth(column)?.parse().ok()?))
        });
        Some(Offsets(cells.collect()))
    }

    /// The offsets that the DWARF of a binary tells, of the structs that were measured
    /// for any release; few or none when it is damaged.
    pub(super) fn from_dwarf(binary: &Binary) -> Offsets {
        let mut offsets = Offsets::default();
        let sections = gimli::DwarfSections::load(|id| binary.section(id.name()));
        match sections {
            Ok(sections) => {
                let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
                if let Err(e) = offsets.read_units(&dwarf) {
                    log::debug!("DWARF: {e}");
                }
            }
            Err(e) => log::debug!("DWARF: {e}"),
        }
        offsets
    }

    fn read_units(&mut self, dwarf: &gimli::Dwarf<Slice<'_>>) -> gimli::Result<()> {
        let wanted = struct_names();
        let mut headers = Vec::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            headers.push(header);
        }
        // Go's linker puts all types into one unit, near the end.
        for header in headers.into_iter().rev() {
            let unit = dwarf.unit(header)?;
            self.read_unit(unit.unit_ref(dwarf), &wanted)?;
            if !self.0.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the structs of one unit; those of Go stand at its top level.
    fn read_unit(&mut self, unit: UnitRef<'_, Slice<'_>>, wanted: &HashSet<&str>) -> gimli::Result<()> {
        let mut entries = unit.entries();
        let mut current = None;
        while let Some(entry) = entries.next_dfs()? {
            match (entry.tag(), current) {
                (gimli::DW_TAG_structure_type, _) => {
                    current = name(&unit, entry).and_then(|name| wanted.get(name).copied());
                    let size = number(entry, gimli::DW_AT_byte_size);
                    if let (Some(current), Some(size)) = (current, size) {
                        self.0.insert((current.to_owned(), "_size".to_owned()), size);
                    }
                }
                (gimli::DW_TAG_member, Some(current)) => {
                    let field = name(&unit, entry);
                    let offset = number(entry, gimli::DW_AT_data_member_location);
                    if let (Some(field), Some(offset)) = (field, offset) {
                        self.0.insert((current.to_owned(), field.to_owned()), offset);
                    }
                }
                _ => current = None,
            }
        }
        Ok(())
    }

    /// The offset under the first of these names that exists: structs and fields were
    /// renamed between releases.
    pub(super) fn find(&self, names: &[(&str, &str)]) -> Option<u64> {
        names.iter().find_map(|(name, field)| self.0.get(&((*name).to_owned(), (*field).to_owned())).copied())
    }

    /// These offsets, and for what they lack those of `other`.
    pub(super) fn or(mut self, other: Offsets) -> Offsets {
        for (name, offset) in other.0 {
            self.0.entry(name).or_insert(offset);
        }
        self
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The structs that have rows in the table.
fn struct_names() -> HashSet<&'static str> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.filter_map(|row| row.split('\t').next()).collect()
}

fn name<'a>(unit: &UnitRef<'_, Slice<'a>>, entry: &DebuggingInformationEntry<Slice<'a>>) -> Option<&'a str> {
    let value = entry.attr_value(gimli::DW_AT_name)?;
    std::str::from_utf8(unit.attr_string(value).ok()?.slice()).ok()
}

fn number(entry: &DebuggingInformationEntry<Slice<'_>>, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr_value(attribute).as_ref().and_then(AttributeValue::udata_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(version: &str) -> Option<u64> {
        let offsets = Offsets::measured(&GoVersion::parse(version)?)?;
        offsets.find(&[("runtime.workType", "cycles")])
    }

    #[test]
    fn releases_and_experiments_find_their_column() {
        for (version, want) in [
            ("go1.19.13", Some(344)),
            ("go1.20.14", None),
            ("go1.23", Some(392)),
            ("go1.23.3", Some(392)),
            ("go1.23.4", Some(424)),
            ("go1.23.12", Some(424)),
            ("go1.24rc1", Some(424)),
            ("go1.25.5", Some(512)),
            ("go1.25.5 X:greenteagc", Some(608)),
            ("go1.26.6-X:nogreenteagc", Some(648)),
            ("go1.28.0", None),
        ] {
            assert_eq!(cycles(version), want, "{version}");
        }
    }

    #[test]
    fn renamed_structs_are_found_and_gaps_are_filled() {
        let old = Offsets::measured(&GoVersion::parse("go1.19").expect("version")).expect("measured");
        let kind = [("internal/abi.Type", "Kind_"), ("runtime._type", "kind")];
        assert_eq!(old.find(&kind), Some(23));
        assert_eq!(Offsets::default().or(old.clone()), old);
        assert_eq!(old.find(&[("runtime.g", "nonsense")]), None);
    }
}
