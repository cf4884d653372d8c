//! SQLite's result codes as [`QueueError`]s: the one table that decides what a fault of the store
//! means to the rest of the relay.

use rusqlite::ErrorCode;

use crate::queue::QueueError;

impl From<rusqlite::Error> for QueueError {
    fn from(e: rusqlite::Error) -> QueueError {
        let text = e.to_string();
        let Some(code) = e.sqlite_error_code() else {
            // Not from the library: a column that does not hold what the schema says.
            return QueueError::Damaged(text);
        };
        match code {
            ErrorCode::DiskFull => QueueError::Full(text),
            ErrorCode::TooBig | ErrorCode::ConstraintViolation => QueueError::Invalid(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown => QueueError::Damaged(text),
            _ => QueueError::Unavailable(text),
        }
    }
}

/// Puts the path in front of an error's text: at start the reader needs to know which file.
pub(super) fn at_path(path: &std::path::Path, e: QueueError) -> QueueError {
    let with = |text: String| format!("{}: {text}", path.display());
    match e {
        QueueError::Full(t) => QueueError::Full(with(t)),
        QueueError::Unavailable(t) => QueueError::Unavailable(with(t)),
        QueueError::Damaged(t) => QueueError::Damaged(with(t)),
        QueueError::InUse(t) => QueueError::InUse(with(t)),
        QueueError::Invalid(t) => QueueError::Invalid(with(t)),
        QueueError::Closed => QueueError::Closed,
    }
}

/// Whether a connection that gave this error may be used on. After anything that could be the
/// disk's or the file's fault a new one is opened, so that the queue works again once they do.
pub(super) fn connection_is_sound(e: &QueueError) -> bool {
    matches!(e, QueueError::Full(_) | QueueError::Invalid(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn every_fault_has_its_meaning() {
        let of = |code| QueueError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(matches!(of(ffi::SQLITE_FULL), QueueError::Full(_)));
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_PERM,
            ffi::SQLITE_PROTOCOL,
        ] {
            assert!(matches!(of(code), QueueError::Unavailable(_)), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(matches!(of(code), QueueError::Damaged(_)), "{code}");
        }
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT), QueueError::Invalid(_)));
        assert!(!connection_is_sound(&of(ffi::SQLITE_IOERR)));
        assert!(connection_is_sound(&of(ffi::SQLITE_FULL)));
    }
}
