//! Files of `deploy/`: started as far as this machine can, and otherwise validated by their own tools.

mod charts;
mod compose_files;
mod image;
mod kubernetes;
mod layout;
mod metrics;
mod packages;
mod roll_outs;
mod scripts;
mod settings;
mod supervisor;
mod versions;
