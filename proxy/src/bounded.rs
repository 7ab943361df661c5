//! Bounded things of general use: permits, budgets and tables with a limit. They know nothing of what they bound.
//!
//! | file and folder | contents |
//! |---|---|
//! | `partition` | values with a lock each, one of them for each key |
//! | `budget` | an amount in use, shared by threads, with a limit |
//! | `byte_budget` | a limit of bytes beyond which the largest holders go |
//! | `holder` | who has most of a full table, and makes room |
//! | `permit` | permits with a limit for all and a share for each key |
//! | `shrink` | memory that tables return after a storm |
//! | `deadline` | items that are due at a tick |
//! | `recent` | the latest keys, each until a time |
//! | `lease` | entries of a table, each as long as its lease lives |

mod budget;
mod byte_budget;
mod deadline;
mod holder;
mod lease;
mod partition;
mod permit;
mod recent;
mod shrink;

pub(crate) use budget::{Budget, BudgetShare};
pub(crate) use byte_budget::{ByteBudget, largest};
pub(crate) use deadline::Deadlines;
pub(crate) use holder::newest_of_largest;
pub(crate) use lease::{Lease, LeaseTable, Leases};
pub(crate) use partition::Partitions;
pub(crate) use permit::{Full, Permit, Permits};
pub(crate) use recent::Recent;
pub(crate) use shrink::{shrink_queue, shrink_slab};
