//! Metric families: their declarations, and their samples for one response.
//!
//! ```text
//!  metered! { #[metric("trunkline_…_total", "Help.")] pub field: Counter }      counted: at the field
//!  metric_rows! { LINKS: Gauge("trunkline_links", "Help.", "hub", …) }          looked up: in `admin::exposition`
//! ```
//!
//! `/metrics`, the export and the book's page all use these names, helps and labels.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_process::is_steering;

use super::{Buckets, Counter, Distribution, Gauge, Histogram};

/// Metric with values looked up for each response.
#[derive(Debug)]
pub(crate) struct MetricRow {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
}

/// Kind of a looked-up metric.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
}

/// Replaces the characters of a label's value that a terminal would obey: holders of keys choose names of hubs.
fn clean(value: &mut String) {
    if value.contains(is_steering) {
        *value = value.replace(is_steering, "\u{fffd}");
    }
}

/// Number or histogram of a metric, for one set of label values.
#[derive(Debug, Clone)]
pub(crate) enum Sample {
    Counter(u64),
    Gauge(u64),
    Histogram(Distribution),
}

pub(crate) type LabelValues = BTreeMap<&'static str, BTreeSet<String>>;

/// Sample with an optional label of its own.
pub(crate) type LabelledSample = (Option<(&'static str, &'static str)>, Sample);

/// Labels of a sample with their values, sorted by name.
pub(super) type LabelPairs = Vec<(&'static str, String)>;

/// Metrics of one response, by name.
#[derive(Debug, Default)]
pub(crate) struct Families(pub(super) BTreeMap<&'static str, Family>);

#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) help: &'static str,
    pub(super) samples: BTreeMap<LabelPairs, Sample>,
}

impl Families {
    pub(crate) fn add(&mut self, row: &MetricRow, values: &[&str], number: u64) {
        let labels = row.labels.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        let sample = match row.kind {
            MetricKind::Counter => Sample::Counter(number),
            MetricKind::Gauge => Sample::Gauge(number),
        };
        self.add_sample(row.name, row.help, labels, sample);
    }

    /// Adds a sample to the named family. Several fields may contribute to it; the help is taken from the first.
    pub(super) fn add_sample(
        &mut self,
        name: &'static str,
        help: &'static str,
        mut labels: LabelPairs,
        sample: Sample,
    ) {
        labels.iter_mut().for_each(|(_, value)| clean(value));
        labels.sort_unstable_by_key(|(label, _)| *label);
        let family = self.0.entry(name).or_default();
        if family.help.is_empty() {
            family.help = help;
        }
        match (family.samples.get_mut(&labels), sample) {
            (Some(Sample::Counter(sum)), Sample::Counter(more)) | (Some(Sample::Gauge(sum)), Sample::Gauge(more)) => {
                *sum += more;
            }
            (_, sample) => {
                family.samples.insert(labels, sample);
            }
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, LabelValues)> {
        self.0.iter().map(|(name, family)| {
            let mut labels = LabelValues::new();
            for (label, value) in family.samples.keys().flatten() {
                labels.entry(*label).or_default().insert(value.clone());
            }
            (*name, family.help, labels)
        })
    }
}

/// Set of counters with metric fields.
pub(crate) trait Metered {
    /// Adds the sums of several shards, with these labels added to the fields' own.
    fn show(all: &[&Self], labels: &[(&'static str, &str)], families: &mut Families);
}

/// Field that is a metric, or part of one.
pub(crate) trait Measure {
    /// Sums the values of several shards: one sample, or one per label value.
    fn samples<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<LabelledSample>
    where
        Self: 'a;

    fn show<'a>(
        all: impl Iterator<Item = &'a Self>,
        (name, help): (&'static str, &'static str),
        labels: &[(&'static str, &str)],
        families: &mut Families,
    ) where
        Self: 'a,
    {
        for (own, sample) in Self::samples(all) {
            let labels = labels.iter().copied().chain(own).map(|(label, value)| (label, value.to_owned()));
            families.add_sample(name, help, labels.collect(), sample);
        }
    }
}

impl Measure for Counter {
    fn samples<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<LabelledSample> {
        vec![(None, Sample::Counter(all.map(Self::get).sum()))]
    }
}

impl Measure for Gauge {
    fn samples<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<LabelledSample> {
        vec![(None, Sample::Gauge(all.map(Self::get).sum()))]
    }
}

impl<B: Buckets + 'static> Measure for Histogram<B> {
    fn samples<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<LabelledSample> {
        vec![(None, Sample::Histogram(Self::sum_up(all)))]
    }
}

/// Declares a set of counters. A field with `#[metric("name", "help", label = "value")]` is a metric. Of several fields
/// of a family, the first has the help, and all have a distinguishing label. A field with `#[metric(..)]` is a nested
/// set with additional labels.
macro_rules! metered {
    (
        $(#[$attribute:meta])*
        pub(crate) struct $name:ident {
            $($(#[doc = $doc:literal])* $(#[metric $row:tt])? $vis:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            $($(#[doc = $doc])* $vis $field: $type,)*
        }

        impl $crate::ground::metrics::Metered for $name {
            fn show(all: &[&Self], labels: &[(&'static str, &str)], families: &mut $crate::ground::metrics::Families) {
                $($crate::ground::metrics::metered!(@field $field, all, labels, families, $($row)?);)*
            }
        }
    };
    (@field $field:ident, $all:ident, $labels:ident, $families:ident,) => {};
    (@field $field:ident, $all:ident, $labels:ident, $families:ident, (.. $(, $label:ident = $value:literal)*)) => {
        $crate::ground::metrics::Metered::show(
            &$all.iter().map(|counters| &counters.$field).collect::<Vec<_>>(),
            &[$labels, &[$((stringify!($label), $value)),*]].concat(),
            $families,
        )
    };
    (
        @field $field:ident, $all:ident, $labels:ident, $families:ident,
        ($name:literal $(, $help:literal)? $(, $label:ident = $value:literal)*)
    ) => {
        $crate::ground::metrics::Measure::show(
            $all.iter().map(|counters| &counters.$field),
            ($name, concat!($($help)?)),
            &[$labels, &[$((stringify!($label), $value)),*]].concat(),
            $families,
        )
    };
}

/// Declares a label: an enum with metric texts, and a set of counters with one per value.
macro_rules! label {
    (
        $(#[$attribute:meta])*
        pub(crate) enum $name:ident as $label:literal, in $counters:ident {
            $($(#[$about:meta])* $value:ident = $text:literal,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$about])* $value,)*
        }

        impl $name {
            /// All values in declaration order.
            pub(crate) const ALL: [Self; [$($text),*].len()] = [$(Self::$value),*];

            #[must_use]
            pub(crate) fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }

        #[doc = concat!("A counter for each ", stringify!($name), ".")]
        #[derive(Debug, Default)]
        #[expect(non_snake_case, reason = "each counter has the name of its value")]
        pub(crate) struct $counters {
            $($value: $crate::ground::metrics::Counter,)*
        }

        impl $counters {
            pub(crate) fn of(&self, value: $name) -> &$crate::ground::metrics::Counter {
                match value {
                    $($name::$value => &self.$value,)*
                }
            }
        }

        impl $crate::ground::metrics::Measure for $counters {
            fn samples<'a>(
                all: impl Iterator<Item = &'a Self>,
            ) -> Vec<$crate::ground::metrics::LabelledSample> {
                let all: Vec<_> = all.collect();
                let sum = |value| all.iter().map(|counters| counters.of(value).get()).sum();
                let sample = |value: $name| {
                    (Some(($label, value.label())), $crate::ground::metrics::Sample::Counter(sum(value)))
                };
                $name::ALL.into_iter().map(sample).collect()
            }
        }
    };
}

/// Declares looked-up metrics, and a table of all of them.
macro_rules! metric_rows {
    ($table:ident { $($row:ident: $kind:ident($name:literal, $help:literal $(, $label:literal)*);)* }) => {
        $(
            const $row: $crate::ground::metrics::MetricRow = $crate::ground::metrics::MetricRow {
                name: $name,
                help: $help,
                kind: $crate::ground::metrics::MetricKind::$kind,
                labels: &[$($label),*],
            };
        )*

        /// All metrics declared here.
        pub(super) const $table: &[$crate::ground::metrics::MetricRow] = &[$($row),*];
    };
}

pub(crate) use {label, metered, metric_rows};

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    label! {
        /// Fruit as a metric label.
        pub(crate) enum Fruit as "fruit", in FruitCounters {
            Apple = "apple",
            Pear = "pear",
        }
    }

    metered! {
        pub(crate) struct BasketCounters {
            #[metric("eaten_total", "What was eaten.", by = "people")]
            pub eaten: FruitCounters,
            #[metric("eaten_total", by = "wasps")]
            pub stung: FruitCounters,
            pub uncounted: Counter,
            #[metric(.., side = "left")]
            pub left: LeafCounters,
        }
    }

    metered! {
        /// Counters of leaves, nested in a basket.
        pub(crate) struct LeafCounters {
            #[metric("leaves", "Leaves that are left.")]
            pub leaves: Gauge,
        }
    }

    metric_rows! {
        ROWS {
            WEIGHT: Gauge("weight", "Weight.", "basket");
        }
    }

    #[test]
    fn no_value_of_a_label_steers_a_terminal() {
        let mut families = Families::default();
        for (name, number) in [("a\u{1b}[2J", 1), ("b\u{202e}c", 2), ("d\u{9b}31m", 3), ("grüß \"x\"", 4)] {
            let labels = vec![("hub", name.to_owned())];
            families.add_sample("hubs", "Hubs.", labels, Sample::Counter(number));
        }
        let text = TextEncoder::new().encode_to_string(&families.into_proto()).unwrap();
        assert!(text.contains("hub=\"b\u{fffd}c\"} 2") && text.contains("grüß \\\"x\\\""), "{text}");
        assert!(!text.contains(|char| is_steering(char) && char != '\n'), "{text}");
    }

    #[test]
    fn a_family_has_the_samples_of_all_its_fields_summed_over_the_shards() {
        let (one, other) = (BasketCounters::default(), BasketCounters::default());
        one.eaten.of(Fruit::Apple).add(2);
        other.eaten.of(Fruit::Apple).increment();
        other.stung.of(Fruit::Pear).increment();
        other.left.leaves.set(7);
        other.uncounted.increment();
        let mut families = Families::default();
        BasketCounters::show(&[&one, &other], &[("basket", "b")], &mut families);
        families.add(&WEIGHT, &["b"], 2);
        families.add(&WEIGHT, &["b"], 3);
        let text = TextEncoder::new().encode_to_string(&families.into_proto()).unwrap();
        let expected = "# HELP eaten_total What was eaten.\n# TYPE eaten_total counter\n\
            eaten_total{basket=\"b\",by=\"people\",fruit=\"apple\"} 3\n\
            eaten_total{basket=\"b\",by=\"people\",fruit=\"pear\"} 0\n\
            eaten_total{basket=\"b\",by=\"wasps\",fruit=\"apple\"} 0\n\
            eaten_total{basket=\"b\",by=\"wasps\",fruit=\"pear\"} 1\n\
            # HELP leaves Leaves that are left.\n# TYPE leaves gauge\nleaves{basket=\"b\",side=\"left\"} 7\n\
            # HELP weight Weight.\n# TYPE weight gauge\nweight{basket=\"b\"} 5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_family_is_listed_with_the_values_of_its_labels() {
        let mut families = Families::default();
        BasketCounters::show(&[&BasketCounters::default()], &[], &mut families);
        ROWS.iter().for_each(|row| families.add(row, &[""], 0));
        let listed: Vec<_> =
            families.entries().map(|(name, _, labels)| (name, labels.into_values().collect())).collect();
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
        let (by, fruit) = (set(&["people", "wasps"]), set(&["apple", "pear"]));
        let expected: [(&str, Vec<_>); 3] =
            [("eaten_total", vec![by, fruit]), ("leaves", vec![set(&["left"])]), ("weight", vec![set(&[""])])];
        assert_eq!(listed, expected);
    }
}
