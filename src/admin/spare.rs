//! Descriptors that are kept to be given up when the process has no others left.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// How many are kept: an operator who asks again while the last answer is still read has one, too.
const KEPT: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<OwnedFd>);

impl Spare {
    /// Takes what is missing, as far as there is any.
    pub(super) fn keep(&mut self) {
        while self.0.len() < KEPT
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file.into());
        }
    }

    /// Keeps this one, if one is missing: closed and opened again, somebody else would have it.
    pub(super) fn take(&mut self, descriptor: OwnedFd) {
        if self.0.len() < KEPT {
            self.0.push(descriptor);
        }
    }

    /// Gives one up; false if there was none.
    pub(super) fn give(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// The process, or the system, can open no more.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|out| errno == Some(out.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_given_once_and_taken_again() {
        let mut spare = Spare::default();
        assert!(!spare.give());
        spare.keep();
        assert!((0..KEPT).all(|_| spare.give()) && !spare.give());
        spare.keep();
        assert_eq!(spare.0.len(), KEPT);
        spare.take(File::open("/dev/null").expect("a descriptor").into());
        assert_eq!(spare.0.len(), KEPT, "no more than that");
        assert!(spare.give());
        spare.take(File::open("/dev/null").expect("a descriptor").into());
        assert_eq!(spare.0.len(), KEPT);
        assert!(
            is_out_of_files(&io::Error::from_raw_os_error(24)) && is_out_of_files(&io::Error::from_raw_os_error(23))
        );
        assert!(!is_out_of_files(&io::Error::from_raw_os_error(103)));
    }
}
