//! Tests of the TypeScript types of hubs.

use serde::{Deserialize, Serialize};

use trunkline::typescript::{TS, TypeScript, TypeScriptError};
use trunkline::value::{Binary, Guid, Timestamp};
use trunkline::{Context, Hub, HubError, Methods, Policy, Receivers, UploadStream, client_interface};

#[derive(Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Shape {
    Circle { radius: f64 },
    Group { shapes: Vec<Shape>, made_by: Author },
}

#[derive(Serialize, Deserialize, TS)]
#[ts(crate = "trunkline::typescript::ts_rs")]
struct Author {
    name: String,
    id: u64,
}

client_interface! {
    trait DrawingClient: TypeScript {
        fn drawn(shape: &Shape, by: Option<&str>) = "Drawn";
        fn confirm(question: String) -> bool = "Confirm";
        fn cleared();
    }
}

async fn draw(_: Context, _shape: Shape, _note: Option<String>) -> Result<u64, HubError> {
    Ok(1)
}

async fn undo() {}

async fn stamp(_pixels: Binary, _taken: Option<Timestamp>) -> Guid {
    Guid::from_bytes([0; 16])
}

async fn history(_from: u64) -> Result<impl futures_util::Stream<Item = Result<Shape, HubError>>, HubError> {
    Ok(futures_util::stream::empty())
}

async fn sum(_numbers: UploadStream<f64>, _scale: f64) -> f64 {
    0.0
}

fn drawing() -> Hub {
    let undoing = Methods::new().typed_method("Undo", undo).require_user();
    Hub::new("/drawing")
        .typed_method("Draw", draw)
        .methods(undoing)
        .typed_method("History", history)
        .typed_method("Sum", sum)
        .typed_guarded("Stamp", Policy::user(), stamp)
        .method("Plain", undo)
}

fn types() -> TypeScript {
    TypeScript::new().hub("Drawing", &drawing()).client("Drawing", <Receivers as DrawingClient>::typescript)
}

#[test]
fn methods_and_handlers_have_the_types_of_their_functions() {
    let text = types().render().unwrap();
    for line in [
        "import type { HubConnection, IStreamResult, Subject } from \"@microsoft/signalr\";",
        "export type Author = { name: string, id: number, };",
        "  \"Draw\": (argument1: Shape, argument2: string | null) => number;",
        "  \"Undo\": () => void;",
        "  \"History\": (argument1: number) => Shape;",
        "  \"Sum\": (argument1: Subject<number>, argument2: number) => number;",
        "  \"Stamp\": (argument1: string | Uint8Array, argument2: string | Date | null) => string;",
        "  \"Plain\": (...args: unknown[]) => unknown;",
        "  \"Drawn\": (shape: Shape, by: string | null) => void;",
        "  \"Confirm\": (question: string) => boolean | Promise<boolean>;",
        "  \"cleared\": () => void;",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\nin\n{text}");
    }
    assert_eq!(text.matches("export type Shape").count(), 1, "{text}");
    let names = text.lines().filter_map(|line| line.strip_prefix("export interface ")?.split(' ').next());
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["DrawingMethods", "DrawingStreams", "DrawingHandlers", "DrawingConnection"]);
    let methods = text.split("export interface DrawingMethods").nth(1).unwrap().split('}').next().unwrap();
    assert!(!methods.contains("History"), "a method that streams is not invoked: {text}");
    assert_eq!(text.matches("\"Plain\"").count(), 2, "nobody knows whether it streams: {text}");
}

#[test]
fn a_hub_without_streams_and_handlers_imports_no_types_for_them() {
    let hub: Hub = Hub::new("/drawing").typed_method("Undo", undo);
    let text = TypeScript::new().hub("Drawing", &hub).render().unwrap();
    assert!(text.contains("import type { HubConnection } from"), "{text}");
    assert!(!text.contains("DrawingStreams") && !text.contains("\"on\""), "{text}");
    assert!(!TypeScript::new().render().unwrap().contains("import"));
}

#[test]
fn a_file_is_checked_for_being_current() {
    let folder = std::env::temp_dir().join(trunkline_protocol::id::random_id());
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("drawing.ts");
    assert!(matches!(types().check(&file), Err(TypeScriptError::File { .. })));
    types().write(&file).unwrap();
    types().check(&file).unwrap();
    assert!(matches!(TypeScript::new().check(&file), Err(TypeScriptError::Outdated(_))));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn two_types_of_one_name_are_an_error() {
    mod other {
        #[derive(serde::Deserialize, super::TS)]
        #[ts(crate = "trunkline::typescript::ts_rs")]
        pub(super) struct Author {
            pub(super) nick: String,
        }
    }
    async fn sign(author: other::Author) {
        drop(author.nick);
    }
    let clash = types().hub("Other", &Hub::<()>::new("/other").typed_method("Sign", sign)).render();
    assert!(matches!(clash, Err(TypeScriptError::DuplicateType(name)) if name == "Author"));
    #[derive(Serialize, TS)]
    struct DrawingMethods(u8);
    let hub: Hub = Hub::new("/other").typed_method("Count", async || DrawingMethods(1));
    let clash = types().hub("Other", &hub).render();
    assert!(matches!(clash, Err(TypeScriptError::DuplicateType(name)) if name == "DrawingMethods"));
}
