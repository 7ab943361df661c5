//! Upgrades: decisions and attachments of both ends.

use super::*;

fn offer(session: SessionId, received: Option<u64>) -> Offer {
    Offer { session, received, capabilities: capable() }
}

fn second() -> SessionId {
    SessionId::FIRST.next()
}

#[test]
fn a_new_session_is_begun_and_an_unknown_one_is_not() {
    assert_eq!(decide_upgrade(&offer(SessionId::FIRST, None), None, None), UpgradeDecision::Begin);
    let unknown = UpgradeDecision::Refuse(UpgradeRefusal::Unknown);
    assert_eq!(decide_upgrade(&offer(SessionId::FIRST, Some(0)), None, None), unknown);
    assert_eq!(decide_upgrade(&offer(SessionId::FIRST, None), None, Some(SessionId::FIRST)), unknown);
    assert_eq!(decide_upgrade(&offer(SessionId::FIRST, None), None, Some(second())), unknown);
}

#[test]
fn a_live_socket_is_ended_first_by_its_own_session_and_by_the_next() {
    let (mut live, attachment) = attached(Role::AppServer);
    for offer in [offer(SessionId::FIRST, Some(0)), offer(second(), None)] {
        assert_eq!(decide_upgrade(&offer, Some(&live), Some(SessionId::FIRST)), UpgradeDecision::EndSocketFirst);
    }
    live.detach(attachment, 0);
    assert_eq!(
        decide_upgrade(&offer(SessionId::FIRST, Some(0)), Some(&live), Some(SessionId::FIRST)),
        UpgradeDecision::Resume
    );
    assert_eq!(decide_upgrade(&offer(second(), None), Some(&live), Some(SessionId::FIRST)), UpgradeDecision::Begin);
}

#[test]
fn a_late_upgrade_does_not_touch_the_live_socket() {
    let (mut live, attachment) = attached(Role::AppServer);
    push(&mut live, "a");
    push(&mut live, "b");
    written(&mut live, attachment, 0);
    acknowledge(&mut live, 2).unwrap();
    for received in [None, Some(1), Some(3)] {
        let judgement = decide_upgrade(&offer(SessionId::FIRST, received), Some(&live), Some(SessionId::FIRST));
        assert_eq!(judgement, UpgradeDecision::Refuse(UpgradeRefusal::Stale), "{received:?}");
    }
}

#[test]
fn an_upgrade_with_a_lost_answer_is_repeated() {
    let (mut live, attachment) = attached(Role::AppServer);
    push(&mut live, "a");
    written(&mut live, attachment, 0);
    live.detach(attachment, 0);
    assert_eq!(
        decide_upgrade(&offer(SessionId::FIRST, None), Some(&live), Some(SessionId::FIRST)),
        UpgradeDecision::Resume
    );
    let (again, answer) = live.handle_offer(&offer(SessionId::FIRST, None), 0).unwrap();
    assert_eq!(answer, Answer { received: 0, capabilities: capable() });
    assert_eq!(texts(&written(&mut live, again, 0)), ["a"]);
}

#[test]
fn an_answer_to_an_ended_session_is_not_accepted() {
    let mut session = Session::new(second(), Role::Proxy, settings(), 0);
    let answer = Answer { received: 0, capabilities: capable() };
    assert_eq!(session.handle_answer(&offer(SessionId::FIRST, Some(0)), &answer, 0), Ok(None));
}

#[test]
fn headers_are_read_as_they_are_written() {
    assert_eq!(second().to_string().parse(), Ok(second()));
    assert_eq!(capable().to_string(), "resume=1000, causes, handovers, moves, traces, records");
    assert_eq!("other, resume=1000 ,x=1,causes, handovers, moves,traces, records".parse(), Ok(capable()));
    let plain = Capabilities { supports_causes: true, ..Capabilities::default() };
    assert_eq!((plain.to_string().as_str(), "causes".parse()), ("causes", Ok(plain)));
    assert_eq!("causes=1, because".parse(), Ok(Capabilities::default()));
    let proxy = session(Role::Proxy).offer().capabilities;
    assert_eq!(
        (proxy.to_string().as_str(), proxy.to_string().parse()),
        ("resume=1000, window=1000, causes, members, handovers, moves, presence, traces, records", Ok(proxy))
    );
    let flow = Capabilities { client_message_max_bytes: Some(70), ..Capabilities::default() };
    assert_eq!((flow.to_string().as_str(), "client-flow=70".parse()), ("client-flow=70", Ok(flow)));
    for none in ["", "resumes=1", "resume", "client-flow"] {
        assert_eq!(none.parse(), Ok(Capabilities::default()), "{none:?}");
    }
    assert_eq!(Capabilities::default().to_string(), "");
    assert_eq!(parse_received("120"), Ok(120));
    for bad in ["", "-1", "+1", "0x1", "1 "] {
        assert!(parse_received(bad).is_err() && bad.parse::<SessionId>().is_err(), "{bad:?}");
    }
    assert!("0".parse::<SessionId>().is_err() && "resume=x".parse::<Capabilities>().is_err());
    assert!("resume=1, window=soon".parse::<Capabilities>().is_err());
    assert!("client-flow=much".parse::<Capabilities>().is_err());
}
