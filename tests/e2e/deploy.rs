//! What `deploy/` ships: started as far as this machine can, and else looked at by the tools that know it.

mod charts;
mod compose_files;
mod image;
mod kubernetes;
mod layout;
mod metrics;
mod settings;
mod supervisor;
mod versions;
