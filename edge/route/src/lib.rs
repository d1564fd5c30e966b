//! Route, neighbour, tunnel and link tables kept as wanted.
