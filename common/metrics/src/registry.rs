//! The numbers, and who keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Buckets, Key, Kind, Metric, Unit};

/// What one agent counts. Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    agent: &'static str,
    families: Mutex<Families>,
}

/// Each metric by its name, with its series by the values of their labels.
pub(crate) type Families = BTreeMap<&'static str, BTreeMap<Vec<String>, Number>>;

pub(crate) enum Number {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    /// Asked for when somebody looks; none: there is no such number now.
    Read(Box<dyn Fn() -> Option<f64> + Send + Sync>),
}

impl Metrics {
    /// Nothing is counted yet; `agent` is the label that every series gets.
    pub fn new(agent: &'static str) -> Self {
        let families = Mutex::default();
        Self(Arc::new(Inner { agent, families }))
    }

    /// Whose they are.
    pub fn agent(&self) -> &'static str {
        self.0.agent
    }

    /// The counter with these labels.
    ///
    /// # Panics
    /// If the metric is none, or a label's value is not one it can have: a fault of the program.
    pub fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Counter {
        assert!(matches!(metric.kind, Kind::Counter), "{}", metric.name);
        let number = || Number::Counter(Counter::default());
        self.number(metric, labels, number, |number| match number {
            Number::Counter(counter) => Some(counter.clone()),
            _ => None,
        })
    }

    /// The gauge with these labels.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Gauge {
        assert!(matches!(metric.kind, Kind::Gauge), "{}", metric.name);
        let number = || Number::Gauge(Gauge::default());
        self.number(metric, labels, number, |number| match number {
            Number::Gauge(gauge) => Some(gauge.clone()),
            _ => None,
        })
    }

    /// The histogram with these labels.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn histogram(&self, metric: &'static Metric, labels: &[&str]) -> Histogram {
        let Kind::Histogram(buckets) = metric.kind else {
            panic!("{} is no histogram", metric.name)
        };
        let number = || Number::Histogram(Histogram::new(buckets));
        self.number(metric, labels, number, |number| match number {
            Number::Histogram(histogram) => Some(histogram.clone()),
            _ => None,
        })
    }

    /// Counters for every value of the last labels; `labels` are those before.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn counters<K: Key>(&self, metric: &'static Metric, labels: &[&str]) -> Table<K, Counter> {
        self.counters_of(metric, labels, |_| true)
    }

    /// As [`Metrics::counters`], for those that can come about; others are counted nowhere.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn counters_of<K: Key>(
        &self,
        metric: &'static Metric,
        labels: &[&str],
        can_be: impl Fn(K) -> bool,
    ) -> Table<K, Counter> {
        Table::of(labels, |key, labels| match can_be(key) {
            true => self.counter(metric, labels),
            false => Counter::default(),
        })
    }

    /// A number that is asked for whenever somebody looks. It must be had at once, whatever there is in the queue, and must
    /// not keep alive what it looks at.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn read(
        &self,
        metric: &'static Metric,
        labels: &[&str],
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let labels = checked(metric, labels);
        let mut families = self.families();
        let series = families.entry(metric.name).or_default();
        series.insert(labels, Number::Read(Box::new(read)));
    }

    /// How a gauge stands now, by the values of its labels; without what cannot be told.
    pub fn stands(&self, metric: &'static Metric) -> Vec<(Vec<String>, f64)> {
        let families = self.families();
        let series = families.get(metric.name).into_iter().flatten();
        let stands = series.filter_map(|(labels, number)| {
            let value = match number {
                Number::Read(read) => read()?,
                Number::Gauge(gauge) => gauge.value() as f64,
                Number::Counter(_) | Number::Histogram(_) => return None,
            };
            Some((labels.clone(), value))
        });
        stands.collect()
    }

    fn number<T>(
        &self,
        metric: &'static Metric,
        labels: &[&str],
        new: impl FnOnce() -> Number,
        known: impl FnOnce(&Number) -> Option<T>,
    ) -> T {
        let labels = checked(metric, labels);
        let mut families = self.families();
        let series = families.entry(metric.name).or_default();
        let number = series.entry(labels).or_insert_with(new);
        let Some(number) = known(number) else {
            panic!("{} is read, not counted", metric.name)
        };
        number
    }

    pub(crate) fn families(&self) -> MutexGuard<'_, Families> {
        let families = &self.0.families;
        families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("agent", &self.0.agent)
            .finish_non_exhaustive()
    }
}

fn checked(metric: &'static Metric, labels: &[&str]) -> Vec<String> {
    assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    for (label, value) in metric.labels.iter().zip(labels) {
        let known = label
            .words
            .is_none_or(|words| words.iter().any(|(word, _)| word == value));
        assert!(known, "{}: {}={value:?}", metric.name, label.name);
    }
    labels.iter().map(|&value| value.to_owned()).collect()
}

/// Only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// As much as this.
    pub fn set(&self, value: u64) {
        self.0
            .store(i64::try_from(value).unwrap_or(i64::MAX), Relaxed);
    }

    /// One more, until what is returned is dropped.
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Relaxed);
        Held(self.clone())
    }

    /// How it stands.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counts in a gauge while it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// How many were up to which size.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Distribution>);

#[derive(Debug)]
struct Distribution {
    buckets: &'static Buckets,
    /// One for each bound, and one for what is beyond.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(buckets: &'static Buckets) -> Self {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::default());
        Self(Arc::new(Distribution {
            buckets,
            counts: counts.collect(),
            sum: AtomicU64::default(),
        }))
    }

    /// One of this size, in the unit of the bounds.
    pub fn observe(&self, size: u64) {
        let Distribution {
            buckets,
            counts,
            sum,
        } = &*self.0;
        let place = buckets.bounds.partition_point(|bound| *bound < size);
        if let Some(count) = counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        sum.fetch_add(size, Relaxed);
    }

    /// One that took so long.
    pub fn took(&self, time: Duration) {
        debug_assert_eq!(self.0.buckets.unit, Unit::Seconds);
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Upper bounds with how many were up to each, the sum of all, and how many there are.
    pub(crate) fn read(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let Distribution {
            buckets,
            counts,
            sum,
        } = &*self.0;
        let scale = match buckets.unit {
            Unit::Seconds => 1e6,
            Unit::Bytes | Unit::Ones => 1.0,
        };
        let mut all = 0;
        let mut up_to = Vec::with_capacity(buckets.bounds.len());
        // `all` is the sum of what is read, so that the text agrees with itself while others count.
        for (bound, count) in buckets.bounds.iter().zip(counts) {
            all += count.load(Relaxed);
            up_to.push((*bound as f64 / scale, all));
        }
        all += counts.last().map_or(0, |beyond| beyond.load(Relaxed));
        (up_to, sum.load(Relaxed) as f64 / scale, all)
    }
}

/// A number for each value of some labels.
#[derive(Clone, Debug)]
pub struct Table<K, N> {
    numbers: Box<[N]>,
    keys: PhantomData<K>,
}

impl<K: Key, N> Table<K, N> {
    fn of(before: &[&str], mut number: impl FnMut(K, &[&str]) -> N) -> Self {
        let numbers = K::all().into_iter().map(|key| {
            let labels = [before, &key.texts()].concat();
            number(key, &labels)
        });
        Self {
            numbers: numbers.collect(),
            keys: PhantomData,
        }
    }

    /// That of these values.
    pub fn of_key(&self, key: K) -> &N {
        // A key's place is among its keys: they are made by one macro.
        &self.numbers[key.place()]
    }
}

impl<K: Key> Table<K, Counter> {
    /// One more of these.
    pub fn count(&self, key: K) {
        self.of_key(key).count();
    }

    /// So many more of these.
    pub fn add(&self, key: K, more: u64) {
        self.of_key(key).add(more);
    }
}
