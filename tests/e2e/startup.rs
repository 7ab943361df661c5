//! Processes can start in any order, and errors explain the cause.

use std::net::TcpListener;

use anyhow::{Context, ensure};
use http::StatusCode;
use trunkline_tests::harness::fleet::{App, Fleet, failure_of, stop};
use trunkline_tests::harness::http_client::{get, post};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::sockets::free_address;

const NEGOTIATE: &str = "/bench/negotiate?negotiateVersion=1";

#[test]
fn a_proxy_waits_for_its_app_server_and_says_so() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let address = free_address()?;
        let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[&address])?;
        let waiting = proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        assert!(!waiting.body.trim().is_empty(), "a reason");
        assert_eq!(get(proxy.admin(), "/healthz").await?.status, StatusCode::OK);
        let refused = post(proxy.address(), NEGOTIATE).await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(RawClient::try_open(proxy.address(), "/bench").await?.unwrap_err().status, 503);
        proxy.process.wait_for_log(&address).await?;

        let mut app = fleet.app_at(App::Bench, &address, &[])?;
        app.listening().await?;
        proxy.ready().await?;
        assert_eq!(post(proxy.address(), NEGOTIATE).await?.status, StatusCode::OK);
        Ok(())
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_stop_signal_is_caught_no_later_than_any_other() {
    const HANGUP: u64 = 1 << 0;
    const TERMINATE: u64 = 1 << 14;
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[&free_address()?])?;
        let status = format!("/proc/{}/status", proxy.process.id()?);
        let caught = loop {
            let text = std::fs::read_to_string(&status)?;
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
            let mask = u64::from_str_radix(mask.trim(), 16)?;
            if mask & HANGUP != 0 {
                break mask;
            }
            tokio::task::yield_now().await;
        };
        ensure!(caught & TERMINATE != 0, "SIGHUP is caught, and SIGTERM is not: {caught:x}");
        stop(&mut proxy.process, Signal::Terminate).await
    });
}

#[test]
fn a_taken_port_is_an_error_that_names_the_flag() {
    run_test(async |fixture| {
        let taken = TcpListener::bind(free_address()?)?;
        let taken = taken.local_addr()?.to_string();
        let fleet = Fleet::new(fixture);
        let upstream = free_address()?;
        let mut no_listen = fleet.proxy_at(&taken, &free_address()?, &[&upstream])?;
        let mut no_admin = fleet.proxy_at(&free_address()?, &taken, &[&upstream])?;
        let mut no_app = fleet.app_at(App::Chat, &taken, &[])?;
        let cases = [
            (&mut no_listen.process, "--listen"),
            (&mut no_admin.process, "--admin"),
            (&mut no_app.process, "--listen"),
        ];
        for (process, flag) in cases {
            let log = failure_of(process).await?;
            assert!(log.contains(flag) && log.contains(&taken), "{log}");
        }
        Ok(())
    });
}
