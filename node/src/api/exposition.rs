//! Prometheus' text exposition format, version 0.0.4: families with their help and type, then
//! their samples, label values escaped.

use std::fmt::{Display, Write};

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

/// A text that is being written.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// A family whose samples are being written.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Exposition {
    /// Begins a family.
    pub(super) fn family(&mut self, name: &'static str, kind: MetricType, help: &str) -> Family<'_> {
        let kind = match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        for line in [format!("# HELP {name} {help}"), format!("# TYPE {name} {kind}")] {
            self.text.push_str(&line);
            self.text.push('\n');
        }
        Family { text: &mut self.text, name }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Writes a sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.named("", labels, value);
    }

    /// Writes a histogram: counts by upper bound, the last of them without one, and the sum.
    pub(super) fn histogram(&mut self, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        for (place, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(place).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            self.named("_bucket", &[("le", &bound)], below);
        }
        self.named("_sum", &[], sum);
        self.named("_count", &[], below);
    }

    fn named(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (place, (name, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        if writeln!(self.text, " {value}").is_err() {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_histograms_are_written_as_prometheus_reads_them() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("shop_calls_total", MetricType::Counter, "Calls,\nwith a \\");
        family.sample(&[("network", "4\"g\\\n"), ("result", "success")], 7);
        family.sample(&[], 0.25);
        exposition.family("shop_took_seconds", MetricType::Histogram, "Times").histogram(&[0.01, 1.0], &[2, 1, 4], 9.5);
        let expected = r#"# HELP shop_calls_total Calls,\nwith a \\
# TYPE shop_calls_total counter
shop_calls_total{network="4\"g\\\n",result="success"} 7
shop_calls_total 0.25
# HELP shop_took_seconds Times
# TYPE shop_took_seconds histogram
shop_took_seconds_bucket{le="0.01"} 2
shop_took_seconds_bucket{le="1"} 3
shop_took_seconds_bucket{le="+Inf"} 7
shop_took_seconds_sum 9.5
shop_took_seconds_count 7
"#;
        assert_eq!(exposition.into_text(), expected);
    }
}
