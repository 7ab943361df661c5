//! Faults, and the effects that clients may see. The expected effects are constants, so that they are easy to tighten.

use std::time::Duration;

/// Fault to inject into the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGTERM to a proxy, then restart.
    DrainProxy,
    /// SIGKILL to a proxy, then restart.
    KillProxy,
    /// SIGSTOP to a proxy for some seconds.
    FreezeProxy,
    /// SIGSTOP to an app server for some seconds.
    FreezeApp,
    /// Cut a link between frames.
    CutLink,
    /// Cut a link inside a frame.
    CutLinkInside,
    /// Make a link's socket silently drop all bytes.
    DeafenLink,
    /// SIGTERM to an app server, then restart.
    StopApp,
    /// SIGKILL to an app server, then restart.
    KillApp,
    /// Kill all app servers and restart them after some time.
    NoApp,
}

/// Connections that may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disconnects {
    None,
    /// Connections of the affected proxy.
    OfItsProxy,
}

/// Messages that may be lost with a killed process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Losses {
    None,
    /// Messages in queues of the killed app server, in both directions.
    OfTheKilled,
}

/// Effects of a fault that clients may notice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expectation {
    pub(crate) fault: Fault,
    pub(crate) disconnects: Disconnects,
    pub(crate) losses: Losses,
    /// Maximum time until all clients have recovered.
    pub(crate) recovery: Duration,
}

const fn expect(fault: Fault, disconnects: Disconnects, losses: Losses, seconds: u64) -> Expectation {
    Expectation { fault, disconnects, losses, recovery: Duration::from_secs(seconds) }
}

/// Rows of all faults. After a drain, a client has five seconds from its own Close; the drain time is added.
pub(crate) const EXPECTATIONS: [Expectation; 10] = [
    expect(Fault::DrainProxy, Disconnects::OfItsProxy, Losses::None, 5),
    expect(Fault::KillProxy, Disconnects::OfItsProxy, Losses::None, 5),
    expect(Fault::FreezeProxy, Disconnects::None, Losses::None, 5),
    expect(Fault::FreezeApp, Disconnects::None, Losses::None, 5),
    expect(Fault::CutLink, Disconnects::None, Losses::None, 5),
    expect(Fault::CutLinkInside, Disconnects::None, Losses::None, 5),
    expect(Fault::DeafenLink, Disconnects::None, Losses::None, 60),
    expect(Fault::StopApp, Disconnects::None, Losses::None, 5),
    expect(Fault::KillApp, Disconnects::None, Losses::OfTheKilled, 5),
    expect(Fault::NoApp, Disconnects::None, Losses::OfTheKilled, 60),
];

impl Fault {
    pub(crate) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Fault and how often to inject it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) fault: Fault,
    pub(crate) times: usize,
}

impl std::str::FromStr for Times {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, times) = text.split_once('=').unwrap_or((text, "1"));
        let fault = clap::ValueEnum::from_str(name, true).map_err(|_| {
            let names: Vec<_> = EXPECTATIONS.iter().map(|known| known.fault.name()).collect();
            format!("there is no fault {name:?}; there are {}", names.join(", "))
        })?;
        let times = times.parse().map_err(|_| format!("{times:?} is no number of times"))?;
        Ok(Self { fault, times })
    }
}

/// Faults in turn, each as often as wanted, so that each meets the effects of others.
pub(crate) fn mixed(wanted: &[Times]) -> Vec<Fault> {
    let most = wanted.iter().map(|times| times.times).max().unwrap_or_default();
    let rounds = (0..most).flat_map(|round| wanted.iter().filter(move |times| times.times > round));
    rounds.map(|times| times.fault).collect()
}

pub(crate) fn each_once() -> Vec<Times> {
    EXPECTATIONS.iter().map(|expectation| Times { fault: expectation.fault, times: 1 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_one_row() {
        for fault in <Fault as clap::ValueEnum>::value_variants() {
            assert_eq!(EXPECTATIONS.iter().filter(|expectation| expectation.fault == *fault).count(), 1, "{fault:?}");
        }
    }

    #[test]
    fn faults_take_turns_as_often_as_they_are_wanted() {
        let wanted: Vec<Times> = ["drain-proxy=2", "kill-proxy"].map(|text| text.parse().unwrap()).into();
        assert_eq!(mixed(&wanted), [Fault::DrainProxy, Fault::KillProxy, Fault::DrainProxy]);
        assert!("nonsense=1".parse::<Times>().unwrap_err().contains("drain-proxy"));
    }
}
