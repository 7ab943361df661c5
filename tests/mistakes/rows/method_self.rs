// remedy: take what it shares with others as `State<T>`
use trunkline::debug_method;

struct Chat;

impl Chat {
    #[debug_method]
    async fn say(&self, text: String) -> String {
        text
    }
}

fn main() {}
