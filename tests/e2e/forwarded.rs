//! Behind a load balancer: client address, path prefix and host are accepted only from trusted addresses.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::json;
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_client::{ask, post};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

type Headers<'a> = &'a [(&'static str, &'a str)];

/// Client address that the hub sees for a client with these headers.
async fn seen_address(proxy: &Proxy, headers: Headers<'_>) -> Result<String> {
    let mut client = RawClient::try_open_with(proxy.address(), "/bench", headers).await?.ok().context("refused")?;
    client.shake_hands().await?;
    let me = client.call("WhoAmI", json!([])).await?;
    let address = me["result"]["remoteAddress"].as_str().context("no address")?.to_owned();
    client.close().await?;
    Ok(address)
}

#[test]
fn the_address_of_a_client_comes_from_trusted_balancers_only() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let trusting = fleet.proxy_with(&[&app], &["--trust", "127.0.0.0/8,10.0.0.0/8"]).await?;
        let cases: [(Headers<'_>, &str); 5] = [
            (&[("x-forwarded-for", "203.0.113.9")], "203.0.113.9:0"),
            (&[("x-forwarded-for", "6.6.6.6, 203.0.113.9:77, 10.0.0.7")], "203.0.113.9:77"),
            (&[("x-forwarded-for", "[2001:db8::1]:77")], "[2001:db8::1]:77"),
            (&[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9:0"),
            (&[("x-forwarded-for", "6.6.6.6, unknown, 10.0.0.7")], "10.0.0.7:0"),
        ];
        for (headers, expected) in cases {
            assert_eq!(seen_address(&trusting, headers).await?, expected, "{headers:?}");
        }
        let standard = [("forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:77\";proto=https")];
        let by_standard = ["--trust", "127.0.0.0/8", "--trust-headers", "forwarded"];
        let by_standard = fleet.proxy_with(&[&app], &by_standard).await?;
        assert_eq!(seen_address(&by_standard, &standard).await?, "[2001:db8::1]:77");
        for headers in [[("x-forwarded-for", "unknown")], [("x-trunkline-remote", "6.6.6.6:6")], standard] {
            assert!(seen_address(&trusting, &headers).await?.starts_with("127.0.0.1:"), "{headers:?}");
        }
        let doubting = fleet.proxy_with(&[&app], &["--trust", "192.0.2.0/24"]).await?;
        for (headers, _) in cases {
            assert!(seen_address(&doubting, headers).await?.starts_with("127.0.0.1:"), "{headers:?}");
        }
        Ok(())
    });
}

#[test]
fn a_path_prefix_is_taken_off_before_paths_are_matched() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--path-prefix", "/realtime", "--trust", "127.0.0.1"]).await?;
        for path in ["/realtime/bench", "/RealTime/bench", "/bench"] {
            let negotiate = format!("{path}/negotiate?negotiateVersion=1");
            let negotiated = post(proxy.address(), &negotiate).await?.json()?;
            let token = negotiated["connectionToken"].as_str().context("no token")?;
            let client = RawClient::join(proxy.address(), &format!("{path}?id={token}")).await?;
            client.close().await?;
        }
        let by_header = [("x-forwarded-prefix", "/else")];
        let else_by =
            async |proxy: &Proxy| ask(proxy.address(), Method::POST, "/else/bench/negotiate", &by_header).await;
        assert_eq!(else_by(&proxy).await?.status, StatusCode::NOT_FOUND, "balancers pass on a client's own");
        let named = fleet.proxy_with(&[&app], &["--trust", "127.0.0.1", "--trust-headers", "for,proto,prefix"]).await?;
        assert_eq!(else_by(&named).await?.status, StatusCode::OK);
        for path in ["/realtimes/bench/negotiate", "/else/bench/negotiate", "/realtime/.trunkline/manifest"] {
            assert_eq!(post(proxy.address(), path).await?.status, StatusCode::NOT_FOUND, "{path}");
        }
        Ok(())
    });
}

#[test]
fn pages_of_the_host_that_a_trusted_balancer_names_may_connect() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let named = ["--trust", "127.0.0.1", "--trust-headers", "for,proto,host"];
        let trusting = fleet.proxy_with(&[&app], &named).await?;
        let doubting = fleet.proxy_with(&[&app], &["--trust", "127.0.0.1"]).await?;
        let page = [("x-forwarded-host", "chat.example"), ("x-forwarded-proto", "https")];
        let opened = async |proxy: &Proxy, origin: &str| {
            let headers = [page[0], page[1], ("origin", origin)];
            anyhow::Ok(RawClient::try_open_with(proxy.address(), "/bench", &headers).await?.map(drop))
        };
        assert!(opened(&trusting, "https://chat.example").await?.is_ok());
        assert_eq!(opened(&trusting, "https://evil.example").await?.unwrap_err().status, 403);
        assert_eq!(opened(&trusting, "http://chat.example").await?.unwrap_err().status, 403);
        assert_eq!(opened(&doubting, "https://chat.example").await?.unwrap_err().status, 403);
        Ok(())
    });
}
