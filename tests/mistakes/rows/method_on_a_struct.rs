// remedy: goes on an async function
use trunkline::debug_method;

#[debug_method]
struct Chat;

fn main() {}
