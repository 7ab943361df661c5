//! Bounded data structures for general use: permits, budgets and tables with a limit. They are independent of their
//! contents.

mod budget;
mod byte_budget;
mod deadline;
mod first_names;
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
pub(crate) use first_names::FirstNames;
pub(crate) use holder::{Holders, pass_interval};
pub(crate) use lease::{Lease, LeaseTable, Leases};
pub(crate) use partition::Partitions;
pub(crate) use permit::{Full, Permit, Permits, fair_share};
pub(crate) use recent::Recent;
pub(crate) use shrink::{shrink_queue, shrink_slab};
pub(crate) use turn::{Turn, TurnLine, TurnSource, Turns};
