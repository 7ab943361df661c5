//! Slices: the generator's load in each, and the targets for it and the product.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Everything arrives without faults: a row per kind of fault.
    Faults,
    FaultsInOne,
    /// Broadcasts keep their interval.
    Interval,
    /// Chat messages are fast.
    Latency,
    /// Memory of proxies is limited.
    ProxyMemory,
    /// The generator uses less CPU time than the measured processes.
    GeneratorCpu,
    /// No target; only shows the other results.
    Shown,
}

/// Slice of the published settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slice {
    Broadcast,
    Chat,
    Ten,
    Many,
}

/// Whether it has the published length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Short,
    Full,
}

/// Run of the generator.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) profile: &'static str,
    pub(crate) clients: u32,
    pub(crate) rooms: u32,
    pub(crate) interval_ms: u32,
    pub(crate) seconds: Seconds,
    pub(crate) targets: &'static [Target],
}

/// Lengths of its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds {
    pub(crate) rampup: u32,
    pub(crate) run: u32,
    pub(crate) rampdown: u32,
}

impl Slice {
    pub(crate) const ALL: [Self; 4] = [Self::Broadcast, Self::Chat, Self::Ten, Self::Many];

    /// Loads of the generator, in order.
    pub(crate) fn loads(self, length: Length) -> Vec<Load> {
        let seconds = |full: [u32; 3], short: [u32; 3]| {
            let [rampup, run, rampdown] = if length == Length::Full { full } else { short };
            Seconds { rampup, run, rampdown }
        };
        match self {
            Self::Broadcast => vec![Load {
                targets: &[Target::Faults, Target::Interval, Target::ProxyMemory, Target::Shown],
                ..broadcast("broadcast".into(), 1_000, 3_000, seconds([10, 300, 10], [4, 20, 1]))
            }],
            Self::Chat => vec![Load {
                targets: &[Target::Faults, Target::Latency, Target::ProxyMemory, Target::Shown],
                ..chat("chat".into(), seconds([10, 300, 10], [3, 20, 1]))
            }],
            Self::Ten => {
                let seconds = seconds([3, 30, 1], [2, 4, 1]);
                let load = |number| match number % 2 {
                    1 => broadcast(format!("ten {number}, broadcast"), 1_000, 1_000, seconds),
                    _ => chat(format!("ten {number}, chat"), seconds),
                };
                (1..=10).map(load).collect()
            }
            Self::Many => vec![Load {
                targets: &[Target::Faults, Target::GeneratorCpu, Target::Shown],
                ..broadcast("many".into(), 7_500, 3_000, seconds([20, 60, 5], [15, 15, 2]))
            }],
        }
    }
}

fn broadcast(name: String, clients: u32, interval_ms: u32, seconds: Seconds) -> Load {
    Load { name, profile: "broadcast", clients, rooms: 1, interval_ms, seconds, targets: &[Target::FaultsInOne] }
}

fn chat(name: String, seconds: Seconds) -> Load {
    let targets = &[Target::FaultsInOne];
    Load { name, profile: "chat", clients: 500, rooms: 10, interval_ms: 1_000, seconds, targets }
}

impl Load {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Seconds { rampup, run, rampdown } = self.seconds;
        let numbers = [
            ("--clients", self.clients),
            ("--groups", self.rooms),
            ("--interval", self.interval_ms),
            ("--rampup", rampup),
            ("--run", run),
            ("--rampdown", rampdown),
        ];
        let options = numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]);
        [self.profile.to_owned()].into_iter().chain(options).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time in addition to the loads: messages in flight, and process starts.
    const MORE_S: u32 = 5;

    fn seconds(slices: &[Slice], length: Length) -> u32 {
        let loads = slices.iter().flat_map(|slice| slice.loads(length));
        loads.map(|load| load.seconds.rampup + load.seconds.run + load.seconds.rampdown + 1).sum::<u32>() + MORE_S
    }

    #[test]
    fn each_slice_takes_less_than_ten_minutes_and_the_short_version_less_than_three() {
        for slice in Slice::ALL {
            assert!(seconds(&[slice], Length::Full) < 600, "{slice:?}");
        }
        assert!(seconds(&Slice::ALL, Length::Short) < 180);
    }

    #[test]
    fn there_are_ten_runs_and_they_alternate() {
        let loads = Slice::Ten.loads(Length::Full);
        let profiles: Vec<&str> = loads.iter().map(|load| load.profile).collect();
        assert_eq!(profiles, ["broadcast", "chat"].repeat(5));
        assert_eq!(loads[1].arguments()[..5], ["chat", "--clients", "500", "--groups", "10"]);
    }
}
