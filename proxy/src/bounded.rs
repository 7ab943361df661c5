//! Bounded data structures for general use: permits, budgets and tables with a limit. They are independent of their
//! contents.
//!
//! | file and folder | contents |
//! |---|---|
//! | `partition` | values partitioned by key, each with its own lock |
//! | `budget` | an amount in use with a limit, shared between threads |
//! | `byte_budget` | a limit of bytes; the largest holders are closed |
//! | `holder` | choice of the entries to evict from a full table |
//! | `permit` | permits with a total limit and a share per key |
//! | `turn` | turns by time of busy holders |
//! | `shrink` | memory that tables release after a peak |
//! | `deadline` | items due at a tick |
//! | `recent` | the most recent keys, each until a deadline |
//! | `lease` | table entries that live as long as their lease |

mod budget;
mod byte_budget;
mod deadline;
mod holder;
mod lease;
mod partition;
mod permit;
mod recent;
mod shrink;
mod turn;

pub(crate) use budget::{Budget, BudgetShare};
pub(crate) use byte_budget::{ByteBudget, largest};
pub(crate) use deadline::Deadlines;
pub(crate) use holder::{Holders, pass_interval};
pub(crate) use lease::{Lease, LeaseTable, Leases};
pub(crate) use partition::Partitions;
pub(crate) use permit::{Full, Permit, Permits};
pub(crate) use recent::Recent;
pub(crate) use shrink::{shrink_queue, shrink_slab};
pub(crate) use turn::{Turn, TurnLine, Turns};
