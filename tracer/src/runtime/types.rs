//! What a `*_type` means: name, package, size and kind from its descriptor.

use std::ops::Range;

use super::layout::Layout;
use crate::base::{Error, Result};
use crate::event::TypeInfo;
use crate::memory::ProcessMemory;

/// Reads type descriptors (internal/abi/type.go; runtime/type.go before Go 1.21).
pub struct TypeReader<'a, M> {
    memory: M,
    layout: &'a Layout,
    /// Where the linker put descriptors and names: moduledata's `types` to `etypes`.
    module: Range<u64>,
}

impl<'a, M: ProcessMemory> TypeReader<'a, M> {
    /// `module` is the executable's moduledata `types` to `etypes`, as addresses of
    /// `memory`. Types of plugins, which are modules of their own, are not described.
    pub fn new(memory: M, layout: &'a Layout, module: Range<u64>) -> TypeReader<'a, M> {
        TypeReader { memory, layout, module }
    }

    /// Describes the type at `addr`.
    ///
    /// A type that the program made while running (`reflect.StructOf`) keeps its name
    /// where only the runtime finds it: it is called `runtime-created struct`.
    ///
    /// # Errors
    /// When there is no type descriptor at the address.
    pub fn read(&self, addr: u64) -> Result<TypeInfo> {
        let types = &self.layout.types;
        let no_type = || Error::failed(format!("no type descriptor at {addr:#x}"));
        let module = Some(&self.module).filter(|m| m.contains(&addr));
        let field = |offset: u64| addr.checked_add(offset).ok_or_else(no_type);
        let size = self.memory.read_u64(field(types.size)?)?;
        let ptr_bytes = self.memory.read_u64(field(types.ptr_bytes)?)?;
        let tflag = self.read_u8(field(types.tflag)?)?;
        let kind = self.read_u8(field(types.kind)?)? & KIND_MASK;
        let name_offset = self.memory.read_u32(field(types.str)?)? as i32;
        let kind_name = KINDS.get(usize::from(kind)).filter(|_| kind != 0).ok_or_else(no_type)?;
        if ptr_bytes > size {
            return Err(no_type());
        }
        let (name, package) = match module {
            Some(module) => {
                let name = self.name(module, name_offset)?;
                let name = if tflag & TFLAG_EXTRA_STAR != 0 { name.get(1..).unwrap_or("") } else { &name };
                let package = if tflag & TFLAG_UNCOMMON != 0 && tflag & TFLAG_NAMED != 0 {
                    self.package(module, addr, kind)?
                } else {
                    String::new()
                };
                (name.to_owned(), package)
            }
            // Names that reflect makes have negative offsets (reflect.addReflectOff).
            None if name_offset < 0 => (format!("runtime-created {kind_name}"), String::new()),
            None => return Err(no_type()),
        };
        Ok(TypeInfo { name, package, size, ptr_bytes, kind: (*kind_name).to_owned() })
    }

    /// The import path in the `UncommonType` that follows the descriptor of its kind.
    fn package(&self, module: &Range<u64>, addr: u64, kind: u8) -> Result<String> {
        let descriptor_size = match KINDS.get(usize::from(kind)) {
            Some(&"array") => 72,
            Some(&"chan") => 64,
            Some(&("func" | "ptr" | "slice")) => 56,
            Some(&("interface" | "struct")) => 80,
            Some(&"map") => self.layout.types.map_size,
            _ => 48,
        };
        let path = self.memory.read_u32(addr.saturating_add(descriptor_size))? as i32;
        self.name(module, path)
    }

    /// The name at an offset from the module's `types`: a flag byte, the length as a
    /// varint, the bytes (internal/abi/type.go `Name`). Offset 0 is the empty name.
    fn name(&self, module: &Range<u64>, offset: i32) -> Result<String> {
        if offset == 0 {
            return Ok(String::new());
        }
        let damaged =
            || Error::failed(format!("type name {offset} of module {:#x} is damaged", module.start));
        let offset = u64::try_from(offset).map_err(|_| damaged())?;
        let addr = module.start.checked_add(offset).filter(|a| module.contains(a)).ok_or_else(damaged)?;
        let head = self.memory.read_vec(addr, 4.min(module.end - addr) as usize)?;
        let (length, skip) = varint(head.get(1..).unwrap_or(&[])).ok_or_else(damaged)?;
        if length > MAX_NAME {
            return Err(damaged());
        }
        let bytes = self.memory.read_vec(addr.saturating_add(1 + skip), length as usize)?;
        String::from_utf8(bytes).map_err(|_| damaged())
    }

    fn read_u8(&self, addr: u64) -> Result<u8> {
        let mut byte = [0];
        self.memory.read(addr, &mut byte)?;
        let [byte] = byte;
        Ok(byte)
    }
}

/// A little-endian base-128 number and how many bytes it takes, at most three: names
/// are shorter than `MAX_NAME`.
fn varint(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(3).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i as u64 + 1));
        }
    }
    None
}

/// Longer names are damage; the longest generic instantiations have some kilobytes.
const MAX_NAME: u64 = 64 << 10;

// internal/abi/type.go; the same in Go 1.19 to 1.27.
const TFLAG_UNCOMMON: u8 = 1;
const TFLAG_EXTRA_STAR: u8 = 2;
const TFLAG_NAMED: u8 = 4;
/// Flags stood in the upper bits of the kind until Go 1.25.
const KIND_MASK: u8 = 0x1f;

/// `reflect.Kind` by number.
const KINDS: [&str; 27] = [
    "invalid",
    "bool",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "uintptr",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "array",
    "chan",
    "func",
    "interface",
    "map",
    "ptr",
    "slice",
    "string",
    "struct",
    "unsafe.Pointer",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::FakeMemory;

    const TYPES: u64 = 0x10_0000;
    const ETYPES: u64 = 0x10_1000;
    /// Where the tests put one descriptor, and its name's offset from `TYPES`.
    const TYPE: u64 = TYPES + 0x200;
    const NAME: u32 = 0x20;

    /// A type as Go 1.22 lays it out, with room for what follows the descriptor.
    struct Fake {
        kind: u8,
        tflag: u8,
        size: u64,
        ptr_bytes: u64,
        str: u32,
        name: &'static str,
        package: Option<&'static str>,
    }

    const NODE: Fake =
        Fake { kind: 25, tflag: 7, size: 40, ptr_bytes: 16, str: NAME, name: "*main.Node", package: None };

    fn name(text: &str) -> Vec<u8> {
        let (low, high) = (text.len() & 0x7f, text.len() >> 7);
        let mut bytes = if high == 0 { vec![1, low as u8] } else { vec![1, low as u8 | 0x80, high as u8] };
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn read_at(fake: &Fake, addr: u64) -> Result<TypeInfo> {
        let layout = Layout::measured("go1.22").expect("layout");
        let mut memory = FakeMemory::new();
        memory.write(TYPES, &[0; (ETYPES - TYPES) as usize]);
        memory.write(TYPES + u64::from(NAME), &name(fake.name));
        let mut descriptor = [0; 48];
        descriptor[..8].copy_from_slice(&fake.size.to_le_bytes());
        descriptor[8..16].copy_from_slice(&fake.ptr_bytes.to_le_bytes());
        descriptor[20] = fake.tflag;
        descriptor[23] = fake.kind;
        descriptor[40..44].copy_from_slice(&fake.str.to_le_bytes());
        memory.write(addr, &descriptor);
        if let Some(package) = fake.package {
            memory.write(TYPES + 0x100, &name(package));
            // struct types take 80 bytes, then comes the uncommon part.
            memory.write(addr + 80, &0x100u32.to_le_bytes());
        }
        TypeReader::new(memory, &layout, TYPES..ETYPES).read(addr)
    }

    #[test]
    fn a_named_struct_has_name_package_size_and_kind() {
        let info = read_at(&Fake { package: Some("example.com/x/main"), ..NODE }, TYPE).expect("type");
        let want = TypeInfo {
            name: "main.Node".to_owned(),
            package: "example.com/x/main".to_owned(),
            size: 40,
            ptr_bytes: 16,
            kind: "struct".to_owned(),
        };
        assert_eq!(info, want);
    }

    #[test]
    fn kind_flags_and_long_names_are_understood() {
        let long: &'static str = Box::leak("x".repeat(300).into_boxed_str());
        let info = read_at(&Fake { kind: 0x20 | 22, tflag: 0, name: long, ..NODE }, TYPE).expect("type");
        assert_eq!((info.kind.as_str(), info.name.as_str(), info.package.as_str()), ("ptr", long, ""));
    }

    #[test]
    fn types_made_at_run_time_are_called_so() {
        let made = Fake { str: -5i32 as u32, ..NODE };
        let info = read_at(&made, 0xc0_0000_0000).expect("type");
        assert_eq!((info.name.as_str(), info.size), ("runtime-created struct", 40));
        assert!(read_at(&made, TYPE).is_err(), "no negative name offsets inside a module");
        assert!(read_at(&NODE, 0xc0_0000_0000).is_err(), "no module's name offsets outside one");
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for damaged in [
            Fake { kind: 0, ..NODE },
            Fake { kind: 31, ..NODE },
            Fake { ptr_bytes: 41, ..NODE },
            Fake { str: 0x7fff_ffff, ..NODE },
        ] {
            assert!(read_at(&damaged, TYPE).is_err(), "kind {} str {:#x}", damaged.kind, damaged.str);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_type_or_an_error(
            descriptor in proptest::array::uniform32(0u8..),
            str in 0u32..0x400,
            names in proptest::collection::vec(0u8.., 0x200),
        ) {
            let layout = Layout::measured("go1.27").expect("layout");
            let mut memory = FakeMemory::new();
            memory.write(TYPES, &names).write(TYPE, &[0; 0x200]).write(TYPE, &descriptor);
            memory.write(TYPE + layout.types.str, &str.to_le_bytes());
            if let Ok(info) = TypeReader::new(memory, &layout, TYPES..ETYPES).read(TYPE) {
                assert!(info.name.len() as u64 <= MAX_NAME && info.ptr_bytes <= info.size);
            }
        }
    }
}
