//! `trunkline new`: the generated app, behind two proxies and embedded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::fleet::Fleet;
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, is_full, profile_folder, run_heavy_test, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::run;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

async fn new_app(fixture: &Fixture) -> Result<PathBuf> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    let said = run(command.args(["new", "my-chat", "--path", ROOT]).current_dir(fixture.folder())).await?;
    assert!(said.contains("wrote my-chat: run `cd my-chat && cargo run`"), "{said}");
    Ok(fixture.folder().join("my-chat"))
}

#[test]
fn a_new_app_is_what_is_compiled_and_tested_here() {
    run_test(async |fixture| {
        let app = new_app(fixture).await?;
        let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).context(file.to_owned());
        for file in ["src/main.rs", "src/chat.rs", "pages/signalr.js"] {
            assert_eq!(read(&app, file)?, read(Path::new(ROOT), &format!("proxy/command/template/{file}"))?);
        }
        if is_full() {
            // The app has its own manifest and dependencies, and compiles all of them, which takes minutes.
            fs::copy(Path::new(ROOT).join("Cargo.lock"), app.join("Cargo.lock"))?;
            let tested = run(Command::new("cargo").args(["test", "--offline"]).current_dir(&app)).await?;
            assert!(tested.contains("test result: ok. 2 passed"), "{tested}");
        }
        Ok(())
    });
}

#[test]
fn pages_of_a_new_app_hear_each_other_at_two_proxies_and_at_the_app_itself() {
    run_heavy_test(async |fixture| {
        let address = free_address()?;
        let fleet = Fleet::in_development(fixture);
        let mut command = Command::new(profile_folder()?.join("template"));
        command.env("LISTEN", &address).env("NO_COLOR", "1").env("XDG_STATE_HOME", fixture.folder().join("state"));
        command.env_remove("TRUNKLINE_ACCESS_KEY").env_remove("TRUNKLINE_ACCESS_KEY_FILE");
        let mut app = Process::start(fixture, "template", command)?;
        app.wait_for_line(&format!("open http://{address}/")).await?;
        let mut proxies = Vec::new();
        for _ in 0..2 {
            let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[&address])?;
            proxy.ready().await?;
            proxies.push(proxy);
        }
        let browser = Browser::start(fixture)?;
        let mut pages = Vec::new();
        let hosts = proxies.iter().map(|proxy| proxy.address().to_owned()).chain([address]);
        for (name, host) in ["ann", "bob", "eve"].into_iter().zip(hosts) {
            let page = browser.open(name, &format!("http://{host}/")).await?;
            page.fill("name", name).await?;
            page.click("go").await?;
            page.see("state", "Connected").await?;
            pages.push((name, page));
        }
        for (name, page) in &pages {
            page.fill("text", &format!("hello from {name}")).await?;
            page.click("say").await?;
        }
        for (_, page) in &pages {
            for name in ["ann", "bob", "eve"] {
                page.see("messages", &format!("{name}: hello from {name}")).await?;
            }
        }
        browser.end().await
    });
}
