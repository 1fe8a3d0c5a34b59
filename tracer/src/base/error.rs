//! The one error type: a kind that decides the exit code, a message, a hint, a cause.

use std::fmt;

/// What sort of failure it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be carried out as asked (exit code 2).
    Usage,
    /// This machine, kernel or user cannot do it (exit code 4).
    Environment,
    /// It was tried and failed: a process gone, a damaged file (exit code 1).
    Failed,
}

impl ErrorKind {
    /// The process exit code for this kind (design: 0 done, 1 failed, 2 usage,
    /// 3 a leak or failed assertion, 4 the environment cannot do it).
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Environment => 4,
        }
    }
}

/// An error a user reads: `message: cause`, then `hint: what to do`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    pub fn environment(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Environment, message)
    }

    pub fn failed(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Failed, message)
    }

    /// The process that something was to be done with is gone.
    pub fn ended(pid: impl fmt::Display) -> Error {
        Error::failed(format!("process {pid} has ended"))
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// Says what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps what caused it; printed after the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// The same error, of the same kind and with the same hint, but as the cause of `what`.
    #[must_use]
    pub fn context(self, what: impl Into<String>) -> Error {
        Error { kind: self.kind, message: what.into(), hint: self.hint.clone(), source: Some(Box::new(self)) }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// The chain of causes on one line, as `message: cause: its cause`; the hint is
    /// printed apart, by the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            // Our own Display prints the whole chain already.
            if e.is::<Error>() {
                break;
            }
            cause = e.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_the_chain_once() {
        let io = std::io::Error::other("disk full");
        let e = Error::failed("cannot write x").because(Error::failed("frame 3").because(io));
        assert_eq!(e.to_string(), "cannot write x: frame 3: disk full");
        assert_eq!(e.kind().exit_code(), 1);
        let outer = Error::usage("not ELF").hint("try another").context("process 7");
        assert_eq!(outer.to_string(), "process 7: not ELF");
        assert_eq!((outer.kind(), outer.hint_text()), (ErrorKind::Usage, Some("try another")));
    }
}
