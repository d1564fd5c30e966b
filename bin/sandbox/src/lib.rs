//! A cluster on one machine: nodes, kubelet stand-in, scheduler, probes, demo.
