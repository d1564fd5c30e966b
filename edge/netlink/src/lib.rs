//! Links, addresses, routes, neighbours and forwarding entries over rtnetlink.
