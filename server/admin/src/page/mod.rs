//! `/metrics`: the counters that shards publish, in a format of Prometheus. Names that memcached_exporter
//! uses mean the same here; the names of other metrics of the server begin with `corecached_`.

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

pub(crate) use classic::{CONTENT_TYPE as CLASSIC_CONTENT_TYPE, classic};

/// The page of metrics. It is written anew for each request.
#[derive(Debug)]
pub(crate) struct MetricsPage {
    view: AdminView,
    registry: Registry,
}

impl MetricsPage {
    /// The media type of the page.
    pub(crate) const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Makes the page of the server that `view` shows.
    #[must_use]
    pub(crate) fn new(view: &AdminView) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ViewCollector(view.clone())));
        Self { view: view.clone(), registry }
    }

    /// The text of the page in OpenMetrics format.
    ///
    /// # Errors
    /// A metric cannot be written. Writing to memory does not fail, so that is a fault in the code of the
    /// metric.
    pub(crate) async fn render(&self) -> Result<String, fmt::Error> {
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

/// Names and values of the labels of one sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics one after another, each with its help text and its type.
struct MetricsWriter<'e>(DescriptorEncoder<'e>);

impl MetricsWriter<'_> {
    /// Writes one number that only grows; the format adds `_total` to its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    /// Writes one number as it is now.
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    /// Writes one counter for each set of labels; see [`MetricsWriter::counter`].
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// Writes one counter of seconds for each set of labels.
    fn seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// Writes one gauge for each set of labels; see [`MetricsWriter::gauge`].
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
        // A number without labels is not written as a family: its sample would have empty braces, which some
        // parsers take for part of the name.
        if let Some((_, metric)) = rows.next_if(|(labels, _)| labels.is_empty()) {
            return metric.encode(encoder);
        }
        for (labels, metric) in rows {
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
