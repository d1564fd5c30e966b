//! List and watch to ordered updates with an in-sync marker.
