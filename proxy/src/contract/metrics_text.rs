//! Text of `/metrics`: each series appears once, even with shared counters.

use trunkline_protocol::manifest::HubManifest;

use super::fixture::{Fixture, paused};
use crate::edge::admin::families;
use crate::edge::observer::{Readiness, UpstreamProblems};
use crate::engine::upstream::HubOrigin;
use crate::ground::auth::Signer;
use crate::ground::limits::SignerShare;
use crate::ground::metrics::HUBS_MAX;

#[tokio::test(crate = "paused")]
async fn hubs_that_share_counters_are_one_series() {
    let fixture = Fixture::start();
    let alone = SignerShare::new(Signer::Fleet, false);
    let hubs = (0..HUBS_MAX + 2).map(|number| {
        let name = format!("hub{number}");
        let settings = HubManifest::new(&name, &format!("/{name}"));
        fixture.shared.hubs.register_as(HubOrigin::DialIn, settings, &alone).unwrap()
    });
    for hub in hubs {
        fixture.shared.counters_of(0).hub(hub.index().get()).messages_up.increment();
    }
    let readiness = Readiness::new(fixture.shared.clone(), UpstreamProblems::default().into());
    let fleet = fixture.fleet();
    let families = families(&readiness, &fleet, &fixture.webhooks, &Default::default());
    let named = |name: &str| families.iter().find(|family| family.name() == name).unwrap().get_metric().to_vec();
    let by_hub: Vec<_> = named("trunkline_client_messages_total")
        .iter()
        .map(|metric| {
            let hub = metric.get_label().iter().find(|label| label.name() == "hub").unwrap();
            (hub.value().to_owned(), metric.get_counter().get_value())
        })
        .collect();
    assert_eq!(by_hub.len(), HUBS_MAX + 1);
    assert!(by_hub.contains(&("hub0".into(), 1.0)));
    assert!(by_hub.contains(&("(others)".into(), 2.0)), "{by_hub:?}");
}
