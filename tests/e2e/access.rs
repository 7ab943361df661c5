//! Access: trusted machines, origins of pages, listeners on public addresses, and the admin port.

use http::{Method, StatusCode};
use trunkline_tests::harness::fleet::{App, Fleet, failure_of};
use trunkline_tests::harness::http_client::{ask, get};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::sockets::free_address;

const NEGOTIATE: &str = "/bench/negotiate?negotiateVersion=1";
const ALLOW_ORIGIN: &str = "access-control-allow-origin";

fn open_to_all(address: &str) -> String {
    address.replace("127.0.0.1", "0.0.0.0")
}

#[test]
fn without_a_key_nothing_is_open_to_other_machines() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let (here, admin, upstream) = (free_address()?, free_address()?, free_address()?);
        let mut processes = vec![
            fleet.proxy_at(&open_to_all(&here), &admin, &[&upstream])?.process,
            fleet.proxy_at(&here, &open_to_all(&admin), &[&upstream])?.process,
            fleet.proxy_at(&here, &admin, &["192.0.2.1:5000"])?.process,
            fleet.app_at(App::Chat, &open_to_all(&here), &[])?.process,
        ];
        for process in &mut processes {
            let log = failure_of(process).await?;
            assert!(log.contains("trunkline token key"), "{log}");
        }
        Ok(())
    });
}

#[test]
fn pages_of_foreign_origins_are_refused() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--allow-origin", "https://app.example"]).await?;
        let upgrade = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (origin, is_allowed) in [("https://app.example", true), ("https://evil.example", false)] {
            let negotiated = ask(proxy.address(), Method::POST, NEGOTIATE, &[("origin", origin)]).await?;
            assert_eq!(negotiated.header(ALLOW_ORIGIN), is_allowed.then_some(origin));
            let preflight = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "x-requested-with,x-signalr-user-agent,authorization"),
            ];
            let answer = ask(proxy.address(), Method::OPTIONS, NEGOTIATE, &preflight).await?;
            assert_eq!(answer.header(ALLOW_ORIGIN), is_allowed.then_some(origin));
            if is_allowed {
                assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
                let headers = answer.header("access-control-allow-headers").unwrap().to_lowercase();
                assert!(headers.contains("x-signalr-user-agent") && headers.contains("authorization"), "{headers}");
            } else {
                let mut headers = upgrade.to_vec();
                headers.push(("origin", origin));
                let refused = ask(proxy.address(), Method::GET, "/bench", &headers).await?;
                assert_eq!(refused.status, StatusCode::FORBIDDEN);
                assert!(refused.body.contains("--allow-origin"), "{}", refused.body);
                assert_eq!(proxy.metrics().await?.sum("trunkline_origins_refused_total", &[]), 1.0);
            }
        }
        Ok(())
    });
}

#[test]
fn any_page_may_connect_without_credentials_and_sub_domains_with_them() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let flags = ["--allow-origin", "*", "--allow-origin", "https://*.example.com"];
        let proxy = fleet.proxy_with(&[&app], &flags).await?;
        for (origin, is_trusted) in [("https://a.example.com", true), ("https://evil.org", false)] {
            let headers = [("origin", origin), ("cookie", "session=ann")];
            let path = "/asked/negotiate?negotiateVersion=1";
            let answer = ask(proxy.address(), Method::POST, path, &headers).await?;
            assert_eq!(answer.header(ALLOW_ORIGIN), Some(origin));
            assert_eq!(answer.header("access-control-allow-credentials"), is_trusted.then_some("true"));
            // The proxy does not forward the cookie of a foreign origin to the app's handler, which would accept it.
            assert_eq!(answer.status == StatusCode::OK, is_trusted, "{}", answer.body);
        }
        let (here, admin) = (free_address()?, free_address()?);
        let flags = ["--allow-origin", "https://*.com"];
        let mut wrong = fleet.proxy_of(&here, &admin, &["127.0.0.1:1"], &flags)?;
        assert!(failure_of(&mut wrong.process).await?.contains("--allow-origin"));
        Ok(())
    });
}

#[test]
fn the_admin_port_shows_health_counters_and_metrics() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--no-pass-through"]).await?;
        assert_eq!(get(proxy.admin(), "/healthz").await?.status, StatusCode::OK);
        let page = get(proxy.admin(), "/").await?;
        assert!(page.status.is_success() && !page.body.is_empty());
        for address in [proxy.admin(), app.address()] {
            let metrics = get(address, "/metrics").await?;
            let samples: Vec<&str> = metrics.body.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(!samples.is_empty());
            let is_ours = |sample: &&str| sample.starts_with("trunkline_") || sample.starts_with("process_");
            assert!(samples.iter().all(is_ours), "{samples:?}");
            Metrics::of(address).await?;
        }
        // The admin port does not serve clients, and the client port does not serve operators.
        assert_eq!(get(proxy.address(), "/metrics").await?.status, StatusCode::NOT_FOUND);
        assert_ne!(ask(proxy.admin(), Method::POST, NEGOTIATE, &[]).await?.status, StatusCode::OK);
        Ok(())
    });
}
