//! What a node is asked to report about itself, and the report.

use crate::meta::{Cluster, choice, kind, part};

part!(
    /// Which node reports what, and how often.
    CalicoNodeStatusSpec {
        /// The node.
        node: String,
        /// What it reports: `Agent`, `BGP`, `Routes`.
        #[schemars(length(min = 1, max = 3))]
        classes: Vec<NodeStatusClass>,
        /// Time between reports; 0 for a single one.
        #[schemars(range(min = 0, max = 86_400))]
        update_period_seconds: Option<i32>,
    }
);
kind!(
    CalicoNodeStatusSpec,
    CalicoNodeStatus,
    "caliconodestatuses",
    Cluster,
    CalicoNodeStatusStatus
);

choice!(
    /// What a node may report.
    NodeStatusClass { Agent, BGP, Routes }
);

part!(
    /// A report.
    CalicoNodeStatusStatus {
        /// When it was made, RFC 3339, UTC.
        last_updated: Option<String>,
        /// The BGP daemons.
        agent: Option<CalicoNodeAgentStatus>,
        /// The BGP sessions.
        bgp: Option<CalicoNodeBGPStatus>,
        /// The routes.
        routes: Option<CalicoNodeBGPRouteStatus>,
    }
);

part!(
    /// The BGP daemons of a node.
    CalicoNodeAgentStatus {
        /// For IPv4.
        #[serde(rename = "birdV4")]
        bird_v4: Option<BGPDaemonStatus>,
        /// For IPv6.
        #[serde(rename = "birdV6")]
        bird_v6: Option<BGPDaemonStatus>,
    }
);

part!(
    /// A BGP daemon.
    BGPDaemonStatus {
        /// `Ready` or `NotReady`.
        state: String,
        /// Its version.
        version: String,
        /// Its router id.
        #[serde(rename = "routerID")]
        router_id: String,
        /// When it started.
        last_boot_time: String,
        /// When its configuration last changed.
        last_reconfiguration_time: String,
    }
);

part!(
    /// The BGP sessions of a node.
    CalicoNodeBGPStatus {
        /// IPv4 sessions that stand.
        number_established_v4: Option<i32>,
        /// IPv4 sessions that do not.
        number_not_established_v4: Option<i32>,
        /// IPv6 sessions that stand.
        number_established_v6: Option<i32>,
        /// IPv6 sessions that do not.
        number_not_established_v6: Option<i32>,
        /// The IPv4 sessions.
        peers_v4: Vec<CalicoNodePeer>,
        /// The IPv6 sessions.
        peers_v6: Vec<CalicoNodePeer>,
    }
);

part!(
    /// A BGP session.
    CalicoNodePeer {
        /// Address of the peer.
        #[serde(rename = "peerIP")]
        peer_ip: String,
        /// Why there is a session: `NodeMesh`, `NodePeer` or `GlobalPeer`.
        r#type: String,
        /// State of the session (RFC 4271, 8.2.2), or `Close`.
        state: String,
        /// Since when.
        since: String,
    }
);

part!(
    /// The routes of a node.
    CalicoNodeBGPRouteStatus {
        /// IPv4 routes.
        routes_v4: Vec<CalicoNodeRoute>,
        /// IPv6 routes.
        routes_v6: Vec<CalicoNodeRoute>,
    }
);

part!(
    /// A route.
    CalicoNodeRoute {
        /// `FIB` if packets take it, otherwise `RIB`.
        r#type: String,
        /// The prefix.
        destination: String,
        /// The next hop.
        gateway: String,
        /// The interface.
        interface: String,
        /// Where it came from.
        learned_from: Option<CalicoNodeRouteLearnedFrom>,
    }
);

part!(
    /// Where a route came from.
    CalicoNodeRouteLearnedFrom {
        /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
        source_type: String,
        /// The peer that told it.
        #[serde(rename = "peerIP")]
        peer_ip: String,
    }
);
