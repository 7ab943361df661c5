//! Files with keys, secrets and tokens: a change takes effect soon, and completely or not at all.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::fixture::{Fixture, KEY, paused};
use super::hub_separation::{APP_KEY, enter, hubs, two_hubs, user_token};
use super::webhook_server::WebhookServer;
use super::webhooks::{self, cast, connect, plain};
use crate::ground::auth::{AdminToken, AdminTokenInForce};
use crate::ground::config::{AdminTokenSource, GivenKeys, SecretSources, TokenKeySources};
use crate::ground::net::connector::MemoryNetwork;
use crate::node::key_reload::{self, reload};

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("trunkline-{name}-anew-{}", std::process::id()))
}

#[tokio::test(crate = "paused")]
async fn a_file_of_keys_that_is_half_written_takes_no_key_away() {
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let path = file("half-written");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(&format!("chat={APP_KEY}"));
    let apps = GivenKeys { typed: Vec::new(), files: vec![path.clone()] };
    spawn_local(key_reload::run(
        (fixture.shared.clone(), fixture.admission.clone()),
        fixture.webhooks.clone(),
        SecretSources { apps, ..SecretSources::default() },
    ));
    let pass = async |seconds: u64| {
        // sleep: the test advances paused time
        sleep(Duration::from_secs(seconds)).await;
        enter(&fixture, "/chat", &user_token(APP_KEY, None)).await
    };
    assert_eq!(pass(1).await, 200);
    write("# Keys of apps.\n");
    assert_eq!(pass(5).await, 200, "a check has seen a half of it");
    write(&format!("# Keys of apps.\nchat={APP_KEY}"));
    assert_eq!(pass(5).await, 200);
    write("# Nobody's.\n\n");
    assert_eq!(pass(20).await, 200, "a file that has lost its keys is not one that has none");
    write("# Nobody's.\n# none\n");
    assert_eq!(pass(20).await, 401);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(crate = "paused")]
async fn an_emptied_file_is_refused_whatever_other_files_gain_and_one_that_was_empty_blocks_nothing() {
    let fixture = Fixture::with(two_hubs(), 1);
    let (one, other) = (file("one-of-two"), file("other-of-two"));
    let apps = GivenKeys { typed: Vec::new(), files: vec![one.clone(), other.clone()] };
    let sources = SecretSources { apps, ..SecretSources::default() };
    let read = |in_one: &str, in_other: &str| {
        std::fs::write(&one, in_one).unwrap();
        std::fs::write(&other, in_other).unwrap();
        reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources)
    };
    let (shop, news) = ("shop=the key of the app shop", "news=the key of the app news");
    read(&format!("{shop}\n{news}"), "").unwrap();
    read(shop, "").unwrap();
    let problem = read("", &format!("{news}\nchat=the key of the app chat")).unwrap_err();
    assert!(problem.contains("one-of-two") && problem.contains("is empty"), "{problem}");
    read("# None.", news).unwrap();
    [one, other].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[tokio::test(crate = "paused")]
async fn keys_in_files_are_reloaded_together_or_not_at_all() {
    const NEW: &str = "the new key of these tests";
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let (access, apps) = (file("access"), file("apps"));
    let of_access = GivenKeys { typed: Vec::new(), files: vec![access.clone()] };
    let of_apps = GivenKeys { typed: Vec::new(), files: vec![apps.clone()] };
    let sources = SecretSources { access: of_access, apps: of_apps, ..SecretSources::default() };
    let read = |key: &str, line: &str| {
        std::fs::write(&access, key).unwrap();
        std::fs::write(&apps, line).unwrap();
        reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources)
    };
    let statuses = async || {
        let [old, new, of_app] = [KEY, NEW, APP_KEY].map(|key| user_token(key, None));
        [
            enter(&fixture, "/chat", &old).await,
            enter(&fixture, "/chat", &new).await,
            enter(&fixture, "/chat", &of_app).await,
        ]
    };
    assert_eq!(statuses().await, [200, 401, 200]);
    read(KEY, &format!("chat={APP_KEY}")).unwrap();
    let problem = read(NEW, "no key").unwrap_err();
    assert!(problem.contains("line 1"), "{problem}");
    assert_eq!(statuses().await, [200, 401, 200], "nothing has changed");
    for empty in ["", " \n\n"] {
        let problem = read(NEW, empty).unwrap_err();
        assert!(problem.contains("is empty, but had keys before"), "{problem}");
        assert_eq!(statuses().await, [200, 401, 200], "a truncated file takes no key away");
    }
    read(NEW, "# none").unwrap();
    assert_eq!(statuses().await, [401, 200, 401]);
    read(NEW, "").unwrap();
    [access, apps].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[tokio::test(crate = "paused")]
async fn keys_of_issuers_and_the_admin_token_are_reloaded_with_the_others() {
    const SECRETS: [&str; 2] = ["the secret of an issuer", "its secret from tomorrow on"];
    const TOKENS: [&str; 2] = ["the-token-of-monday", "the-token-of-tuesday"];
    let fixture = Fixture::with(two_hubs(), 1);
    let (_app, _links) = fixture.app_of(hubs()).await;
    let (secret, token) = (file("jwt-secret"), file("admin-token"));
    let in_force = AdminTokenInForce::from(AdminToken::new(TOKENS[0]).unwrap());
    let sources = SecretSources {
        tokens: TokenKeySources { secrets: vec![secret.clone()], ..TokenKeySources::default() },
        admin: Some(AdminTokenSource { file: token.clone(), in_force: in_force.clone() }),
        ..SecretSources::default()
    };
    let read = |of_issuer: &str, of_admin: &str| {
        std::fs::write(&secret, of_issuer).unwrap();
        std::fs::write(&token, of_admin).unwrap();
        reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources)
    };
    let state = async || {
        let [old, new] = SECRETS.map(|secret| user_token(secret, None));
        let statuses = [enter(&fixture, "/chat", &old).await, enter(&fixture, "/chat", &new).await];
        (statuses, TOKENS.map(|token| in_force.load().token.is(token)))
    };
    read(SECRETS[0], TOKENS[0]).unwrap();
    assert_eq!(state().await, ([200, 401], [true, false]));
    for (of_issuer, of_admin, flag) in
        [(SECRETS[1], "short", "--admin-token-file "), ("short", TOKENS[1], "--jwt-secret-file ")]
    {
        let problem = read(of_issuer, of_admin).unwrap_err();
        assert!(problem.starts_with(flag), "{problem}");
        assert_eq!(state().await, ([200, 401], [true, false]), "nothing has changed");
    }
    read(SECRETS[1], TOKENS[1]).unwrap();
    assert_eq!(state().await, ([401, 200], [false, true]));
    [secret, token].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[tokio::test(crate = "paused")]
async fn secrets_in_files_are_all_reloaded_for_the_next_request_or_none() {
    let network = MemoryNetwork::default();
    let fixture = webhooks::fixture(&network, plain());
    let mut server = WebhookServer::listen(&network, webhooks::APP);
    let path = file("webhook-secrets");
    let of_webhooks = GivenKeys { typed: Vec::new(), files: vec![path.clone()] };
    let sources = SecretSources { webhooks: of_webhooks, ..SecretSources::default() };
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources)
    };
    let mut client = connect(&fixture, "/chat").await;
    let connected = server.next().await;
    let by_access_key = connected.header("x-asrs-signature").to_owned();
    connected.answer(200, "");
    let mut signature = async || {
        client.send(&cast("Say", "x")).await;
        let said = server.next().await;
        let signature = said.header("x-asrs-signature").to_owned();
        said.answer(200, "");
        signature
    };
    read("chat=the first secret of a hub").unwrap();
    let by_first = signature().await;
    assert_ne!(by_first, by_access_key);
    let problem = read("chat=the second secret of a hub\nchat=short").unwrap_err();
    let place = format!("--webhook-secret-file {}, line 2: ", path.display());
    assert!(problem.starts_with(&place) && !problem.contains("second"), "{problem}");
    assert_eq!(signature().await, by_first, "the old one stays in force");
    read("chat=the second secret of a hub\nchat=the first secret of a hub").unwrap();
    assert!(signature().await.ends_with(&format!(",{by_first}")), "both sign");
    assert!(read("").unwrap_err().contains("is empty"), "a truncated file takes no secret away");
    read("# None any more.").unwrap();
    assert_eq!(signature().await, by_access_key);
    std::fs::remove_file(&path).unwrap();
    assert!(
        reload((&fixture.shared, &fixture.admission), &fixture.webhooks, &sources)
            .unwrap_err()
            .contains("can't be read")
    );
}
