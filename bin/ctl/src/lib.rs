//! calicoctl: the user's command line.
