//! BGP filters: stored and validated; they take effect with the BGP speaker.

use crate::meta::{Cluster, kind, part};
use crate::value::NumOrString;

part!(
    /// Rules for the routes that a peer is told and that it tells, in order.
    BGPFilterSpec {
        /// IPv4 routes that a peer is told.
        export_v4: Vec<BGPFilterRule>,
        /// IPv4 routes that a peer tells.
        import_v4: Vec<BGPFilterRule>,
        /// IPv6 routes that a peer is told.
        export_v6: Vec<BGPFilterRule>,
        /// IPv6 routes that a peer tells.
        import_v6: Vec<BGPFilterRule>,
    }
);
kind!(BGPFilterSpec, BGPFilter, "bgpfilters", Cluster);

part!(
    /// What a route must be like, and what becomes of it then. What is not given matches every route.
    #[schemars(extend("required" = ["action"]))]
    BGPFilterRule {
        /// Prefix that `matchOperator` compares the route's with.
        cidr: String,
        /// Lengths that the route's prefix may have; `cidr`'s own and longer ones if not given.
        prefix_length: Option<BGPFilterPrefixLength>,
        /// Only routes that came from BGP peers.
        #[schemars(extend("enum" = ["RemotePeers"]))]
        source: Option<String>,
        /// Interface that the route leaves by; `*` stands for any characters.
        interface: String,
        /// How the route's prefix must relate to `cidr`.
        #[schemars(extend("enum" = ["Equal", "NotEqual", "In", "NotIn"]))]
        match_operator: Option<String>,
        /// Only to or from peers of another AS, or of the same.
        #[schemars(extend("enum" = ["eBGP", "iBGP"]))]
        peer_type: Option<String>,
        /// Communities that the route must carry.
        communities: Option<BGPFilterCommunityMatch>,
        /// AS numbers that the route's path must start with.
        #[serde(rename = "asPathPrefix")]
        as_path_prefix: Vec<NumOrString>,
        /// Kernel metric that the route must have.
        #[schemars(range(min = 1, max = 2_147_483_646))]
        priority: Option<i32>,
        /// Whether the route is taken.
        #[schemars(extend("enum" = ["Accept", "Reject"]))]
        action: String,
        /// What is changed in a route that is taken, in order.
        #[schemars(length(max = 10))]
        operations: Vec<BGPFilterOperation>,
    }
);

part!(
    /// Bounds of a prefix length.
    BGPFilterPrefixLength {
        /// At least.
        #[schemars(range(min = 0, max = 128))]
        min: Option<i32>,
        /// At most.
        #[schemars(range(min = 0, max = 128))]
        max: Option<i32>,
    }
);

part!(
    /// Communities that a route must carry.
    BGPFilterCommunityMatch {
        /// Exactly one: `aa:nn` or `aa:nn:mm`.
        #[schemars(length(min = 1, max = 1))]
        values: Vec<String>,
    }
);

part!(
    /// One change of a route: exactly one field is given.
    BGPFilterOperation {
        /// Adds a community.
        add_community: Option<BGPFilterAddCommunity>,
        /// Puts AS numbers before the path.
        #[serde(rename = "prependASPath")]
        prepend_as_path: Option<BGPFilterPrependASPath>,
        /// Sets the kernel metric.
        set_priority: Option<BGPFilterSetPriority>,
    }
);

part!(
    /// A community to add.
    BGPFilterAddCommunity {
        /// `aa:nn` or `aa:nn:mm`.
        value: String,
    }
);

part!(
    /// AS numbers to put before the path.
    BGPFilterPrependASPath {
        /// The numbers, as they shall stand at the start of the path.
        #[schemars(length(min = 1, max = 10))]
        prefix: Vec<NumOrString>,
    }
);

part!(
    /// A kernel metric.
    BGPFilterSetPriority {
        /// The metric.
        #[schemars(range(min = 1, max = 2_147_483_646))]
        value: Option<i32>,
    }
);
