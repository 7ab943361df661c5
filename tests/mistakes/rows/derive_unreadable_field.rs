// remedy: another type that implements `FromStr`
use trunkline::FromContext;

struct Room;

#[derive(FromContext)]
struct Place {
    #[query("room")]
    room: Room,
}

fn main() {}
