//! Results of slices: medians over the rounds, with minimum and maximum.

use std::collections::BTreeMap;

use anyhow::Result;
use trunkline_bench::spread::Spread;

use crate::peer::Peer;
use crate::slice::{Slice, Window};

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MICRO: f64 = 1e3;
const MICROS_PER_MILLI: f64 = 1e3;

/// Name of the generator in the list of a peer's processes.
pub(crate) const GENERATOR: &str = "generator, not counted";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Deliveries,
    Echoes,
    Connects,
    /// Connects by resuming the TLS session of an earlier connect.
    Resumed,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Deliveries, Self::Echoes, Self::Connects, Self::Resumed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::Echoes => "echoes",
            Self::Connects => "connects",
            Self::Resumed => "TLS resumed",
        }
    }

    /// Window in which it was measured; `None` if the peer does not support it.
    pub(crate) fn of(self, slice: &Slice) -> Option<&Window> {
        match self {
            Self::Deliveries => Some(&slice.deliveries),
            Self::Echoes => slice.echoes.as_ref(),
            Self::Connects => Some(&slice.connects),
            Self::Resumed => slice.resumed.as_ref(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) peer: Peer,
    pub(crate) rounds: usize,
    /// Results by [`Work`], in its order.
    pub(crate) works: [Option<Done>; 4],
    /// Bytes per idle connection in all processes.
    pub(crate) idle_bytes: Spread,
    pub(crate) idle_bytes_of: BTreeMap<String, Spread>,
}

#[derive(Debug)]
pub(crate) struct Done {
    /// Units per second of CPU time of all processes.
    pub(crate) per_cpu_second: Spread,
    pub(crate) per_cpu_second_alone: Option<Spread>,
    pub(crate) p50_ms: Spread,
    pub(crate) p99_ms: Spread,
    /// CPU time per unit in µs, of each process and of the generator.
    pub(crate) micros_of: BTreeMap<String, Spread>,
    /// Rounds in which the generator used at least as much CPU time as the measured servers.
    pub(crate) rounds_of_busy_generator: usize,
}

impl Figures {
    /// Computes the results of each measured peer, in table order.
    pub(crate) fn of_all(slices: &[Slice]) -> Result<Vec<Self>> {
        let of = |peer| -> Vec<&Slice> { slices.iter().filter(|slice| slice.peer == peer).collect() };
        let measured = Peer::ALL.into_iter().map(|peer| (peer, of(peer))).filter(|(_, slices)| !slices.is_empty());
        measured.map(|(peer, slices)| Self::of(peer, &slices)).collect()
    }

    fn of(peer: Peer, slices: &[&Slice]) -> Result<Self> {
        let [deliveries, echoes, connects, resumed] = Work::ALL.map(|work| {
            let windows: Vec<&Window> = slices.iter().filter_map(|slice| work.of(slice)).collect();
            (!windows.is_empty()).then(|| Done::of(peer, &windows)).transpose()
        });
        let per_client = |slice: &Slice, bytes: i64| bytes as f64 / f64::from(slice.idle.clients);
        let names = slices.iter().flat_map(|slice| slice.idle.bytes.keys());
        let of = |name: &String| {
            let bytes = |slice: &&Slice| slice.idle.bytes.get(name).map(|bytes| per_client(slice, *bytes));
            Ok((name.clone(), Spread::of(slices.iter().filter_map(bytes))?))
        };
        Ok(Self {
            peer,
            rounds: slices.len(),
            works: [deliveries?, echoes?, connects?, resumed?],
            idle_bytes: Spread::of(slices.iter().map(|slice| per_client(slice, slice.idle.bytes.values().sum())))?,
            idle_bytes_of: names.map(of).collect::<Result<_>>()?,
        })
    }

    /// Results of one kind of work; `None` if the peer does not support it.
    pub(crate) fn work(&self, work: Work) -> Option<&Done> {
        let [deliveries, echoes, connects, resumed] = &self.works;
        match work {
            Work::Deliveries => deliveries.as_ref(),
            Work::Echoes => echoes.as_ref(),
            Work::Connects => connects.as_ref(),
            Work::Resumed => resumed.as_ref(),
        }
    }
}

impl Done {
    fn of(peer: Peer, windows: &[&Window]) -> Result<Self> {
        let rate = |window: &Window, cpu_ns: u64| window.units as f64 * NANOS_PER_SECOND / cpu_ns.max(1) as f64;
        let alone = peer.alone().map(|(process, _)| {
            let rates = windows.iter().filter_map(|window| Some(rate(window, *window.cpu_ns.get(process)?)));
            Spread::of(rates)
        });
        let names = windows.iter().flat_map(|window| window.cpu_ns.keys()).map(String::as_str).chain([GENERATOR]);
        let of = |name: &str| {
            let micros = |window: &&Window| {
                let generator = (name == GENERATOR).then_some(window.generator_cpu_ns);
                let cpu_ns = generator.or_else(|| window.cpu_ns.get(name).copied())?;
                Some(cpu_ns as f64 / window.units as f64 / NANOS_PER_MICRO)
            };
            Ok((name.to_owned(), Spread::of(windows.iter().filter_map(micros))?))
        };
        let is_busy = |window: &&&Window| window.generator_cpu_ns >= window.total_cpu_ns();
        Ok(Self {
            per_cpu_second: Spread::of(windows.iter().map(|window| rate(window, window.total_cpu_ns())))?,
            per_cpu_second_alone: alone.transpose()?,
            p50_ms: Spread::of(windows.iter().map(|window| window.p50_us as f64 / MICROS_PER_MILLI))?,
            p99_ms: Spread::of(windows.iter().map(|window| window.p99_us as f64 / MICROS_PER_MILLI))?,
            micros_of: names.map(of).collect::<Result<_>>()?,
            rounds_of_busy_generator: windows.iter().filter(is_busy).count(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::slice::{Idle, Settings};

    /// Slice in which each process uses the given CPU time in ms for 1 000 units.
    pub(crate) fn slice(peer: Peer, round: u32, processes: &[(&str, u64)]) -> Slice {
        let window = Window {
            units: 1_000,
            cpu_ns: processes.iter().map(|(name, ms)| ((*name).to_owned(), ms * 1_000_000)).collect(),
            generator_cpu_ns: 50_000_000,
            softirq_cpu_ns: 0,
            wall_ns: 1_000_000_000,
            p50_us: 1_500,
            p99_us: 2_500,
        };
        let settings = Settings { seconds: 1, receivers: 1_000, callers: 64, visitors: 64, idle: 100, payload: 128 };
        let bytes = processes.iter().map(|(name, ms)| ((*name).to_owned(), i64::try_from(ms * 1_000).unwrap()));
        let idle = Idle { clients: 100, bytes: bytes.collect() };
        let echoes = (peer != Peer::Nchan).then(|| window.clone());
        Slice { peer, round, settings, deliveries: window.clone(), echoes, connects: window, resumed: None, idle }
    }

    #[test]
    fn what_is_counted_is_all_processes_of_a_peer_and_each_of_them() {
        let slices = [100, 300, 200].map(|ms| slice(Peer::Haproxy, 1, &[("haproxy", ms), ("axum", 100)]));
        let figures = Figures::of_all(&slices).unwrap();
        let [figures] = figures.as_slice() else { panic!("{figures:?}") };
        let done = figures.work(Work::Echoes).unwrap();
        let spread = |[median, min, max]: [f64; 3]| Spread { median, min, max };
        assert_eq!(done.per_cpu_second, spread([1_000.0 / 0.3, 2_500.0, 5_000.0]));
        assert_eq!(done.per_cpu_second_alone, Some(spread([5_000.0, 1_000.0 / 0.3, 10_000.0])));
        assert_eq!(done.micros_of["haproxy"], spread([200.0, 100.0, 300.0]));
        assert_eq!(done.micros_of[GENERATOR].median, 50.0);
        assert_eq!((done.p50_ms.median, done.p99_ms.median), (1.5, 2.5));
        assert_eq!(figures.idle_bytes, spread([3_000.0, 2_000.0, 4_000.0]));
        assert_eq!((figures.rounds, done.rounds_of_busy_generator), (3, 0));
    }

    #[test]
    fn what_a_peer_does_not_do_has_no_figures_and_a_busy_generator_is_told() {
        let figures = Figures::of_all(&[slice(Peer::Nchan, 1, &[("worker-1", 50)])]).unwrap();
        assert!(figures[0].work(Work::Echoes).is_none());
        assert_eq!(figures[0].work(Work::Deliveries).unwrap().rounds_of_busy_generator, 1);
    }
}
