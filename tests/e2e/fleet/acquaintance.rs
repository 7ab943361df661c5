//! The nodes of the demo discover each other.

use trunkline_tests::harness::demo::{Addresses, Demo};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::scenario::{run_heavy_test, until};

use super::{ready, sight};

#[test]
fn nodes_of_the_demo_are_a_fleet_by_the_development_key() {
    run_heavy_test(async |fixture| {
        let mut demo = Demo::start(fixture, Addresses::free()?)?;
        demo.invites().await?;
        for admin in &demo.addresses().admins {
            until(async || {
                let fleet = get(admin, "/api/fleet").await?.json()?;
                Ok((fleet["agree"] == true && sight(&fleet)? == ready(&["proxy-1", "proxy-2"])).then_some(()))
            })
            .await?;
        }
        Ok(())
    });
}
