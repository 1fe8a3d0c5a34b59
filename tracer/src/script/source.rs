//! The text of a session file: where in it something stands, and the settings filled in.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer};
use toml::{Spanned, de};

use crate::base::{Error, Result};

/// The table that declares what `--set` may change.
const SETTINGS: &str = "set";

/// The text of a session file and its name, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// Reads the file as a `T`, each `{{name}}` in its strings replaced by the setting of
    /// that name: its value in `set`, else that in the file's table of settings.
    ///
    /// # Errors
    /// Usage, with line and column, when it is no TOML, or a key or a setting is unknown.
    pub(super) fn parse<T: DeserializeOwned>(&self, set: &[(String, String)]) -> Result<T> {
        let mut table = DeTable::parse(self.text).map_err(|e| self.explain(&e))?;
        let settings = self.settings(table.get_ref(), set)?;
        for (key, value) in table.get_mut().iter_mut() {
            if key.get_ref() != SETTINGS {
                self.fill(value, &settings)?;
            }
        }
        T::deserialize(Deserializer::from(table)).map_err(|e| self.explain(&e))
    }

    fn settings(&self, table: &DeTable<'_>, set: &[(String, String)]) -> Result<BTreeMap<String, String>> {
        let mut settings = BTreeMap::new();
        if let Some(declared) = table.get(SETTINGS) {
            let no_table = || self.error(declared.span(), "`set` is a table of strings");
            for (name, value) in declared.get_ref().as_table().ok_or_else(no_table)? {
                let no_text = || self.error(value.span(), "a setting is a string");
                let text = value.get_ref().as_str().ok_or_else(no_text)?;
                settings.insert(name.get_ref().to_string(), text.to_owned());
            }
        }
        for (name, value) in set {
            let Some(setting) = settings.get_mut(name) else {
                let hint = suggestion(name, settings.keys().map(String::as_str));
                return Err(
                    Error::usage(format!("--set {name}: {} has no such setting", self.name)).hint(hint)
                );
            };
            setting.clone_from(value);
        }
        Ok(settings)
    }

    fn fill(&self, value: &mut Spanned<DeValue<'_>>, settings: &BTreeMap<String, String>) -> Result<()> {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("{{") => {
                *text = self.filled(text, &span, settings)?.into();
                Ok(())
            }
            DeValue::Array(items) => items.iter_mut().try_for_each(|item| self.fill(item, settings)),
            DeValue::Table(table) => table.iter_mut().try_for_each(|(_, item)| self.fill(item, settings)),
            _ => Ok(()),
        }
    }

    fn filled(&self, text: &str, span: &Range<usize>, settings: &BTreeMap<String, String>) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let unclosed = || self.error(span.clone(), "`{{` without `}}`");
            let (name, after) = after.split_once("}}").ok_or_else(unclosed)?;
            let name = name.trim();
            let setting = settings.get(name).ok_or_else(|| {
                let hint = suggestion(name, settings.keys().map(String::as_str));
                self.error(span.clone(), &format!("there is no setting `{name}`")).hint(hint)
            })?;
            out.push_str(before);
            out.push_str(setting);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn explain(&self, error: &de::Error) -> Error {
        let span = error.span().unwrap_or(0..0);
        match unknown_key(error.message()) {
            Some((key, known)) => {
                self.error(span, &format!("unknown key `{key}`")).hint(suggestion(key, known.iter().copied()))
            }
            None => self.error(span, error.message()),
        }
    }

    /// A usage error at the beginning of what stands at `span`.
    pub(super) fn error(&self, span: Range<usize>, message: &str) -> Error {
        let (line, column) = self.position(span.start);
        Error::usage(format!("{}:{line}:{column}: {message}", self.name))
    }

    /// Where in the file the byte `offset` of a string stands, which was read from `span`. If
    /// the string is not there as it is, for it has escapes or settings, that is its beginning.
    pub(super) fn within(&self, span: &Range<usize>, string: &str, offset: usize) -> Range<usize> {
        let written = self.text.get(span.clone()).and_then(|raw| raw.find(string));
        written.map_or(span.clone(), |at| span.start + at + offset..span.end)
    }

    /// Line and column, counted from 1, in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// The key, and those that are known, of serde's message (`serde::de::Error::unknown_field`).
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// "did you mean …?", if anything known is like it; else all that is known.
pub(super) fn suggestion<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let likeness = |name: &&&str| strsim::normalized_damerau_levenshtein(given, name);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) >= LIKE) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Share of equal characters from which on a name is taken to be a misspelt other.
const LIKE: f64 = 0.5;
