//! Links: a link that violates the service protocol is closed with a log line, and the proxy continues.

use http::StatusCode;
use trunkline_tests::apps::fake_app::FakeApp;
use trunkline_tests::harness::fleet::Fleet;
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::sockets::free_address;

#[test]
fn a_malformed_frame_is_skipped_with_a_line_that_names_it() {
    run_test(async |fixture| {
        let lines: [(&[u8], &str); 4] = [
            (&[0x02, 0x91, 0x06], "ConnectionData"),             // without anything in it
            (&[0x04, 0x93, 0x06, 0xc0, 0xc0], "ConnectionData"), // of no connection
            (&[0x01, 0xc1], "a byte that MessagePack never uses"),
            (&[0x02, 0x91, 0xa0], "service message"), // a type that is no number
        ];
        let fleet = Fleet::new(fixture);
        for (line, name) in lines {
            // Separate nodes, because skipped frames are logged once a minute.
            let app = FakeApp::start(vec![line.to_vec()]).await?;
            let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[app.address()])?;
            proxy.ready().await?;
            let told = proxy.process.wait_for_log("skipped a frame").await?;
            assert!(told.contains(name), "{line:02x?}: {told}");
            let linked = proxy.process.wait_for_log("app server linked").await?;
            assert!(linked.contains("links=5"), "{linked}");
        }
        Ok(())
    });
}

#[test]
fn a_malformed_length_prefix_ends_its_link() {
    run_test(async |fixture| {
        let mut app = FakeApp::start(vec![vec![0xff; 7]]).await?;
        let mut proxy = Fleet::new(fixture).proxy_at(&free_address()?, &free_address()?, &[app.address()])?;
        app.dropped(1).await?;
        proxy.ready().await?;
        assert_eq!(get(proxy.admin(), "/healthz").await?.status, StatusCode::OK);
        let told = proxy.process.wait_for_log("link closed").await?;
        assert!(told.contains("a length prefix is malformed"), "{told}");
        Ok(())
    });
}

#[test]
fn frames_of_a_newer_protocol_are_skipped() {
    run_test(async |fixture| {
        // A frame of an unknown type, then a malformed ConnectionData.
        let app = FakeApp::start(vec![vec![0x03, 0x92, 0x7f, 0xc0, 0x02, 0x91, 0x06]]).await?;
        let mut proxy = Fleet::new(fixture).proxy_at(&free_address()?, &free_address()?, &[app.address()])?;
        proxy.ready().await?;
        let told = proxy.process.wait_for_log("skipped a frame").await?;
        assert!(told.contains("ConnectionData"), "{told}");
        Ok(())
    });
}
