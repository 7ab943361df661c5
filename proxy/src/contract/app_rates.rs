//! Rates of apps: the links of an app above its rate are read more slowly; other apps are not affected.

use std::num::NonZeroU32;

use tokio::time::Instant;

use super::app::broadcast;
use super::client::Client;
use super::fixture::{Fixture, paused};
use super::scene::chat_and_news;

const MESSAGES: u32 = 1_000;

#[tokio::test(crate = "paused")]
async fn an_app_above_its_rate_sends_more_slowly_and_loses_nothing() {
    let fixture = Fixture::set(|settings| settings.links.app_messages_per_second = NonZeroU32::new(100));
    let (_app, [mut chat, mut news]) = fixture.app_of(chat_and_news()).await;
    let mut reader = Client::connect(&fixture, &mut chat, "/chat").await;
    let mut other = Client::connect(&fixture, &mut news, "/news").await;
    let begun_at = Instant::now();
    chat.send_together((0..MESSAGES).map(|number| broadcast(&number.to_string()))).await;
    for number in 0..200 {
        assert_eq!(reader.text().await, number.to_string());
    }
    let before = begun_at.elapsed();
    news.send(broadcast("\"hi\"")).await;
    assert_eq!(other.text().await, "\"hi\"");
    assert_eq!(begun_at.elapsed(), before, "another app does not wait");
    for number in 200..MESSAGES {
        assert_eq!(reader.text().await, number.to_string());
    }
    let seconds = begun_at.elapsed().as_secs();
    assert!((8..=10).contains(&seconds), "{seconds} s of paused time for {MESSAGES} messages");
    assert!(fixture.shared.limits.refusals.all()[0].0 == "rate");
}
