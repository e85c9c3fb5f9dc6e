//! What the kernel grants of io_uring: how large a ring and with which features, found by trying and never by version.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, types};

use crate::buffer_ring::BufferRing;

/// Ring sizes to try, submission and completion entries: locked memory may be charged per user id, so a smaller ring
/// is tried before giving up.
const RING_SIZES: [(u32, u32); 4] = [(1024, 16384), (512, 4096), (256, 1024), (128, 512)];
/// The group of the provided buffers that are tried.
const GROUP: u16 = 0;

/// What the kernel gave us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Submission and completion entries.
    pub entries: (u32, u32),
    /// Completions are posted only when asked for, without inter-processor interrupts (6.1).
    pub deferred_taskrun: bool,
}

/// The largest ring that is granted, with all the features that are.
///
/// # Errors
/// What the kernel said of the last that was tried.
pub(super) fn build_ring() -> io::Result<(IoUring, Features)> {
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
                    let features = Features { entries: (submissions, completions), deferred_taskrun };
                    return Ok((ring, features));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOMEM) => refused = error, // a smaller one may fit under RLIMIT_MEMLOCK
                    Some(libc::EINVAL) => {
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

/// Whether this process may use io_uring as this driver does: sets up a ring, receives through a multishot receive
/// with provided buffers, and takes it down again.
///
/// # Errors
/// The step that failed and what the kernel said.
pub fn probe() -> Result<Features, String> {
    let refused = |step: &str, error: &dyn std::fmt::Display| format!("{step}: {error}");
    let (mut ring, features) = build_ring().map_err(|error| refused("io_uring_setup", &error))?;
    let mut buffers =
        BufferRing::register(&ring, 2, 256, GROUP).map_err(|error| refused("provided buffers", &error))?;
    let (near, far) =
        std::os::unix::net::UnixStream::pair().map_err(|error| refused("socketpair", &error))?;
    io::Write::write_all(&mut &far, b"ping").map_err(|error| refused("write", &error))?;
    let receive = opcode::RecvMulti::new(types::Fd(near.as_raw_fd()), GROUP).build();
    // SAFETY: the socket and the buffers outlive the ring's use of them: `far` is closed below, which ends it.
    unsafe { ring.submission().push(&receive) }.map_err(|error| refused("submit", &error))?;
    let limit = types::Timespec::new().sec(1);
    let args = types::SubmitArgs::new().timespec(&limit);
    ring.submitter().submit_with_args(1, &args).map_err(|error| refused("io_uring_enter", &error))?;
    let entry = ring.completion().next().ok_or_else(|| "multishot receive: no completion".to_owned())?;
    if entry.result() != 4 || !cqueue::more(entry.flags()) {
        let error = io::Error::from_raw_os_error(-entry.result().min(0));
        return Err(refused("multishot receive (Linux 6.0)", &error));
    }
    drop(far);
    let _ = ring.submitter().submit_with_args(1, &args);
    buffers.unregister(&ring.submitter());
    Ok(features)
}
