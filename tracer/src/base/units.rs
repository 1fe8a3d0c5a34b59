//! Sizes and shares as people write them: `64MiB`, `5%`; and as they read them.

use super::{Error, Result};

/// Parses a byte count: a number with an optional unit `B`, `k`/`kB`/`KiB`, `MiB`,
/// `GiB` (`k`, `K`, `M`, `G` and `KB`, `MB`, `GB` are powers of 1024 too, as in Go).
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad =
        || Error::usage(format!("not a size: {text:?}")).hint("write sizes as 65536, 512KiB, 64MiB or 2GiB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if value.is_finite() && value < u64::MAX as f64 { Ok(value as u64) } else { Err(bad()) }
}

/// Parses a share in percent, above 0 and at most 100: `5%`, `0.5`.
pub fn parse_percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(Error::usage(format!("not a share in percent: {text:?}"))
            .hint("write shares as 5% or 0.5%, at most 100%")),
    }
}

/// A byte count as `512 B`, `1.5 KiB`, `23.4 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count with thousands separated by commas, as `1,234,567`.
pub fn format_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        for (text, want) in [("0", 0), ("64MiB", 64 << 20), ("1.5k", 1536), ("2 GiB", 2 << 30), ("10B", 10)] {
            assert_eq!(parse_bytes(text).ok(), Some(want), "{text}");
        }
        for text in ["", "MiB", "-1", "1x", "99999999999999999999G", "1e9"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_above_zero_and_at_most_all() {
        for (text, want) in [("5%", 5.0), ("0.5", 0.5), ("100 %", 100.0)] {
            assert_eq!(parse_percent(text).ok(), Some(want), "{text}");
        }
        for text in ["", "%", "0", "-1%", "101%", "nan", "5%%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_printed_as_people_read_them() {
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(1536), "1.5 KiB");
        assert_eq!(format_bytes(1 << 20), "1.0 MiB");
        assert_eq!(format_count(1234567), "1,234,567");
        assert_eq!(format_count(12), "12");
    }
}
