//! Client results: a method of an app server invokes a client and receives its result.

use trunkline_protocol::service::*;

use super::app::json;
use super::fixture::{Fixture, paused};

fn question(id: &str, number: &str) -> ServiceMessage {
    let invocation = format!("{{\"type\":1,\"invocationId\":\"{number}\",\"target\":\"Ask\",\"arguments\":[]}}");
    ServiceMessage::ClientInvocation(ClientInvocation {
        invocation_id: number.into(),
        connection_id: id.into(),
        caller_server_id: "app-2".into(),
        payloads: json(&invocation),
    })
}

#[tokio::test(crate = "paused")]
async fn the_answer_of_a_client_goes_to_the_app_server_that_asked_wherever_its_home_is() {
    let (fixture, mut home, mut client) = Fixture::start().with_client().await;
    let mut reply_to = fixture.server("app-2").await;
    reply_to.send(question(&client.id, "q-1")).await;
    assert!(client.text().await.contains("\"q-1\""));
    // The client's app server must be notified of the invocation, or it would treat the result as a protocol
    // violation.
    let known = home.next().await;
    assert!(
        matches!(&known, ServiceMessage::ClientInvocation(question) if question.invocation_id == "q-1"),
        "{known:?}"
    );
    let answer = "{\"type\":3,\"invocationId\":\"q-1\",\"result\":5}\u{1e}";
    client.send(answer).await;
    assert_eq!(home.data().await.0, answer);
    home.send(ServiceMessage::ClientCompletion(ClientCompletion {
        invocation_id: "q-1".into(),
        connection_id: client.id.as_str().into(),
        caller_server_id: "app-2".into(),
        protocol: "json".into(),
        payload: answer.into(),
    }))
    .await;
    let ServiceMessage::ClientCompletion(completion) = reply_to.next().await else { panic!("no completion") };
    assert_eq!((completion.invocation_id.as_ref(), &completion.payload[..]), ("q-1", answer.as_bytes()));
}

#[tokio::test(crate = "paused")]
async fn an_invocation_of_an_unknown_client_is_answered_with_an_error() {
    let (_, mut link) = Fixture::start().with_chat().await;
    link.send(question("nobody", "q-1")).await;
    let ServiceMessage::ErrorCompletion(completion) = link.next().await else { panic!("no completion") };
    assert_eq!(completion.invocation_id, "q-1");
    assert!(completion.error.contains("nobody"), "{}", completion.error);
}
