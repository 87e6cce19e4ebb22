//! What the system has too little of at a moment: says nothing about the file that was to be opened or mapped.

use std::error::Error;
use std::io;

use rustix::io::Errno;

const EXHAUSTION_ERRORS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];

/// Whether an error, or what it came from, is for want of descriptors, mappings or memory.
pub(crate) fn is_resource_exhaustion(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(one) = next {
        let io = one
            .downcast_ref::<io::Error>()
            .and_then(Errno::from_io_error);
        if let Some(errno) = one.downcast_ref::<Errno>().copied().or(io) {
            return EXHAUSTION_ERRORS.contains(&errno);
        }
        next = one.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_the_system_is_told_from_a_fault_of_the_file() {
        for (errno, short) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::ACCESS, false),
            (Errno::IO, false),
        ] {
            assert_eq!(is_resource_exhaustion(&errno), short, "{errno}");
            assert_eq!(
                is_resource_exhaustion(&io::Error::from(errno)),
                short,
                "{errno}"
            );
            let told = wasmtime::Error::from(errno).context("mmap failed");
            assert_eq!(told.chain().any(is_resource_exhaustion), short, "{errno}");
        }
        assert!(!is_resource_exhaustion(&io::Error::other("damaged")));
    }
}
