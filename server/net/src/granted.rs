//! What the kernel grants of io_uring: how large a ring and with which features, found by trying and never by
//! version.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, cqueue, opcode, types};
use rustix::io::Errno;

use crate::buffer_ring::BufferRing;

/// Ring sizes to try, submission and completion entries: locked memory may be charged per user id, so a
/// smaller ring is tried before giving up.
const RING_SIZES: [(u32, u32); 4] = [(1024, 16384), (512, 4096), (256, 1024), (128, 512)];
/// The group of the provided buffers that are tried.
const GROUP: u16 = 0;
/// What the probe sends to itself.
const PROBE_BYTES: &[u8] = b"ping";

/// The optional features of io_uring that the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UringFeatures {
    /// Completions are posted only when asked for, without inter-processor interrupts (6.1).
    pub(crate) deferred_taskrun: bool,
}

/// A step of the probe that failed: io_uring cannot be used by this process.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct UringRefused {
    step: &'static str,
    source: io::Error,
}

/// Builds the largest ring that is granted, with all the features that are.
///
/// # Errors
/// What the kernel answered to the last attempt.
pub(crate) fn build_ring() -> io::Result<(IoUring, UringFeatures)> {
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for deferred_taskrun in [true, false] {
        for (submissions, completions) in RING_SIZES {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(completions).setup_submit_all();
            if deferred_taskrun {
                builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun().setup_taskrun_flag();
            }
            match builder.build(submissions) {
                Ok(ring) => {
                    if !ring.params().is_feature_skip_cqe_on_success() || !ring.params().is_feature_ext_arg()
                    {
                        return Err(io::Error::other(
                            "the kernel is too old: it cannot skip completions of sends",
                        ));
                    }
                    return Ok((ring, UringFeatures { deferred_taskrun }));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOMEM) => refused = error, // a smaller one may fit under RLIMIT_MEMLOCK
                    Some(Errno::INVAL) => {
                        refused = error;
                        break; // a flag this kernel does not know
                    }
                    _ => return Err(error),
                },
            }
        }
    }
    Err(refused)
}

/// Whether this process may use io_uring as [`crate::uring::Uring`] does: sets up a ring, receives through a
/// multishot receive with provided buffers, and takes it down again.
///
/// # Errors
/// The step that failed, and what the kernel answered.
pub fn probe() -> Result<(), UringRefused> {
    let (mut ring, _) = build_ring().map_err(refused("io_uring_setup"))?;
    // SAFETY: whatever comes of the receive, the ring is closed before the buffers are dropped.
    let buffers = unsafe { BufferRing::register(&ring, 2, 256, GROUP) };
    let mut buffers = buffers.map_err(refused("provided buffers"))?;
    let received = receive_probe(&mut ring);
    buffers.unregister(&ring.submitter());
    drop(ring);
    received
}

/// Receives [`PROBE_BYTES`] through a multishot receive, and ends it.
fn receive_probe(ring: &mut IoUring) -> Result<(), UringRefused> {
    let (near, far) = UnixStream::pair().map_err(refused("socketpair"))?;
    io::Write::write_all(&mut &far, PROBE_BYTES).map_err(refused("write"))?;
    let receive = opcode::RecvMulti::new(types::Fd(near.as_raw_fd()), GROUP).build();
    // SAFETY: the entry points to no memory, and the socket is open until it is submitted.
    let pushed = unsafe { ring.submission().push(&receive) };
    pushed.map_err(|error| refused("submit")(io::Error::other(error)))?;
    let limit = types::Timespec::new().sec(1);
    let args = types::SubmitArgs::new().timespec(&limit);
    ring.submitter().submit_with_args(1, &args).map_err(refused("io_uring_enter"))?;
    let Some(entry) = ring.completion().next() else {
        return Err(refused("multishot receive")(io::Error::other("no completion")));
    };
    if entry.result() != PROBE_BYTES.len() as i32 || !cqueue::more(entry.flags()) {
        let error = io::Error::from_raw_os_error(-entry.result().min(0));
        return Err(refused("multishot receive (Linux 6.0)")(error));
    }
    drop(far); // the end of the stream ends the receive
    let _ = ring.submitter().submit_with_args(1, &args);
    Ok(())
}

fn refused(step: &'static str) -> impl Fn(io::Error) -> UringRefused {
    move |source| UringRefused { step, source }
}
