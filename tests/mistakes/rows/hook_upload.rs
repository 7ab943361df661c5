// remedy: no client gives them arguments or streams
use trunkline::{UploadStream, debug_hook};

#[debug_hook]
async fn hello(_words: UploadStream<String>) {}

fn main() {}
