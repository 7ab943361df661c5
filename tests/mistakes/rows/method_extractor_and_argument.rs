// remedy: ExtractorXorDeserialize
use trunkline::{Context, FromContext, HubError, debug_method};

#[derive(serde::Deserialize)]
struct Person {
    name: String,
}

impl<S: Sync> FromContext<S> for Person {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        let name = ctx.user_id().ok_or_else(|| HubError::new("log in first"))?;
        Ok(Self { name: name.to_owned() })
    }
}

#[debug_method]
async fn hello(person: Person) -> String {
    person.name
}

fn main() {}
