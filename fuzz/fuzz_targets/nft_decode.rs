//! Anything that a netlink socket might deliver, read as nf_tables messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nft::read_anything(bytes));
