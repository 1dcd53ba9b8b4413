//! Layout of a directed graph: nodes and edges in, positions and curves out. It is pure and deterministic: the same
//! graph always gives the same numbers.
//!
//! A level is a column, and every edge goes right. [`layout()`] works in six steps:
//!
//! 1. Levels: the longest path from a node without parents ([`levels`]).
//! 2. Reduction: edges that a longer path implies are not drawn ([`reduced`]).
//! 3. Chains: a node with children beyond the next level gets one chain of points through the levels between. All its
//!    long edges share the chain, so a fan-out is one line that splits late.
//! 4. Order in each level: barycentre sweeps. The order with the fewest crossings wins.
//! 5. Heights: each item wants the mean of its neighbours. The nearest heights that keep order and distance are an
//!    isotonic regression.
//! 6. Edges: one curve for each gap between two columns, with level ends.
//!
//! A larger graph is not drawn. [`bands`] groups its levels into rows.

mod bands;
mod chains;
mod critical;
mod heights;
mod layout;
mod levels;
mod nearest;
mod order;
mod reduce;

pub use bands::{Band, bands};
pub use critical::critical;
pub use layout::{Layout, MAX_NODES, Point, Size, Wire, layout};
pub use levels::{Levels, levels};
pub use nearest::nearest;
pub use reduce::reduced;

/// From a parent to a child, as indexes of nodes.
pub type Edge = (usize, usize);
