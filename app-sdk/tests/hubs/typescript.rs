//! Types of hubs for TypeScript, as pages see them.

use serde::{Deserialize, Serialize};

use trunkline::typescript::{TS, TypeScript, TypeScriptError};
use trunkline::value::{Binary, Guid, Timestamp};
use trunkline::{Context, Hub, HubError, Methods, Receivers, UploadStream, client_interface};

#[derive(Serialize, Deserialize, TS)]
#[ts(crate = "trunkline::typescript::ts_rs")]
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
        .typed_method("Stamp", stamp)
        .method("Plain", undo)
}

fn types() -> TypeScript {
    TypeScript::new().hub("Drawing", &drawing()).client("Drawing", <Receivers as DrawingClient>::typescript)
}

#[test]
fn methods_and_handlers_have_the_types_of_their_functions() {
    let text = types().render().unwrap();
    for line in [
        "export type Author = { name: string, id: number, };",
        "  invoke(method: \"Draw\", argument1: Shape, argument2: string | null): Promise<number>;",
        "  send(method: \"Draw\", argument1: Shape, argument2: string | null): Promise<void>;",
        "  invoke(method: \"Undo\"): Promise<void>;",
        "  stream(method: \"History\", argument1: number): IStreamResult<Shape>;",
        "  invoke(method: \"Sum\", argument1: Subject<number>, argument2: number): Promise<number>;",
        "  invoke(method: \"Stamp\", argument1: string | Uint8Array, argument2: string | Date | null): Promise<string>;",
        "  invoke(method: \"Plain\", ...args: unknown[]): Promise<unknown>;",
        "  on(method: \"Drawn\", handler: (shape: Shape, by: string | null) => void): void;",
        "  on(method: \"Confirm\", handler: (question: string) => boolean | Promise<boolean>): void;",
        "  on(method: \"cleared\", handler: () => void): void;",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\nin\n{text}");
    }
    assert_eq!(text.matches("export type Shape").count(), 1, "{text}");
    assert_eq!(text.matches("export interface").count(), 1, "{text}");
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
}
