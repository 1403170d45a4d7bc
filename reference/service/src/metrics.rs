//! Counters, gauges and latencies, and their Prometheus text form.
//!
//! Handles are cheap to clone and to write; a series exists from the moment its handle is asked for, so that a zero is
//! told from an absence. Names: `dmp_<program>_<what>_<unit>`, counters end in `_total`, durations are in seconds.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// Quantiles are of the last one to two of these.
const LATENCY_WINDOW: Duration = Duration::from_secs(30);

/// Longest latency that is told apart, in microseconds: an hour. Longer ones count as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// The quantiles that are shown; 1 is the longest.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

/// All series of a program.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Family>>>);

/// A number that only rises.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

/// A number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// A distribution of durations.
#[derive(Debug, Clone)]
pub struct Latency(Arc<Mutex<Windows>>);

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Latency(Latency),
}

/// Labels of a series.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Metrics {
    /// The counter of this name and these labels.
    ///
    /// # Panics
    /// If the name is that of another kind.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        match self.series(name, help, "counter", labels, || Series::Counter(Counter::default())) {
            Series::Counter(counter) => counter,
            Series::Gauge(_) | Series::Latency(_) => panic!("{name} is no counter"),
        }
    }

    /// The gauge of this name and these labels.
    ///
    /// # Panics
    /// If the name is that of another kind.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        match self.series(name, help, "gauge", labels, || Series::Gauge(Gauge::default())) {
            Series::Gauge(gauge) => gauge,
            Series::Counter(_) | Series::Latency(_) => panic!("{name} is no gauge"),
        }
    }

    /// The latency of this name and these labels.
    ///
    /// # Panics
    /// If the name is that of another kind.
    #[must_use]
    pub fn latency(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Latency {
        match self.series(name, help, "summary", labels, || Series::Latency(Latency::new())) {
            Series::Latency(latency) => latency,
            Series::Counter(_) | Series::Gauge(_) => panic!("{name} is no latency"),
        }
    }

    /// Prometheus text, format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &*self.lock() {
            let _infallible = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for (labels, series) in &family.series {
                series.render(name, labels, &mut text);
            }
        }
        text
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: Labels<'_>,
        new: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.lock();
        let family = families.entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        family.series.entry(render_labels(labels)).or_insert_with(new).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// How many by now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// It is now so much.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// It is now so many; what does not fit is the most there is.
    pub fn set_count(&self, count: usize) {
        self.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How much it is.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Two histograms that take turns, so that quantiles forget; sum and count never do.
#[derive(Debug)]
struct Windows {
    current: Histogram<u64>,
    previous: Histogram<u64>,
    turned: Instant,
    sum: Duration,
    count: u64,
}

impl Latency {
    fn new() -> Latency {
        let empty = Histogram::new_with_max(LATENCY_MAX_US, 3).expect("an hour in microseconds to 3 digits is valid");
        let windows =
            Windows { current: empty.clone(), previous: empty, turned: Instant::now(), sum: Duration::ZERO, count: 0 };
        Latency(Arc::new(Mutex::new(windows)))
    }

    /// One more.
    pub fn record(&self, took: Duration) {
        let mut windows = self.windows();
        windows.current.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LATENCY_MAX_US));
        windows.sum += took;
        windows.count += 1;
    }

    /// How many by now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.windows().count
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.turned.elapsed() >= LATENCY_WINDOW {
            windows.turned = Instant::now();
            let Windows { current, previous, .. } = &mut *windows;
            std::mem::swap(current, previous);
            current.reset();
        }
        windows
    }
}

impl Series {
    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _infallible = match self {
            Series::Counter(counter) => writeln!(text, "{name}{braced} {}", counter.get()),
            Series::Gauge(gauge) => writeln!(text, "{name}{braced} {}", gauge.get()),
            Series::Latency(latency) => {
                let windows = latency.windows();
                let mut both = windows.current.clone();
                both.add(&windows.previous).expect("both have the same bounds");
                let comma = if labels.is_empty() { "" } else { "," };
                for quantile in QUANTILES {
                    let seconds = Duration::from_micros(both.value_at_quantile(quantile)).as_secs_f64();
                    let _infallible = writeln!(text, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} {seconds}");
                }
                let _infallible = writeln!(text, "{name}_sum{braced} {}", windows.sum.as_secs_f64());
                writeln!(text, "{name}_count{braced} {}", windows.count)
            }
        };
    }
}

fn render_labels(labels: Labels<'_>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_in_the_text_with_its_labels_and_value() {
        let metrics = Metrics::default();
        metrics.counter("dmp_test_total", "Counts.", &[("class", "a \"b\"\n\\")]).add(3);
        metrics.counter("dmp_test_total", "Counts.", &[("class", "c")]).increment();
        metrics.gauge("dmp_test_depth", "Deep.", &[]).set(-7);
        let latency = metrics.latency("dmp_test_seconds", "Long.", &[("leg", "up")]);
        (1..=1_000).for_each(|ms| latency.record(Duration::from_millis(ms)));

        let text = metrics.render();
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            values.insert(series.to_owned(), value.parse::<f64>().expect("a number"));
        }
        assert_eq!(values[r#"dmp_test_total{class="a \"b\"\n\\"}"#], 3.0);
        assert_eq!(values[r#"dmp_test_total{class="c"}"#], 1.0);
        assert_eq!(values["dmp_test_depth"], -7.0);
        assert_eq!(values[r#"dmp_test_seconds_count{leg="up"}"#], 1_000.0);
        assert!((values[r#"dmp_test_seconds_sum{leg="up"}"#] - 500.5).abs() < 1e-6);
        let p99 = values[r#"dmp_test_seconds{leg="up",quantile="0.99"}"#];
        assert!((0.985..=0.995).contains(&p99), "{p99}");
        assert!(text.contains("# TYPE dmp_test_seconds summary\n") && text.contains("# HELP dmp_test_total Counts.\n"));
    }

    #[test]
    fn asking_twice_for_a_series_gives_the_same_one() {
        let metrics = Metrics::default();
        metrics.counter("dmp_test_total", "Counts.", &[]).add(2);
        metrics.counter("dmp_test_total", "Counts.", &[]).add(2);
        assert_eq!(metrics.counter("dmp_test_total", "Counts.", &[]).get(), 4);
    }
}
