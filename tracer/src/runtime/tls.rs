//! Where a thread keeps the address of its runtime.g, from the machine code that asks for it.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::base::{Error, Result};
use crate::binary::Binary;

/// It looks its goroutine up in thread-local storage, as it may be called by C, too
/// (runtime/asm_amd64.s, Go 1.19 to 1.27).
const FUNCTION: &str = "runtime.asmcgocall";

/// What is to be added to a thread's FS base for the word that holds its runtime.g
/// (`runtime.tlsg`, mostly -8).
///
/// # Errors
/// Failed when the executable has no such function, or its code is of another form.
pub fn tls_offset(binary: &Binary) -> Result<i64> {
    let functions = binary.functions()?;
    let mut named = functions.iter().filter(|function| function.name == FUNCTION);
    let found = named.find_map(|function| {
        let len = usize::try_from(function.end.checked_sub(function.start)?).ok()?;
        offset_in(binary.read(function.start, len)?)
    });
    found.ok_or_else(|| Error::failed(format!("{FUNCTION} does not tell where threads keep their goroutine")))
}

/// Of the first access relative to FS: `mov rdi, fs:[-8]`, or, where the code may be placed
/// anywhere, `mov rcx, -8` before `mov rdi, fs:[rcx]`.
fn offset_in(code: &[u8]) -> Option<i64> {
    let mut constant = None;
    for i in &mut Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        if i.segment_prefix() == Register::FS && i.memory_index() == Register::None {
            return match (i.memory_base(), constant) {
                (Register::None, _) => Some(i.memory_displacement64() as i64),
                (base, Some((register, value))) if base == register && i.memory_displacement64() == 0 => {
                    Some(value)
                }
                _ => None,
            };
        }
        constant = set_to_constant(&i).or(constant);
    }
    None
}

fn set_to_constant(i: &Instruction) -> Option<(Register, i64)> {
    let is_constant = matches!(i.op1_kind(), OpKind::Immediate32to64 | OpKind::Immediate64);
    (i.mnemonic() == Mnemonic::Mov && i.op0_kind() == OpKind::Register && is_constant)
        .then(|| (i.op0_register(), i.immediate(1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        // mov rdi, fs:0xfffffffffffffff8
        let fixed = [0x64, 0x48, 0x8b, 0x3c, 0x25, 0xf8, 0xff, 0xff, 0xff];
        assert_eq!(offset_in(&fixed), Some(-8));
        // mov rcx, -16; mov rdi, fs:[rcx]
        let movable = [0x48, 0xc7, 0xc1, 0xf0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x39];
        assert_eq!(offset_in(&movable), Some(-16));
        // mov rdi, fs:[rcx], of which rcx is not known; and nothing.
        assert_eq!(offset_in(&movable[7..]), None);
        assert_eq!(offset_in(&[]), None);
    }
}
