//! The two ends of a link against each other, in memory and with time paused.
