//! Code blocks of the README and the book as doc tests, so that copied code compiles and runs.

#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("../docs/book/src/ai-answer.md")]
struct AiAnswerPage;

#[doc = include_str!("../docs/book/src/app/embedded.md")]
struct EmbeddedPage;

#[doc = include_str!("../docs/book/src/app/groups.md")]
struct GroupsPage;

#[doc = include_str!("../docs/book/src/app/hubs.md")]
struct HubsPage;

#[doc = include_str!("../docs/book/src/app/jobs.md")]
struct JobsPage;

#[doc = include_str!("../docs/book/src/app/presence.md")]
struct PresencePage;

#[doc = include_str!("../docs/book/src/app/raw.md")]
struct RawPage;

#[doc = include_str!("../docs/book/src/app/results.md")]
struct ResultsPage;

#[doc = include_str!("../docs/book/src/app/stateful-reconnect.md")]
struct StatefulReconnectPage;

#[doc = include_str!("../docs/book/src/app/stops.md")]
struct StopsPage;

#[doc = include_str!("../docs/book/src/app/streams.md")]
struct StreamsPage;

#[doc = include_str!("../docs/book/src/app/testing.md")]
struct TestingPage;

#[doc = include_str!("../docs/book/src/app/typescript.md")]
struct TypescriptPage;

#[doc = include_str!("../docs/book/src/app/users.md")]
struct UsersPage;

#[doc = include_str!("../docs/book/src/clients/dotnet.md")]
struct DotnetPage;

#[doc = include_str!("../docs/book/src/missed-messages.md")]
struct MissedMessagesPage;

#[doc = include_str!("../docs/book/src/operators/opentelemetry.md")]
struct OpentelemetryPage;

#[doc = include_str!("../docs/book/src/operators/trace.md")]
struct TracePage;
