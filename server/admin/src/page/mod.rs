//! `/metrics`: what shards publish, as Prometheus reads it. Names that memcached_exporter uses mean the same here; what
//! only this server has begins with `corecached_`.

mod cache;
mod classic;
mod process;
pub(super) mod proxy;
mod runtime;
mod tls;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::view::{AdminView, Role};

pub use classic::{CONTENT_TYPE as CLASSIC_CONTENT_TYPE, classic};

/// The page of metrics, written anew for each request.
#[derive(Debug)]
pub struct MetricsPage {
    view: AdminView,
    registry: Registry,
}

impl MetricsPage {
    /// The media type of the page.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The page of a server.
    #[must_use]
    pub fn new(view: &AdminView) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ViewCollector(view.clone())));
        Self { view: view.clone(), registry }
    }

    /// The text of the page, in the format of OpenMetrics.
    ///
    /// # Errors
    /// When a metric cannot be written. Writing to memory does not fail, so that would be a fault of a metric's own.
    pub async fn render(&self) -> Result<String, fmt::Error> {
        self.view.refresh().await;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct ViewCollector(AdminView);

impl Collector for ViewCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = MetricsWriter(encoder);
        runtime::write(&mut writer, &self.0)?;
        process::write(&mut writer, &self.0)?;
        tls::write(&mut writer, &self.0)?;
        match &self.0.role {
            Role::Proxy(proxy) => proxy::write(&mut writer, proxy),
            Role::Cache(cache) => cache::write(&mut writer, &self.0.server, cache),
        }
    }
}

/// Label names and values of one row.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics, one after the other.
struct MetricsWriter<'e>(DescriptorEncoder<'e>);

impl MetricsWriter<'_> {
    /// One number that only grows; `_total` is added to its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    /// One number as it is now.
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    /// See [`MetricsWriter::counter`]; one row each.
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

    /// See [`MetricsWriter::gauge`]; one row each.
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
