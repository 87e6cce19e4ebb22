//! What the compiler process gets as stdin: the component itself, or a socket with descriptors.
//!
//! Descriptors are sent over a socket because nothing else hands more than the standard streams to exactly one child.
//! Descriptors that children inherit would reach every compiler process that starts at the same moment.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Number of descriptors in the message.
const DESCRIPTORS: usize = 3;

/// Files that the compiler process works with.
#[derive(Debug)]
pub(super) struct Input {
    /// The component, positioned at its start.
    pub(super) component: File,
    /// Functions that earlier compilations of the namespace produced, and the file for those of this one; `None` when no
    /// functions are reused.
    pub(super) functions: Option<(File, File)>,
}

/// Returns the stdin of a compiler process that receives these files. They are waiting in it, so the caller keeps nothing
/// open.
///
/// # Errors
/// Returns an error when file descriptors are exhausted.
pub(super) fn send(component: &File, pack: &File, added: &File) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let files = [component.as_fd(), pack.as_fd(), added.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("the message has no room for descriptors"));
    }
    // descriptors need at least one byte that accompanies them
    sendmsg(
        ours,
        &[IoSlice::new(b"d")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(theirs)
}

/// Receives the files from stdin. A stdin that is not a socket is the component.
///
/// # Errors
/// Returns an error when the message is incomplete.
pub(super) fn receive() -> io::Result<Input> {
    let stdin = io::stdin();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut content = [IoSliceMut::new(&mut byte)];
    match recvmsg(&stdin, &mut content, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(_) => {}
        Err(Errno::NOTSOCK) => {
            return Ok(Input {
                component: stdin.as_fd().try_clone_to_owned()?.into(),
                functions: None,
            });
        }
        Err(error) => return Err(error.into()),
    }
    let mut files = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .map(File::from);
    let (component, pack, added) = (files.next(), files.next(), files.next());
    match (component, pack, added) {
        (Some(component), Some(pack), Some(added)) => Ok(Input {
            component,
            functions: Some((pack, added)),
        }),
        _ => Err(io::Error::other("stdin has no descriptors")),
    }
}
