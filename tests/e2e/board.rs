//! The example `board` on two app servers behind two proxies while an app server stops or is killed under load: a
//! planned stop fails no call, each answer reaches its caller, and each departure is reported once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind, Message, Upload};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::type_check;

const HUB: &str = "/board?room=kitchen";

/// Room with guests at both proxies and both app servers, and an observer.
struct Kitchen<'a> {
    agents: &'a Agents<'a>,
    apps: [AppServer; 2],
    proxies: [Proxy; 2],
    onlooker: Client,
    guests: Vec<Client>,
}

impl<'a> Kitchen<'a> {
    async fn open(fixture: &'a Fixture, agents: &'a Agents<'a>, guests: usize) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let apps = [fleet.app(App::Board).await?, fleet.app(App::Board).await?];
        let upstreams = [&apps[0], &apps[1]];
        let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
        let onlooker = enter(agents, Kind::JsJson, &proxies[0], "onlooker", &["Entered", "Left"]).await?;
        let mut kitchen = Self { agents, apps, proxies, onlooker, guests: Vec::new() };
        for number in 0..guests {
            let kind = Kind::JS[number / 2 % 2];
            let guest = enter(agents, kind, &kitchen.proxies[number % 2], &name(number), &[]).await?;
            assert_eq!(kitchen.onlooker.expect("Entered").await?, [json!(name(number))]);
            kitchen.guests.push(guest);
        }
        Ok(kitchen)
    }

    /// Adds a note of each guest, and returns their ids.
    async fn add_notes(&self, text: &str) -> Result<Vec<Value>> {
        let adding = self.guests.iter().map(async |guest| {
            let note = guest.invoke("AddNote", json!([{ "text": text, "x": 1, "y": 2 }])).await?;
            Ok(note["id"].clone())
        });
        join_all(adding).await.into_iter().collect()
    }

    /// Starts deleting each guest's note. The hub then asks the guest for confirmation.
    async fn delete(&self, notes: &[Value]) -> Result<Vec<std::result::Result<Value, String>>> {
        let deleting = self.guests.iter().zip(notes);
        let deleting = deleting.map(async |(guest, note)| guest.call("DeleteNote", json!([note])).await);
        join_all(deleting).await.into_iter().collect()
    }

    /// Ids of the remaining notes.
    async fn notes(&self) -> Result<Vec<Value>> {
        let history = self.onlooker.stream("History", json!([])).await?;
        Ok(history.items.iter().map(|note| note["id"].clone()).collect())
    }

    /// Names of the people in the room, according to the proxies.
    async fn people(&self) -> Result<Vec<String>> {
        let people = self.onlooker.invoke("People", json!([])).await?;
        let people = people.as_array().context("a list")?.iter();
        let mut names: Vec<_> = people.map(|person| person["name"].as_str().unwrap_or("-").to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Arrivals and departures that the observer receives before the next arrival.
    async fn told(&mut self) -> Result<Vec<Message>> {
        let newcomer = enter(self.agents, Kind::JsJson, &self.proxies[1], "newcomer", &[]).await?;
        let fence = Message { target: "Entered".into(), arguments: vec![json!("newcomer")] };
        let mut told = self.onlooker.before(&fence).await?;
        drop(newcomer);
        told.retain(|message| message.target != "Vote");
        Ok(told)
    }
}

fn name(number: usize) -> String {
    format!("guest {number}")
}

async fn enter(agents: &Agents<'_>, kind: Kind, proxy: &Proxy, name: &str, targets: &[&str]) -> Result<Client> {
    let builder = agents.client(kind, &proxy.url(HUB)).access_token(&token::of_user(ACCESS_KEY, name)?);
    let builder = builder.answer("Confirm", &ClientAnswer::Held).answer("Vote", &ClientAnswer::Value(json!(true)));
    builder.subscribe(targets).open().await
}

/// Waits until these app servers wait for this many client results.
async fn asked(apps: &[&AppServer], count: u32) -> Result<()> {
    until(async || {
        let mut waiting = 0.0;
        for app in apps {
            waiting += Metrics::of(app.address()).await?.sum("trunkline_app_client_results_waiting", &[]);
        }
        Ok(is_count(waiting, count).then_some(()))
    })
    .await
}

/// Waits until the proxies have failed this many calls of lost app servers.
async fn failed(proxies: &[Proxy], count: u32) -> Result<()> {
    until(async || {
        let mut failed = 0.0;
        for proxy in proxies {
            failed += Metrics::of(proxy.admin()).await?.sum("trunkline_calls_failed_total", &[]);
        }
        Ok(is_count(failed, count).then_some(()))
    })
    .await
}

fn is_count(value: f64, count: u32) -> bool {
    (value - f64::from(count)).abs() < 0.5
}

/// Checks the script of the page with the TypeScript compiler, after one replacement in its text.
async fn check_page(fixture: &Fixture, change: (&str, &str)) -> Result<(bool, String)> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../app-sdk/examples/pages");
    let page = fs::read_to_string(pages.join("board.html"))?;
    let script = page.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).context("a script")?.0;
    ensure!(script.contains(change.0), "the page has no {:?}", change.0);
    // Types of the client are found beside the compiler.
    let folder = fixture.folder().join("page");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("page.js"), script.replacen(change.0, change.1, 1))?;
    fs::write(folder.join("globals.d.ts"), "declare const signalR: typeof import(\"@microsoft/signalr\");\n")?;
    fs::copy(pages.join("board.ts"), folder.join("board.ts"))?;
    let options = "--allowJs --checkJs --skipLibCheck --strict false --lib es2022,dom,dom.iterable";
    type_check(&folder, options, &["page.js", "globals.d.ts"]).await
}

#[test]
fn the_calls_of_the_page_are_checked_against_the_hub() {
    run_test(async |fixture| {
        let (is_good, errors) = check_page(fixture, ("DeleteNote", "DeleteNote")).await?;
        assert!(is_good, "{errors}");
        for wrong in [
            ("invoke(\"DeleteNote\", note.id)", "invoke(\"DeleteNote\", note)"),
            ("invoke(\"People\")", "invoke(\"Peoples\")"),
            ("on(\"Confirm\", (question) => confirm(question))", "on(\"Confirm\", (question) => 5)"),
        ] {
            let (is_good, errors) = check_page(fixture, wrong).await?;
            assert!(!is_good && errors.contains("page.js"), "{wrong:?}: {errors}");
        }
        Ok(())
    });
}

#[test]
fn a_stop_in_the_middle_of_questions_and_uploads_fails_nothing_and_nobody_notices() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut kitchen = Kitchen::open(fixture, &agents, 8).await?;
        let notes = kitchen.add_notes("milk").await?;
        let uploads = kitchen.guests.iter().map(|guest| guest.upload("notes"));
        let uploads: Vec<Upload> = join_all(uploads).await.into_iter().collect::<Result<_>>()?;
        let importing = kitchen
            .guests
            .iter()
            .zip(&uploads)
            .map(async |(guest, upload)| guest.call("Import", json!([upload.argument()])).await);
        let stopping = async {
            let [stopped, other] = &kitchen.apps;
            asked(&[stopped, other], 8).await?;
            for upload in &uploads {
                upload.feed(json!([{ "text": "before", "x": 1, "y": 1 }])).await?;
            }
            stopped.process.signal(Signal::Terminate).await?;
            until(async || Ok(stopped.process.log().contains("stopping").then_some(()))).await?;
            for (number, (guest, upload)) in kitchen.guests.iter().zip(&uploads).enumerate() {
                upload.feed(json!([{ "text": "after", "x": 1, "y": 1 }])).await?;
                upload.complete().await?;
                guest.answer_held("Confirm", 0, json!(number % 2 == 0)).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let (deleted, imported, stopped) = tokio::join!(kitchen.delete(&notes), join_all(importing), stopping);
        stopped?;
        for (number, deleted) in deleted?.into_iter().enumerate() {
            assert_eq!(deleted, Ok(json!(number % 2 == 0)), "{}", name(number));
        }
        for imported in imported {
            assert_eq!(imported?, Ok(json!(2)));
        }
        ensure!(kitchen.apps[0].process.ended().await?.success());
        let votes = kitchen.onlooker.invoke("Poll", json!(["Tea?"])).await?;
        let votes = votes.as_array().context("a list")?;
        assert!(votes.iter().all(|vote| vote["is_for"] == json!(true)), "{votes:?}");
        assert_eq!((votes.len(), kitchen.people().await?.len()), (9, 9));
        let left = kitchen.notes().await?;
        let kept: Vec<_> = notes.iter().map(|note| left.contains(note)).collect();
        assert_eq!(kept, (0..8).map(|number| number % 2 == 1).collect::<Vec<_>>());
        assert_eq!(left.len(), 4 + 2 * 8);
        assert_eq!(kitchen.told().await?, []);
        Ok(())
    });
}

#[test]
fn after_a_kill_a_late_answer_is_nobodys_and_each_end_is_told_once() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut kitchen = Kitchen::open(fixture, &agents, 12).await?;
        let (first, second) = (kitchen.add_notes("milk").await?, kitchen.add_notes("tea").await?);
        // Both app servers request client results. One app server is killed, and some clients of both leave before
        // reassignment.
        let leaving: Vec<_> = kitchen.guests.split_off(8);
        let killing = async {
            let [killed, other] = &kitchen.apps;
            asked(&[killed, other], 8).await?;
            killed.process.signal(Signal::Kill).await?;
            failed(&kitchen.proxies, 4).await?;
            join_all(leaving.iter().map(Client::begin_close)).await.into_iter().collect::<Result<Vec<_>>>()?;
            let after = async {
                asked(&[other], 12).await?;
                for guest in &kitchen.guests {
                    guest.answer_held("Confirm", 0, json!(true)).await?;
                    guest.answer_held("Confirm", 1, json!(false)).await?;
                }
                Ok::<_, anyhow::Error>(())
            };
            let (again, answered) = tokio::join!(kitchen.delete(&second), after);
            answered?;
            again
        };
        let (before, after) = tokio::join!(kitchen.delete(&first), killing);
        let before = before?;
        let gone: Vec<_> = before.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(gone.len(), 4, "{before:?}");
        assert!(gone.iter().all(|error| error.contains("The app server that ran this call is gone")), "{gone:?}");
        assert!(before.iter().flatten().all(|deleted| *deleted == json!(true)));
        assert!(after?.iter().all(|deleted| *deleted == Ok(json!(false))), "the late answers were yes");
        let left = kitchen.notes().await?;
        assert!(second.iter().take(8).all(|note| left.contains(note)));

        until(async || Ok((kitchen.people().await?.len() == 9).then_some(()))).await?;
        let mut told = kitchen.told().await?;
        told.sort_by_key(|message| message.arguments[0].to_string());
        let names: Vec<_> =
            told.iter().map(|message| (message.target.as_str(), message.arguments[0].clone())).collect();
        let mut expected: Vec<_> = (8..12).map(|number| ("Left", json!(name(number)))).collect();
        expected.sort_by_key(|(_, name)| name.to_string());
        assert_eq!(names, expected);
        Ok(())
    });
}
