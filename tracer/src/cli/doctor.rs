//! x
use super::args::Doctor;
use crate::base::Result;
pub(super) fn run(_a: &Doctor) -> Result<u8> {
    Ok(0)
}
