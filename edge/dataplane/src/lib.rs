//! Calculated state to drivers: the managers and the one apply loop.
