//! Metrics of the secured connections of clients.

use std::fmt;
use std::sync::atomic::Ordering;

use super::MetricsWriter;
use crate::view::AdminView;

pub(super) fn write(writer: &mut MetricsWriter<'_>, view: &AdminView) -> fmt::Result {
    let Some(certificates) = &view.certificates else { return Ok(()) };
    let counts = &certificates.counters;
    writer.counter(
        "corecached_tls_new_sessions",
        "TLS handshakes done that resumed no earlier session",
        counts.new_sessions.load(Ordering::Relaxed),
    )?;
    writer.counters(
        "corecached_tls_errors",
        "TLS connections that broke, by whether they had been secured",
        [
            (vec![("stage", "handshake")], counts.handshake_errors.load(Ordering::Relaxed)),
            (vec![("stage", "open")], counts.proto_errors.load(Ordering::Relaxed)),
        ],
    )?;
    writer.counter(
        "corecached_tls_handshake_timeouts",
        "Connections closed as their TLS handshake was not done in time",
        counts.handshake_timeouts.load(Ordering::Relaxed),
    )?;
    writer.gauge(
        "corecached_tls_certificates_age_seconds",
        "Seconds since the certificates were read",
        certificates.age_s(),
    )
}
