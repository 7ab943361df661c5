//! Access tokens: published keys, files and expiry.

use anyhow::Result;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy, failure_of};
use trunkline_tests::harness::http_client::{Answer, ask};
use trunkline_tests::harness::issuer::{Issuer, Pair, jwks};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, run_test, run_waiting_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::{Authority, text};
use trunkline_tests::harness::token::{self, in_seconds};

const NEGOTIATE: &str = "/open/negotiate?negotiateVersion=1";

async fn negotiate(proxy: &Proxy, path: &str, token: &str) -> Result<Answer> {
    let bearer = format!("Bearer {token}");
    ask(proxy.address(), Method::POST, path, &[("authorization", bearer.as_str())]).await
}

async fn is_let_in(proxy: &Proxy, token: &str) -> Result<bool> {
    let answer = negotiate(proxy, NEGOTIATE, token).await?;
    match answer.status {
        StatusCode::OK => Ok(true),
        StatusCode::UNAUTHORIZED => Ok(false),
        other => anyhow::bail!("{other}: {}", answer.body),
    }
}

async fn who_am_i(proxy: &Proxy, path: &str) -> Result<Value> {
    let mut client = RawClient::join(proxy.address(), path).await?;
    Ok(client.call("WhoAmI", json!([])).await?["result"].clone())
}

fn file(fixture: &Fixture, name: &str, text: &str) -> Result<String> {
    let path = fixture.folder().join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

#[test]
fn a_published_key_set_is_followed_and_its_last_good_keys_are_kept() {
    run_waiting_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let issuer = Issuer::start(&[Pair::Rsa]).await?;
        let url = issuer.url();
        let flags = ["--jwt-jwks", &url, "--jwt-jwks-refresh", "3600", "--jwt-jwks-refetch", "0"];
        let mut proxy = fleet.proxy_with(&[&app], &flags).await?;
        let [rsa, ec] = [Pair::Rsa.sign(&json!({ "sub": "r" }))?, Pair::Ec.sign(&json!({ "sub": "e" }))?];
        assert!(is_let_in(&proxy, &rsa).await?);
        assert!(!is_let_in(&proxy, &ec).await?);
        // Key rotation: an unknown key id makes the proxy reload the key set immediately, although the next refresh is
        // an hour away.
        issuer.publish(&[Pair::Ec])?;
        assert!(is_let_in(&proxy, &ec).await?);
        assert!(!is_let_in(&proxy, &rsa).await?, "its key is not published any more");
        issuer.publish(&[])?;
        assert!(!is_let_in(&proxy, &rsa).await?);
        assert!(is_let_in(&proxy, &ec).await?, "the last good keys are kept");
        let failed = proxy.metrics().await?.sum("trunkline_jwks_reads_total", &[("outcome", "failed")]);
        assert!(failed >= 1.0);
        proxy.process.wait_for_log("keys are in use").await?;
        Ok(())
    });
}

#[test]
fn a_key_set_is_fetched_with_tls_from_trusted_issuers_only() {
    run_waiting_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let (trusted, other) = (Authority::new(fixture, "trusted")?, Authority::new(fixture, "other")?);
        let issuer = Issuer::start(&[Pair::Rsa]).await?;
        let secure = issuer.with_tls(&trusted).await?;
        let url = secure.url();
        let proxy_that_trusts = async |authority: &Authority| {
            let flags = ["--jwt-jwks", &url, "--jwt-jwks-ca", text(&authority.file)?, "--jwt-jwks-refetch", "0"];
            fleet.proxy_with(&[&app], &flags).await
        };
        let of_issuer = Pair::Rsa.sign(&json!({ "sub": "ann" }))?;
        let proxy = proxy_that_trusts(&trusted).await?;
        let me = who_am_i(&proxy, &format!("/open?access_token={of_issuer}")).await?;
        assert_eq!(me["userId"], "ann");

        let asked = issuer.asked();
        let mut wary = proxy_that_trusts(&other).await?;
        assert!(!is_let_in(&wary, &of_issuer).await?, "its keys are not known");
        let line = wary.process.wait_for_log("the keys of an issuer of access tokens can't be read").await?;
        assert!(line.contains("UnknownIssuer") && line.contains(&url), "{line}");
        assert!(is_let_in(&wary, &token::of_user(ACCESS_KEY, "ann")?).await?, "other keys are as good as ever");
        assert_eq!(issuer.asked(), asked, "nothing was said to a stranger");

        // CA certificates are reloaded like all certificates.
        std::fs::copy(&trusted.file, &other.file)?;
        wary.process.signal(Signal::Hangup).await?;
        until(async || Ok(is_let_in(&wary, &of_issuer).await?.then_some(()))).await
    });
}

#[test]
fn a_key_set_in_a_file_is_read_again() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let path = file(fixture, "jwks.json", &jwks(&[Pair::Ec])?.to_string())?;
        let proxy = fleet.proxy_with(&[&app], &["--jwt-jwks", &path, "--jwt-jwks-refresh", "1"]).await?;
        let [first, second] = [Pair::Ec.sign(&json!({ "sub": "1" }))?, Pair::OtherEc.sign(&json!({ "sub": "2" }))?];
        assert!(is_let_in(&proxy, &first).await?);
        assert!(!is_let_in(&proxy, &second).await?);
        file(fixture, "jwks.json", &jwks(&[Pair::OtherEc])?.to_string())?;
        until(async || Ok(is_let_in(&proxy, &second).await?.then_some(()))).await?;
        assert!(!is_let_in(&proxy, &first).await?);
        Ok(())
    });
}

#[test]
fn keys_that_are_none_are_refused_at_the_start() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let short = file(fixture, "short", "short")?;
        let private = Pair::Rsa.public_file().replace(".public", "");
        let cases = [
            ("--jwt-secret-file", short.as_str(), "at least 16"),
            ("--jwt-public-key", &private, "private key"),
            ("--jwt-jwks", &short, "is not a JWKS"),
        ];
        for (flag, value, word) in cases {
            let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &["127.0.0.1:1"], &[flag, value])?;
            let log = failure_of(&mut proxy.process).await?;
            assert!(log.contains(flag) && log.contains(word), "{log}");
        }
        Ok(())
    });
}

#[test]
fn a_hub_that_wants_it_closes_clients_with_their_tokens_and_they_come_again() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let fresh = token::signed(ACCESS_KEY, &json!({ "sub": "ann", "number": 2 }))?;
        for kind in Kind::JS {
            let ending = token::signed(ACCESS_KEY, &json!({ "sub": "ann", "number": 1, "exp": in_seconds(2)? }))?;
            let client = |path: &str| agents.client(kind, &proxy.url(path)).access_token(&ending);
            let stays = client("/open").open().await?;
            let leaves = client("/members").next_access_token(&fresh).reconnect_after_ms(&[0]);
            let mut leaves = leaves.open().await?;
            leaves.reconnected().await?;
            let me = leaves.invoke("WhoAmI", json!([])).await?;
            assert_eq!(me["userId"], "ann");
            assert!(me["claims"].as_array().unwrap().contains(&json!(["number", "2"])), "{me}");
            assert_eq!(stays.invoke("WhoAmI", json!([])).await?["userId"], "ann");
        }
        let closed = "trunkline_client_connections_closed_total";
        let metrics = proxy.metrics().await?;
        assert_eq!(metrics.sum(closed, &[("cause", "token_expired")]), 2.0);
        assert_eq!(metrics.sum(closed, &[]), 2.0);
        Ok(())
    });
}
