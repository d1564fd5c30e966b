//! Variables of what writes the configuration of BGP.

use api::v3::felix::Kind::{Choice, Seconds, Text};
use api::v3::felix::Parameter;

use super::Group;

pub(super) const GROUPS: &[Group] = &[Group { title: "BGP", rows: ROWS }];

#[rustfmt::skip] // a table: one row a line
const ROWS: &[Parameter] = &[
    Parameter::new("BGP_LOGSEVERITYSCREEN", Choice(&["Debug", "Info", "Warning", "Error", "Fatal", "Panic"]), "Info", "Least severity that is logged while the configuration is written."),
    Parameter::new("CALICO_ROUTER_ID", Text, "", "Router id: an IPv4 address, or `hash` for one made of the node's name. Without it the node's IPv4 address."),
    Parameter::new("CALICO_ADVERTISE_CLUSTER_IPS", Text, "", "Range of cluster IPs to advertise; older form of `serviceClusterIPs` of BGPConfiguration."),
    Parameter::new("CONFD_TYPHAADDR", Text, "", "Address of Typha. This and the next are also taken from `FELIX_` and `CALICO_` and the same ending, in this order."),
    Parameter::new("CONFD_TYPHAK8SSERVICENAME", Text, "", "Service of Typha."),
    Parameter::new("CONFD_TYPHAK8SNAMESPACE", Text, "kube-system", "Namespace of that service."),
    Parameter::new("CONFD_TYPHAREADTIMEOUT", Seconds, "30", "Time without data after which Typha counts as gone."),
    Parameter::new("CONFD_TYPHAWRITETIMEOUT", Seconds, "10", "Time a write to Typha may take."),
    Parameter::new("CONFD_TYPHAKEYFILE", Text, "", "Client key for Typha."),
    Parameter::new("CONFD_TYPHACERTFILE", Text, "", "Client certificate for Typha."),
    Parameter::new("CONFD_TYPHACAFILE", Text, "", "CA of Typha."),
    Parameter::new("CONFD_TYPHACN", Text, "", "Common name of Typha's certificate."),
    Parameter::new("CONFD_TYPHAURISAN", Text, "", "URI name of Typha's certificate."),
];
