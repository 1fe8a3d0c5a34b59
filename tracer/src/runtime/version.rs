//! Go versions as the toolchain writes them into a binary.

/// A Go 1.x release and its experiments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GoVersion {
    /// 26 in `go1.26.6`.
    pub(super) minor: u32,
    /// 6 in `go1.26.6`; 0 for pre-releases and development versions.
    pub(super) patch: u32,
    /// What GOEXPERIMENT changed from the release's defaults.
    pub(super) experiments: Vec<String>,
}

impl GoVersion {
    /// Reads `go1.26.6-X:nogreenteagc` (from 1.26), `go1.25.5 X:greenteagc` (before),
    /// `devel go1.28-abcdef`, `go1.24rc1`, and `1.27.3` as people write it; None when
    /// the text tells no release (`devel +abcdef`).
    pub(super) fn parse(text: &str) -> Option<GoVersion> {
        let text = text.trim();
        let text = text.strip_prefix("devel").map_or(text, str::trim_start);
        let release = text.strip_prefix("go").unwrap_or(text).strip_prefix("1.")?;
        let (minor, rest) = number(release)?;
        let patch = rest.strip_prefix('.').and_then(number).map_or(0, |(patch, _)| patch);
        let experiments = [" X:", "-X:"].iter().find_map(|mark| text.split_once(mark)).map_or("", |(_, e)| e);
        let experiments = experiments.split_whitespace().next().unwrap_or("");
        let experiments = experiments.split(',').filter(|e| !e.is_empty()).map(str::to_owned).collect();
        Some(GoVersion { minor, patch, experiments })
    }

    pub(super) fn has_experiment(&self, name: &str) -> bool {
        self.experiments.iter().any(|e| e == name)
    }
}

/// The number a text begins with, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_all_their_forms() {
        for (text, minor, patch, experiments) in [
            ("go1.26.6", 26, 6, ""),
            ("go1.26.6-X:nogreenteagc", 26, 6, "nogreenteagc"),
            ("go1.25.5 X:greenteagc,jsonv2", 25, 5, "greenteagc,jsonv2"),
            ("go1.22", 22, 0, ""),
            ("go1.24rc1", 24, 0, ""),
            ("go1.21-pre custom", 21, 0, ""),
            ("devel go1.28-abc123 Tue Mar 3 X:nodwarf5 linux/amd64", 28, 0, "nodwarf5"),
            ("go1.21.5 (Red Hat 1.21.5-1.el9)", 21, 5, ""),
            ("1.27.3", 27, 3, ""),
        ] {
            let got = GoVersion::parse(text).expect(text);
            assert_eq!(
                (got.minor, got.patch, got.experiments.join(",").as_str()),
                (minor, patch, experiments),
                "{text}"
            );
        }
        for text in ["", "devel +a1b2c3", "go2.1", "go1.", "unknown", "go1.99999999999"] {
            assert_eq!(GoVersion::parse(text), None, "{text}");
        }
    }
}
