//! Types of hubs, checked strictly by the TypeScript compiler: correct calls compile, and an error names the wrong
//! argument. Like an app, this crate does not depend on the derive crate directly.

use std::fs;

use anyhow::Result;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use trunkline::typescript::{TS, TypeScript};
use trunkline::value::{Binary, DateTimeOffset, Decimal, Guid, TimeSpan, Timestamp, Value};
use trunkline::{Context, Hub, HubError, Methods, Policy, Receivers, UploadStream, client_interface};
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::tools::type_check;

#[derive(Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Shape {
    Circle { radius: f64 },
    Group { shapes: Vec<Shape>, made_by: Option<String> },
}

#[derive(Serialize, Deserialize, TS)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

client_interface! {
    trait DrawingClient: TypeScript {
        fn drawn(shape: &Shape, by: Option<&str>) = "Drawn";
        fn confirm(question: String) -> bool = "Confirm";
    }
}

async fn draw(_: Context, _shape: Shape, _note: Option<String>) -> Result<u64, HubError> {
    Ok(1)
}

async fn list(_from: u64) -> Page<Shape> {
    Page { items: Vec::new(), next: None }
}

async fn history(_from: u64) -> Result<impl Stream<Item = Result<Shape, HubError>>, HubError> {
    Ok(stream::empty())
}

async fn sum(_numbers: UploadStream<f64>, scale: f64) -> f64 {
    scale
}

async fn stamp(_pixels: Binary, at: Option<Timestamp>, _id: Guid) -> Option<Timestamp> {
    at
}

async fn weigh(_grams: Decimal, _took: TimeSpan, _due: DateTimeOffset) -> Value {
    Value::Null
}

async fn nothing() {}

fn types() -> TypeScript {
    let guarded = Methods::new().typed_guarded("Clear", Policy::claim("role", "admin"), nothing);
    let hub: Hub = Hub::new("/drawing")
        .typed_method("Draw", draw)
        .typed_method("List", list)
        .typed_method("History", history)
        .typed_method("Sum", sum)
        .typed_method("Stamp", stamp)
        .typed_method("Weigh", weigh)
        .typed_guarded("Undo", Policy::user(), nothing)
        .methods(guarded)
        .method("Plain", nothing);
    let small: Hub = Hub::new("/small").typed_method("Ping", nothing);
    let types = TypeScript::new().hub("Drawing", &hub).client("Drawing", <Receivers as DrawingClient>::typescript);
    types.hub("Small", &small)
}

/// Correct calls that use their results.
const PAGE: &str = r#"
import { HubConnectionBuilder, Subject } from "@microsoft/signalr";
import type { DrawingConnection, Page, Shape, SmallConnection } from "./hubs";

const drawing = new HubConnectionBuilder().withUrl("/drawing").build() as DrawingConnection;
const small = new HubConnectionBuilder().withUrl("/small").build() as SmallConnection;

export async function use(numbers: Subject<number>): Promise<void> {
  drawing.on("Drawn", (shape, by) => console.log(shape.kind, by?.length));
  drawing.on("Confirm", async (question) => question.length > 0);
  drawing.off("Drawn");
  await drawing.start();
  const id: number = await drawing.invoke("Draw", { kind: "group", shapes: [], madeBy: null }, null);
  const page: Page<Shape> = await drawing.invoke("List", id);
  drawing.stream("History", page.next ?? 0).subscribe({ next: (shape: Shape) => console.log(shape), error: console.log, complete() {} });
  const sum: number = await drawing.invoke("Sum", numbers, 2);
  const at: string | Date | null = await drawing.invoke("Stamp", new Uint8Array(sum), new Date(), "an id");
  const weight: unknown = await drawing.invoke("Weigh", "1.5", "00:00:01", "2000-01-01T00:00:00Z");
  await drawing.send("Undo");
  await drawing.invoke("Clear");
  const anything: unknown = await drawing.invoke("Plain", at, weight);
  drawing.stream("Plain", anything);
  small.on("Anything", (text: string) => console.log(text));
  await small.invoke("Ping");
}
"#;

/// Incorrect calls, with words of the expected error.
const MISTAKES: [(&str, &str); 7] = [
    (
        r#"drawing.invoke("Draw", { kind: "circle", radius: "7" }, null)"#,
        "Type 'string' is not assignable to type 'number'",
    ),
    (r#"drawing.invoke("Draw", { kind: "circle", radius: 7 })"#, "Expected 3 arguments, but got 2"),
    (r#"drawing.invoke("Sum", 1, 2)"#, "not assignable to parameter of type 'Subject<number>'"),
    (r#"drawing.invoke("Drow")"#, "not assignable to parameter of type 'keyof DrawingMethods'"),
    (r#"drawing.stream("Draw")"#, "not assignable to parameter of type 'keyof DrawingStreams'"),
    (r#"drawing.on("Drown", () => {})"#, "not assignable to parameter of type 'keyof DrawingHandlers'"),
    (r#"drawing.on("Confirm", (question: string) => question)"#, "'string' is not assignable to type 'boolean"),
];

/// Checks a page together with the types, with the strictest compiler options.
async fn check(fixture: &Fixture, page: &str) -> Result<(bool, String)> {
    types().write(fixture.folder().join("hubs.ts"))?;
    fs::write(fixture.folder().join("page.ts"), page)?;
    let options = "--strict --noUnusedLocals --noUncheckedIndexedAccess --exactOptionalPropertyTypes";
    type_check(fixture.folder(), options, &["page.ts", "hubs.ts"]).await
}

#[test]
fn the_types_compile_strictly_and_so_do_right_calls() {
    run_test(async |fixture| {
        let (is_good, errors) = check(fixture, PAGE).await?;
        assert!(is_good, "{errors}");
        Ok(())
    });
}

#[test]
fn a_wrong_call_is_an_error_that_names_the_argument() {
    run_test(async |fixture| {
        for (call, words) in MISTAKES {
            let page = format!(
                "import type {{ DrawingConnection }} from \"./hubs\";\ndeclare const drawing: DrawingConnection;\n{call};\n"
            );
            let (is_good, errors) = check(fixture, &page).await?;
            assert!(!is_good && errors.starts_with("page.ts(3,") && errors.contains(words), "{call}: {errors}");
        }
        Ok(())
    });
}
