//! `/metrics`: what shards publish, as Prometheus reads it. Names that memcached_exporter uses mean the same here; what
//! only this server has begins with `corecached_`.

mod cache;
mod classic;
mod process;
pub(super) mod proxy;
mod runtime;
mod tls;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::server::Shared;

pub use classic::{CONTENT_TYPE as CLASSIC_CONTENT_TYPE, classic};

/// The page, made anew for everyone who asks.
#[derive(Debug)]
pub struct Page {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Page {
    /// Of what it is.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The page of a server.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Numbers(Arc::clone(shared))));
        Self { shared: Arc::clone(shared), registry }
    }

    /// Its text.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub async fn render(&self) -> Result<String, fmt::Error> {
        if self.shared.config.is_proxy {
            self.shared.descriptions.refresh(&self.shared.presence).await;
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Numbers(Arc<Shared>);

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        runtime::write(&mut sheet, &self.0)?;
        process::write(&mut sheet, &self.0)?;
        tls::write(&mut sheet, &self.0)?;
        if self.0.config.is_proxy {
            proxy::write(&mut sheet, &self.0)
        } else {
            cache::write(&mut sheet, &self.0)
        }
    }
}

/// Label names and values of one row.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Takes down metrics, one after the other.
struct Sheet<'e>(DescriptorEncoder<'e>);

impl Sheet<'_> {
    /// One number that only grows; `_total` is added to its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    /// One number as it is now.
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    /// See [`Sheet::counter`]; one row each.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// The same, in seconds.
    fn seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// See [`Sheet::gauge`]; one row each.
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let level = |value| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, level(value))))
    }

    fn rows<'a, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, M)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        let mut rows = rows.into_iter().peekable();
        // One number without labels: as a family it would be written with empty braces, which is another name to some.
        if let Some((_, metric)) = rows.next_if(|(labels, _)| labels.is_empty()) {
            return metric.encode(encoder);
        }
        for (labels, metric) in rows {
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
