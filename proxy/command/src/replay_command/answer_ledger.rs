//! Ledger of a replay: compares the app servers' answers with the recording. Pure.
//!
//! ```text
//!  recording ─► expected ─┬─ equal bytes ────────────────► equal
//!  app server ─► received ─┘
//!                     left at a settlement: equal name ──► different;   expected ──► missing
//!                     left at the end ───────────────────► surplus
//! ```
//!
//! Messages of one connection are matched by their bytes, or with removed secrets, by name. Order is compared within
//! the answers to a call and within the sends to a client, because it is not guaranteed between them.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

pub(super) const CLOSED: &str = "close";
const COMPLETION: &str = "completion";

/// Message for a client, expected or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) name: AnswerName,
    /// Bytes of the message; `None` if it is expected and its secrets were removed.
    pub(super) bytes: Option<Bytes>,
    /// Line number in the recording, for an expected message.
    pub(super) line: u64,
}

/// Name of a message, which identifies it within a connection before bytes are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerName {
    pub(super) kind: String,
    pub(super) target: Option<String>,
    pub(super) invocation_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) connection: String,
    pub(super) expected: Option<Answer>,
    pub(super) received: Option<Answer>,
    pub(super) method: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) equal: u64,
    pub(super) different: u64,
    pub(super) missing: u64,
    pub(super) surplus: u64,
    pub(super) not_compared: u64,
    /// Equal answers that arrived in another order.
    pub(super) reordered: u64,
}

impl Tally {
    pub(super) fn wrong(&self) -> u64 {
        self.different + self.missing + self.surplus
    }
}

#[derive(Debug)]
pub(super) struct AnswerLedger {
    accounts: Vec<Account>,
    tally: Tally,
    differences: Vec<Difference>,
    differences_max: usize,
}

#[derive(Debug)]
struct Account {
    connection: String,
    /// Opened before the recording, which therefore lacks the messages sent on opening.
    was_open: bool,
    expected: VecDeque<Answer>,
    received: VecDeque<Received>,
    /// Methods of unfinished calls, by call id.
    methods: HashMap<String, String>,
}

#[derive(Debug)]
struct Received {
    answer: Answer,
    /// Received on opening a connection without a recorded opening.
    is_unrecorded: bool,
}

pub(super) type AccountNumber = usize;

impl AnswerLedger {
    pub(super) fn new(differences_max: usize) -> Self {
        Self { accounts: Vec::new(), tally: Tally::default(), differences: Vec::new(), differences_max }
    }

    /// Adds a connection without expected messages.
    pub(super) fn add(&mut self, connection: &str, was_open: bool) -> AccountNumber {
        let (connection, expected, received) = (connection.into(), VecDeque::new(), VecDeque::new());
        self.accounts.push(Account { connection, was_open, expected, received, methods: HashMap::new() });
        self.accounts.len() - 1
    }

    /// Records that a connection sends: everything it receives from now on should be in the recording.
    pub(super) fn sent(&mut self, number: AccountNumber) {
        if let Some(account) = self.accounts.get_mut(number) {
            account.was_open = false;
        }
    }

    /// Records a call of a connection; answers carry this id.
    pub(super) fn called(&mut self, number: AccountNumber, id: String, method: String) {
        if let Some(account) = self.accounts.get_mut(number) {
            account.methods.insert(id, method);
        }
    }

    pub(super) fn expect(&mut self, number: AccountNumber, answer: Answer) {
        let Some(account) = self.accounts.get_mut(number) else { return };
        match account.received.iter().position(|received| answer.is_met_by(&received.answer)) {
            Some(at) => {
                account.received.remove(at);
                account.end_call(&answer.name);
                self.tally.matched(&answer);
            }
            None => account.expected.push_back(answer),
        }
    }

    pub(super) fn receive(&mut self, number: AccountNumber, answer: Answer) {
        let Some(account) = self.accounts.get_mut(number) else { return };
        let exact = account.expected.iter().position(|expected| expected.bytes == answer.bytes);
        let met = exact.or_else(|| account.expected.iter().position(|expected| expected.is_met_by(&answer)));
        let Some(at) = met else {
            let is_unrecorded = account.was_open;
            return account.received.push_back(Received { answer, is_unrecorded });
        };
        let lane = account.expected.iter().position(|expected| expected.name.is_in_lane_of(&answer.name));
        if let Some(expected) = account.expected.remove(at) {
            self.tally.matched(&expected);
            account.end_call(&expected.name);
            self.tally.reordered += u64::from(lane.is_some_and(|first| first < at));
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.accounts.iter().all(|account| account.expected.is_empty())
    }

    /// Whether each missing message has a received counterpart of equal name, so that waiting is pointless.
    pub(super) fn is_explained(&self) -> bool {
        self.accounts.iter().all(|account| {
            let mut names: Vec<_> = account.received.iter().map(|received| &received.answer.name).collect();
            account.expected.iter().all(|expected| match names.iter().position(|name| **name == expected.name) {
                Some(at) => {
                    names.swap_remove(at);
                    true
                }
                None => false,
            })
        })
    }

    /// Ends waiting: remaining expected messages are different from their counterparts, or missing.
    pub(super) fn settle(&mut self) {
        for account in &mut self.accounts {
            while let Some(expected) = account.expected.pop_front() {
                let of_name = account.received.iter().position(|received| received.answer.name == expected.name);
                let received = of_name.and_then(|at| account.received.remove(at)).map(|received| received.answer);
                match received {
                    Some(_) => self.tally.different += 1,
                    None => self.tally.missing += 1,
                }
                let method = account.method_of(&expected.name);
                account.end_call(&expected.name);
                if self.differences.len() < self.differences_max {
                    let connection = account.connection.clone();
                    self.differences.push(Difference { connection, expected: Some(expected), received, method });
                }
            }
        }
    }

    /// Ends the replay: unexpected messages are surplus. Returns the counts and the first differences.
    pub(super) fn finish(mut self) -> (Tally, Vec<Difference>) {
        self.settle();
        for mut account in self.accounts {
            for Received { answer, is_unrecorded } in std::mem::take(&mut account.received) {
                if is_unrecorded {
                    self.tally.not_compared += 1;
                    continue;
                }
                self.tally.surplus += 1;
                if self.differences.len() < self.differences_max {
                    let connection = account.connection.clone();
                    let method = account.method_of(&answer.name);
                    self.differences.push(Difference { connection, expected: None, received: Some(answer), method });
                }
            }
        }
        (self.tally, self.differences)
    }
}

impl Account {
    fn method_of(&self, name: &AnswerName) -> Option<String> {
        self.methods.get(name.answered_call()?).cloned()
    }

    fn end_call(&mut self, name: &AnswerName) {
        if let Some(call) = name.answered_call().filter(|_| name.kind == COMPLETION) {
            self.methods.remove(call);
        }
    }
}

impl Tally {
    fn matched(&mut self, expected: &Answer) {
        match expected.bytes {
            Some(_) => self.equal += 1,
            None => self.not_compared += 1,
        }
    }
}

impl Answer {
    /// Whether a received message matches the expected one, as far as known.
    fn is_met_by(&self, received: &Self) -> bool {
        match &self.bytes {
            Some(_) => self.bytes == received.bytes,
            None => self.name == received.name,
        }
    }
}

impl AnswerName {
    /// Whether order is guaranteed between the two: both answer the same call, or both are sends.
    fn is_in_lane_of(&self, other: &Self) -> bool {
        self.answered_call() == other.answered_call()
    }

    fn answered_call(&self) -> Option<&str> {
        // A message with a target is itself a call.
        self.invocation_id.as_deref().filter(|_| self.target.is_none())
    }
}

impl Difference {
    /// Position of the first differing byte, if both messages exist.
    pub(super) fn first_byte(&self) -> Option<usize> {
        let expected = self.expected.as_ref()?.bytes.as_ref()?;
        let received = self.received.as_ref()?.bytes.as_ref()?;
        let same = expected.iter().zip(received).take_while(|(one, other)| one == other).count();
        Some(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: &str, target: Option<&str>, id: Option<&str>, bytes: Option<&str>) -> Answer {
        let (target, invocation_id) = (target.map(Into::into), id.map(Into::into));
        let name = AnswerName { kind: kind.into(), target, invocation_id };
        Answer { name, bytes: bytes.map(|text| Bytes::copy_from_slice(text.as_bytes())), line: 0 }
    }

    fn send(text: &str) -> Answer {
        named("invocation", Some("Say"), None, Some(text))
    }

    fn completion(id: &str, text: &str) -> Answer {
        named("completion", None, Some(id), Some(text))
    }

    fn ledger() -> (AnswerLedger, AccountNumber) {
        let mut ledger = AnswerLedger::new(3);
        let number = ledger.add("c", false);
        (ledger, number)
    }

    #[test]
    fn answers_are_equal_if_received_before_or_after_the_expected_ones() {
        let (mut ledger, one) = ledger();
        ledger.expect(one, send("a"));
        assert!(!ledger.is_settled() && !ledger.is_explained());
        ledger.receive(one, send("a"));
        ledger.receive(one, send("b"));
        ledger.expect(one, send("b"));
        assert!(ledger.is_settled() && ledger.is_explained());
        assert_eq!(ledger.finish(), (Tally { equal: 2, ..Tally::default() }, vec![]));
    }

    #[test]
    fn an_answer_of_the_same_name_with_other_bytes_differs_at_its_first_other_byte() {
        let (mut ledger, one) = ledger();
        ledger.expect(one, completion("1", "total 10"));
        ledger.expect(one, completion("2", "same"));
        ledger.receive(one, completion("2", "same"));
        ledger.receive(one, completion("1", "total 12"));
        assert!(!ledger.is_settled() && ledger.is_explained());
        let (tally, differences) = ledger.finish();
        assert_eq!((tally.equal, tally.different, tally.wrong()), (1, 1, 1));
        assert_eq!((differences[0].first_byte(), differences[0].connection.as_str()), (Some(7), "c"));
    }

    #[test]
    fn a_difference_names_the_method_of_the_call_until_the_call_ends() {
        let (mut ledger, one) = ledger();
        ledger.called(one, "1".into(), "Total".into());
        let item = |text: &str| named("stream item", None, Some("1"), Some(text));
        for answer in [item("a"), completion("1", "10")] {
            ledger.expect(one, answer);
        }
        for answer in [item("b"), completion("1", "12"), completion("1", "again"), send("z")] {
            ledger.receive(one, answer);
        }
        let (_, differences) = ledger.finish();
        let methods: Vec<_> = differences.iter().map(|difference| difference.method.as_deref()).collect();
        assert_eq!(methods, [Some("Total"), Some("Total"), None]);
    }

    #[test]
    fn an_answer_that_is_not_received_is_missing_and_an_unexpected_one_is_surplus() {
        let (mut ledger, one) = ledger();
        ledger.expect(one, completion("1", "x"));
        ledger.receive(one, completion("9", "x2"));
        ledger.settle();
        ledger.receive(one, completion("1", "y"));
        let (tally, differences) = ledger.finish();
        assert_eq!((tally.missing, tally.surplus, tally.equal, tally.different), (1, 2, 0, 0));
        assert_eq!(differences.len(), 3);
        assert!(differences[0].received.is_none() && differences[1].expected.is_none());
    }

    #[test]
    fn each_answer_is_matched_once_and_within_its_connection() {
        let (mut ledger, one) = ledger();
        let other = ledger.add("d", false);
        for number in [one, one, other] {
            ledger.expect(number, send("same"));
        }
        for number in [one, other, other] {
            ledger.receive(number, send("same"));
        }
        let (tally, _) = ledger.finish();
        assert_eq!((tally.equal, tally.missing, tally.surplus), (2, 1, 1));
    }

    #[test]
    fn order_counts_among_sends_and_within_a_call_but_not_between_them() {
        let (mut ledger, one) = ledger();
        for answer in [completion("1", "done"), send("a"), send("b")] {
            ledger.expect(one, answer);
        }
        for answer in [send("a"), send("b"), completion("1", "done")] {
            ledger.receive(one, answer);
        }
        assert_eq!(ledger.tally.reordered, 0);
        for answer in [send("c"), send("d")] {
            ledger.expect(one, answer);
        }
        for answer in [send("d"), send("c")] {
            ledger.receive(one, answer);
        }
        assert_eq!((ledger.tally.reordered, ledger.tally.equal, ledger.tally.wrong()), (1, 5, 0));
    }

    #[test]
    fn answers_without_their_secrets_are_matched_by_name_and_not_compared() {
        let (mut ledger, one) = ledger();
        ledger.expect(one, named("invocation", Some("Say"), None, None));
        ledger.expect(one, send("plain"));
        ledger.receive(one, send("plain"));
        assert!(!ledger.is_settled());
        ledger.receive(one, send("secret"));
        ledger.receive(one, named("invocation", Some("Log"), None, Some("x")));
        ledger.expect(one, named("invocation", Some("Log"), None, None));
        let (tally, _) = ledger.finish();
        assert_eq!((tally.equal, tally.not_compared, tally.wrong()), (1, 2, 0));
    }

    #[test]
    fn unexpected_answers_to_a_reopened_connection_are_not_compared() {
        let mut ledger = AnswerLedger::new(3);
        let one = ledger.add("c", true);
        ledger.receive(one, send("welcome"));
        ledger.receive(one, send("news"));
        ledger.expect(one, send("news"));
        ledger.sent(one);
        ledger.receive(one, send("late"));
        let (tally, _) = ledger.finish();
        assert_eq!((tally.not_compared, tally.equal, tally.surplus), (1, 1, 1));
    }
}
