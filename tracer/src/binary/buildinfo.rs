//! What the go command recorded about the build: version, settings (debug/buildinfo).

use super::elf::{Elf, u64_at};

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";

/// Longer strings are damage: module information has a line for each dependency.
const MAX_STRING: u64 = 16 << 20;

/// Build information, as `go version -m` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// Experiments included: `go1.25.5 X:greenteagc`, `go1.26.6-X:nogreenteagc`.
    pub go_version: String,
    /// The main package's import path; empty when built without modules.
    pub path: String,
    /// `build` lines, such as (`GOAMD64`, `v1`), (`CGO_ENABLED`, `0`), (`-race`, `true`).
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// The value of a build setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Reads the build information, from section `.go.buildinfo` or, without sections,
/// from the writable segments.
pub(crate) fn find(elf: &Elf) -> Option<BuildInfo> {
    let section = elf.section_range(".go.buildinfo").map(|(addr, _)| addr);
    let scanned = elf.segments().iter().filter(|s| s.writable).flat_map(|segment| {
        // The linker aligns it to 16 bytes (debug/buildinfo `buildInfoAlign`).
        let skew = segment.addr.wrapping_neg() % 16;
        let blocks = elf.segment_bytes(segment).get(skew as usize..).unwrap_or(&[]).chunks(16);
        let start = segment.addr.saturating_add(skew);
        let matching = blocks.enumerate().filter(|(_, block)| block.starts_with(MAGIC));
        matching.map(move |(i, _)| start.saturating_add(16 * i as u64))
    });
    section.into_iter().chain(scanned).find_map(|addr| read_at(elf, addr))
}

/// Header: magic, pointer size, flags; then since Go 1.18 two strings, each preceded by
/// its length as a varint; before, the addresses of two Go strings.
fn read_at(elf: &Elf, addr: u64) -> Option<BuildInfo> {
    let blob = elf.tail(addr)?;
    if !blob.starts_with(MAGIC) {
        return None;
    }
    let flags = *blob.get(15)?;
    let (version, modinfo) = if flags & 2 != 0 {
        let (version, rest) = inline_string(blob.get(32..)?)?;
        (version, inline_string(rest)?.0)
    } else {
        let string = |offset: u64| go_string(elf, elf.read_u64(addr.checked_add(offset)?)?);
        (string(16)?, string(24).unwrap_or(b""))
    };
    let version = std::str::from_utf8(version).ok()?;
    if version.is_empty() {
        return None;
    }
    Some(parse(version, modinfo))
}

fn inline_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, used) = uvarint(bytes)?;
    let rest = bytes.get(used..)?;
    (len <= MAX_STRING).then(|| rest.split_at_checked(len as usize)).flatten()
}

/// The Go string whose header lies at `addr`.
pub(crate) fn go_string(elf: &Elf, addr: u64) -> Option<&[u8]> {
    let data = elf.read_u64(addr)?;
    let len = u64_at(elf.read(addr.checked_add(8)?, 8)?, 0)?;
    if len > MAX_STRING { None } else { elf.read(data, len as usize) }
}

/// The Go version in the one string variable that holds one: `runtime.buildVersion`,
/// where neither build information nor symbols say so. `None` when several variables
/// disagree.
pub(crate) fn version_variable(elf: &Elf) -> Option<String> {
    let mut found: Option<&str> = None;
    for segment in elf.segments().iter().filter(|s| s.writable) {
        let skew = (segment.addr.wrapping_neg() % 8) as usize;
        let words = elf.segment_bytes(segment).get(skew..).unwrap_or(&[]);
        for at in (0..words.len()).step_by(8) {
            // Length first: few words are that small.
            let len = u64_at(words, at + 8).filter(|len| (4..=64).contains(len));
            let (Some(len), Some(data)) = (len, u64_at(words, at)) else { continue };
            let text = elf.read(data, len as usize).and_then(|b| std::str::from_utf8(b).ok());
            let Some(version) = text.filter(|t| is_go_version(t)) else { continue };
            if found.is_some_and(|f| f != version) {
                return None;
            }
            found = Some(version);
        }
    }
    found.map(str::to_owned)
}

/// `go1.26`, `go1.26.6`, `go1.27rc1`, each with experiments behind it or not.
fn is_go_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("go1.") else { return false };
    let release = rest.split([' ', '-']).next().unwrap_or(rest);
    let behind = &rest[release.len()..];
    let numbers = release.replace("rc", ".").replace("beta", ".");
    numbers.split('.').all(|n| !n.is_empty() && n.len() < 4 && n.bytes().all(|b| b.is_ascii_digit()))
        && (behind.is_empty() || behind.starts_with(" X:") || behind.starts_with("-X:"))
}

fn uvarint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i).min(63);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// `modinfo` is framed by two 16-byte sentinels (cmd/go/internal/modload `infoStart`).
fn parse(version: &str, modinfo: &[u8]) -> BuildInfo {
    let mut info = BuildInfo { go_version: version.to_owned(), ..BuildInfo::default() };
    let framed = modinfo.len() >= 33 && modinfo[modinfo.len() - 17] == b'\n';
    let text = if framed { &modinfo[16..modinfo.len() - 16] } else { &[] };
    for line in String::from_utf8_lossy(text).lines() {
        match line.split_once('\t') {
            Some(("path", path)) => info.path = path.to_owned(),
            Some(("build", setting)) => info.settings.extend(parse_setting(setting)),
            _ => {}
        }
    }
    info
}

/// `key=value`, either of them quoted when it holds spaces, quotes or `=`.
fn parse_setting(text: &str) -> Option<(String, String)> {
    let (key, rest) = match text.strip_prefix('"') {
        Some(_) => {
            let close = closing_quote(text)?;
            (unquote(&text[..=close]), text.get(close + 1..)?.strip_prefix('=')?)
        }
        None => {
            let (key, rest) = text.split_once('=')?;
            (key.to_owned(), rest)
        }
    };
    Some((key, unquote(rest)))
}

/// Where the quote that opens `text` closes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(i, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(i)
    })
}

/// Undoes Go's strconv.Quote for what occurs in build settings: `\"` and `\\`.
fn unquote(text: &str) -> String {
    match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.trim_matches('`').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_and_without_quotes() {
        for (text, key, value) in [
            ("GOAMD64=v1", "GOAMD64", "v1"),
            ("-ldflags=\"-s -w -X \\\"a=b\\\"\"", "-ldflags", "-s -w -X \"a=b\""),
            ("\"a=b\"=c", "a=b", "c"),
            ("-tags=", "-tags", ""),
        ] {
            assert_eq!(parse_setting(text), Some((key.to_owned(), value.to_owned())), "{text}");
        }
        assert_eq!(parse_setting("no value"), None);
        assert_eq!(parse_setting("\"open"), None);
    }

    #[test]
    fn module_information_is_read_between_its_sentinels() {
        let mut modinfo = b"0123456789abcdef".to_vec();
        modinfo.extend(b"path\texample.com/x\nmod\texample.com/x\t(devel)\nbuild\t-race=true\n");
        modinfo.extend(b"0123456789abcdef");
        let info = parse("go1.22.1", &modinfo);
        assert_eq!((info.path.as_str(), info.setting("-race")), ("example.com/x", Some("true")));
        assert_eq!(parse("go1.22.1", b"short").settings, []);
    }

    #[test]
    fn go_versions_are_told_from_other_strings() {
        for version in ["go1.19.8", "go1.26", "go1.27rc1", "go1.25.5 X:greenteagc", "go1.26.6-X:nogreenteagc"]
        {
            assert!(is_go_version(version), "{version}");
        }
        for other in ["go1.", "go1.x", "go1.18 or newer", "go2.1", "go1.2.3.html", "go1..2"] {
            assert!(!is_go_version(other), "{other}");
        }
    }

    #[test]
    fn a_varint_that_does_not_end_is_refused() {
        assert_eq!(uvarint(&[0x85, 0x01, 9]), Some((133, 2)));
        assert_eq!(uvarint(&[0x80; 12]), None);
        assert_eq!(uvarint(&[]), None);
    }
}
