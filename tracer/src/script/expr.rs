//! Conditions: CEL expressions over the values of a session.
//!
//! Each value has a name of its own, such as `phase("load").heap.live`. When an expression is
//! compiled these are looked for and become variables of that name, so that all that is
//! unknown is found before anything runs; and whole numbers become floating-point ones, as all
//! values are, since CEL by itself does not mix the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr as Node, IdedExpr, LiteralValue};
use cel::{Context, Env, ExecutionError, Program, Value};
use regex::Regex;
use toml::Spanned;

use super::source::{Source, suggestion};
use crate::base::Result;

/// Values by their names; what is not known is not there.
pub(super) type Values = BTreeMap<String, f64>;

/// The values that there are at any time. (`site("…").…` and `phase("…").…` are besides.)
pub(super) const VALUES: [&str; 10] = [
    "elapsed",
    "rss",
    "heap.live",
    "heap.goal",
    "heap.slope",
    "gc.cycles",
    "gc.cpu",
    "goroutines.count",
    "target.restarts",
    "target.running",
];

/// What is known of a site.
pub(super) const SITE_VALUES: [&str; 4] = ["live_bytes", "live_objects", "alloc_bytes", "alloc_objects"];

/// Units, to be multiplied with.
const UNITS: [(&str, f64); 3] = [("KiB", 1024.0), ("MiB", 1048576.0), ("GiB", 1073741824.0)];

/// The functions of CEL that conditions may use besides its operators.
const FUNCTIONS: [&str; 2] = ["site", "phase"];

/// A condition that was compiled.
#[derive(Debug)]
pub(super) struct Expr {
    pub text: String,
    code: IdedExpr,
    /// The names of the values it reads, without units.
    reads: BTreeSet<String>,
    /// The regular expressions of `site("…")` in it.
    pub sites: BTreeSet<String>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// It cannot be said, for this reason.
    Unknown(String),
}

impl Expr {
    /// Compiles what stands in the file; `phases` are those that it may refer to.
    ///
    /// # Errors
    /// Usage, with line and column, when it is no condition or names what is not known.
    pub(super) fn compile(source: &Source<'_>, text: &Spanned<String>, phases: &[&str]) -> Result<Expr> {
        let written = text.get_ref();
        let at = |offset: usize| source.within(&text.span(), written, offset);
        let program = Program::compile(written).map_err(|errors| {
            let first = errors.errors.first();
            let offset = first.map_or(0, |e| offset_of(written, e.pos));
            let message = first.map_or_else(|| "no expression".to_owned(), |e| e.msg.clone());
            source.error(at(offset), &message)
        })?;
        let mut names = Names {
            phases,
            reads: BTreeSet::new(),
            sites: BTreeSet::new(),
            begins: &|id| begin(&program, id),
        };
        let code = names.resolve(program.expression()).map_err(|wrong| {
            let error = source.error(at(byte_offset(written, wrong.at)), &wrong.message);
            if wrong.hint.is_empty() { error } else { error.hint(wrong.hint) }
        })?;
        let Names { reads, sites, .. } = names;
        let expr = Expr { text: written.clone(), code, reads, sites };
        // With all values known it is a condition, or it never is one.
        let values: Values = expr.reads.iter().map(|name| (name.clone(), 1.0)).collect();
        match expr.holds(&values) {
            Verdict::Unknown(why) => Err(source.error(at(0), &why)),
            Verdict::Yes | Verdict::No => Ok(expr),
        }
    }

    pub(super) fn holds(&self, values: &Values) -> Verdict {
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        for (name, value) in UNITS {
            context.add_variable_from_value(name, value);
        }
        for (name, value) in self.values(values) {
            context.add_variable_from_value(name, value);
        }
        match Value::resolve(&self.code, &context) {
            Ok(Value::Bool(true)) => Verdict::Yes,
            Ok(Value::Bool(false)) => Verdict::No,
            Ok(_) => Verdict::Unknown("this is no condition: it is neither true nor false".into()),
            Err(ExecutionError::UndeclaredReference(name)) => {
                Verdict::Unknown(format!("{name} is not known"))
            }
            Err(e) => Verdict::Unknown(e.to_string()),
        }
    }

    /// The values that the condition reads, as far as they are known.
    pub(super) fn values(&self, values: &Values) -> Values {
        let known = |name: &String| Some((name.clone(), *values.get(name)?));
        self.reads.iter().filter_map(known).collect()
    }
}

/// The names in an expression.
struct Names<'a> {
    phases: &'a [&'a str],
    reads: BTreeSet<String>,
    sites: BTreeSet<String>,
    begins: &'a dyn Fn(u64) -> usize,
}

/// What is wrong with an expression.
struct Wrong {
    /// In characters.
    at: usize,
    message: String,
    hint: String,
}

impl Names<'_> {
    /// The expression, with a variable for each value that it names.
    fn resolve(&mut self, node: &IdedExpr) -> Result<IdedExpr, Wrong> {
        let expr = match &node.expr {
            Node::Literal(LiteralValue::Int(n)) => {
                Node::Literal(LiteralValue::Double((*n.inner() as f64).into()))
            }
            Node::Literal(LiteralValue::UInt(n)) => {
                Node::Literal(LiteralValue::Double((*n.inner() as f64).into()))
            }
            Node::Literal(literal) => Node::Literal(literal.clone()),
            Node::Ident(name) if UNITS.iter().any(|(unit, _)| unit == name) => node.expr.clone(),
            Node::Call(call) if is_operator(&call.func_name) && call.target.is_none() => {
                let args = call.args.iter().map(|arg| self.resolve(arg)).collect::<Result<_, _>>()?;
                Node::Call(CallExpr { func_name: call.func_name.clone(), target: None, args })
            }
            Node::Ident(_) | Node::Select(_) | Node::Call(_) => Node::Ident(self.value(node)?),
            _ => return Err(self.wrong(node, "lists, maps and macros are not for conditions".into())),
        };
        Ok(IdedExpr { id: node.id, expr })
    }

    /// The name of the value that a path such as `phase("a").heap.live` means.
    fn value(&mut self, node: &IdedExpr) -> Result<String, Wrong> {
        let mut path = Vec::new();
        self.path(node, &mut path)?;
        let mut steps = path.as_slice();
        let in_phase = matches!(steps.first(), Some(Step::Phase(_)));
        if in_phase {
            steps = &steps[1..];
        }
        let known: Vec<&str> = match steps {
            [Step::Site(_), ..] => {
                steps = &steps[1..];
                SITE_VALUES.to_vec()
            }
            _ if in_phase => VALUES.into_iter().chain(["duration"]).collect(),
            _ => VALUES.to_vec(),
        };
        let rest = render(steps);
        if !known.contains(&rest.as_str()) {
            let hint = suggestion(&rest, known.into_iter());
            let message = match rest.as_str() {
                "" => format!("{} is no value by itself", render(&path)),
                _ => format!("there is no value `{}`", render(&path)),
            };
            return Err(Wrong { hint, ..self.wrong(node, message) });
        }
        let name = render(&path);
        self.reads.insert(name.clone());
        Ok(name)
    }

    fn path(&mut self, node: &IdedExpr, path: &mut Vec<Step>) -> Result<(), Wrong> {
        match &node.expr {
            Node::Ident(name) => path.push(Step::Field(name.clone())),
            Node::Select(select) if !select.test => {
                self.path(&select.operand, path)?;
                path.push(Step::Field(select.field.clone()));
            }
            Node::Call(call) if call.func_name == "site" => {
                if let Some(target) = &call.target {
                    self.path(target, path)?;
                }
                let pattern = self.literal(node, call)?;
                Regex::new(&pattern).map_err(|e| {
                    self.wrong(node, format!("site({pattern:?}): no regular expression: {e}"))
                })?;
                self.sites.insert(pattern.clone());
                path.push(Step::Site(pattern));
            }
            Node::Call(call) if call.func_name == "phase" && call.target.is_none() => {
                let phase = self.literal(node, call)?;
                if !self.phases.contains(&phase.as_str()) {
                    let hint = suggestion(&phase, self.phases.iter().copied());
                    let message = format!("no phase {phase:?} has ended by then");
                    return Err(Wrong { hint, ..self.wrong(node, message) });
                }
                path.push(Step::Phase(phase));
            }
            Node::Call(call) => {
                let hint = suggestion(&call.func_name, FUNCTIONS.into_iter());
                let message = format!("there is no function `{}` of this kind", call.func_name);
                return Err(Wrong { hint, ..self.wrong(node, message) });
            }
            _ => return Err(self.wrong(node, "a value was expected here".into())),
        }
        Ok(())
    }

    fn literal(&self, node: &IdedExpr, call: &CallExpr) -> Result<String, Wrong> {
        match call.args.as_slice() {
            [IdedExpr { expr: Node::Literal(LiteralValue::String(text)), .. }] => Ok(text.inner().to_owned()),
            _ => Err(self.wrong(node, format!("{}(\"…\") takes one string", call.func_name))),
        }
    }

    fn wrong(&self, node: &IdedExpr, message: String) -> Wrong {
        Wrong { at: self.first(node), message, hint: String::new() }
    }

    /// Where a path begins: the parser tells of a selection where its dot is.
    fn first(&self, node: &IdedExpr) -> usize {
        match &node.expr {
            Node::Select(select) => self.first(&select.operand),
            Node::Call(CallExpr { target: Some(target), .. }) => self.first(target),
            Node::Call(call) if !is_operator(&call.func_name) => {
                // That of a call is its parenthesis.
                (self.begins)(node.id).saturating_sub(call.func_name.len())
            }
            _ => (self.begins)(node.id),
        }
    }
}

/// A part of a path.
enum Step {
    Field(String),
    Site(String),
    Phase(String),
}

fn render(steps: &[Step]) -> String {
    let parts: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Field(name) => name.clone(),
            Step::Site(pattern) => format!("site({pattern:?})"),
            Step::Phase(name) => format!("phase({name:?})"),
        })
        .collect();
    parts.join(".")
}

/// The name of `value` at the end of a phase.
pub(super) fn in_phase(phase: &str, value: &str) -> String {
    format!("phase({phase:?}).{value}")
}

/// The name of a value of the sites that match.
pub(super) fn of_sites(pattern: &str, value: &str) -> String {
    format!("site({pattern:?}).{value}")
}

/// CEL calls its operators `_+_`, `!_`, `_?_:_`.
fn is_operator(function: &str) -> bool {
    function.contains('_') && !function.contains(|c: char| c.is_ascii_alphanumeric())
}

fn begin(program: &Program, id: u64) -> usize {
    program.source_info().offset_for(id).map_or(0, |(start, _)| start as usize)
}

/// From the line and the column, both counted from 1, of the parser's messages.
fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let count = |n: isize| usize::try_from(n - 1).unwrap_or(0);
    let mut lines = text.split_inclusive('\n');
    let before: usize = lines.by_ref().take(count(line)).map(str::len).sum();
    before + byte_offset(lines.next().unwrap_or_default(), count(column))
}

fn byte_offset(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}
