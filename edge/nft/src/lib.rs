//! The nf_tables netlink codec and driver.
