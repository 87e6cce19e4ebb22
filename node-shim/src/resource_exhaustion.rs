//! Recognises errors caused by exhausted system resources, which do not depend on the file that was opened or mapped.

use std::error::Error;
use std::io;

use rustix::io::Errno;

const EXHAUSTION_ERRORS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];

/// Returns whether an error or one of its sources means that file descriptors, memory mappings or memory are
/// exhausted.
pub(crate) fn is_resource_exhaustion(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(one) = next {
        if one.is::<wasmtime::OutOfMemory>() {
            return true;
        }
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
    fn exhausted_resources_are_distinguished_from_faulty_files() {
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
            let wrapped = wasmtime::Error::from(errno).context("mmap failed");
            assert_eq!(
                wrapped.chain().any(is_resource_exhaustion),
                short,
                "{errno}"
            );
        }
        assert!(!is_resource_exhaustion(&io::Error::other("damaged")));
        assert!(is_resource_exhaustion(&wasmtime::OutOfMemory::new(1)));
    }
}
