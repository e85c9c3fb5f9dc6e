//! What happened on secured connections of clients.

use std::fmt;
use std::sync::atomic::Ordering;

use super::Sheet;
use crate::server::Shared;

pub(super) fn write(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    let Some(certificates) = &shared.certificates else { return Ok(()) };
    let counts = &certificates.counts;
    sheet.counter(
        "corecached_tls_new_sessions",
        "TLS handshakes done that resumed no earlier session",
        counts.new_sessions.load(Ordering::Relaxed),
    )?;
    sheet.counters(
        "corecached_tls_errors",
        "TLS connections that broke, by whether they had been secured",
        [
            (vec![("stage", "handshake")], counts.handshake_errors.load(Ordering::Relaxed)),
            (vec![("stage", "open")], counts.proto_errors.load(Ordering::Relaxed)),
        ],
    )?;
    sheet.counter(
        "corecached_tls_handshake_timeouts",
        "Connections closed as their TLS handshake was not done in time",
        counts.handshake_timeouts.load(Ordering::Relaxed),
    )?;
    sheet.gauge(
        "corecached_tls_certificates_age_seconds",
        "Seconds since the certificates were read",
        certificates.age_s(),
    )
}
