package config

import (
	"net/netip"
	"time"
)

// ManagementPort is where a dispatcher listens for operators unless told otherwise.
const ManagementPort = 25061

var (
	anyIP    = netip.IPv4Unspecified()
	loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// sections is the one table of settings.
var sections = []sectionSpec{
	{name: "Dispatcher", roles: RoleDispatcher, keys: dispatcherKeys,
		help: "The dispatcher: it takes requests of the SIP proxy on a UNIX socket and hands each call to a relay."},
	{name: "Relay", roles: RoleRelay, keys: relayKeys,
		help: "The relay: it owns the media ports and moves the packets."},
	{name: "TLS", roles: RoleBoth, keys: tlsKeys,
		help: "Certificates of the connections between dispatchers, relays and management clients."},
	{name: "OpenSIPS", roles: RoleDispatcher, keys: openSIPSKeys,
		help: "Where the original's dispatcher asks OpenSIPS to end the dialog of a call whose media stopped."},
	{name: "Hangup", roles: RoleDispatcher, keys: hangupKeys,
		help: "How the dispatcher asks the SIP proxy to end the dialog of a call whose media stopped."},
	{name: "Radius", roles: RoleDispatcher, keys: radiusKeys, help: "RADIUS accounting."},
	{name: "Database", roles: RoleDispatcher, keys: databaseKeys, help: "Accounting in an SQL database."},
	{name: "Webhook", roles: RoleDispatcher, keys: webhookKeys, help: "Accounting by HTTP: each finished call is posted as JSON."},
	{name: "Cluster", roles: RoleDispatcher, keys: clusterKeys,
		help: "Several dispatchers, each of which serves any call. They need this section only to find calls quicker among many relays, and to keep finished calls on more than one disk; a name of its own each of them needs."},
	{name: "ThorNetwork", roles: RoleBoth, keys: thorKeys, help: "SIP Thor networks of the original."},
}

var dispatcherKeys = append([]key{
	setting("socket_path", "dispatcher.sock", path, func(c *Config) *string { return &c.Dispatcher.SocketPath },
		"UNIX socket on which the SIP proxy's mediaproxy module asks. A relative path is taken from the runtime folder."),
	setting("socket_group", "", name, func(c *Config) *string { return &c.Dispatcher.SocketGroup },
		"Group that may use the socket (its mode is 0660).").new().orElse("the first of opensips and kamailio that exists"),
	setting("listen", "any", endpoint(netip.AddrPortFrom(anyIP, DispatcherPort)), func(c *Config) *netip.AddrPort { return &c.Dispatcher.Listen },
		"Address and port for the relays. Without a port it is 25060; any is 0.0.0.0, [::] takes IPv6 too."),
	setting("listen_management", "default", endpoint(netip.AddrPortFrom(loopback, ManagementPort)), func(c *Config) *netip.AddrPort { return &c.Dispatcher.ListenManagement },
		"Address and port for management clients. The original listens on all addresses unless told otherwise; write any to have that. Without a port it is 25061.").
		orElse("127.0.0.1:25061"),
	setting("management_use_tls", "yes", boolean, func(c *Config) *bool { return &c.Dispatcher.ManagementUseTLS },
		"Whether management clients connect with TLS and a certificate of the same authority. Without it whoever reaches the port may do everything."),
	setting("management_passport", "None", passport, func(c *Config) *string { return &c.Dispatcher.ManagementPassport },
		"What the certificate of a management client must say, as in \"O:Example, CN:ops*\". None lets every certificate of the authority in."),
	setting("management_format", "array", choice("array", "lines"), func(c *Config) *string { return &c.Dispatcher.ManagementFormat },
		"How lists are answered on the management port: array is one JSON array on one line, lines is one JSON object per line and an empty line behind the last.").new(),
	setting("passport", "None", passport, func(c *Config) *string { return &c.Dispatcher.Passport },
		"What the certificate of a relay must say, as in \"O:Example, CN:relay*\". None lets every certificate of the authority in."),
	setting("relay_timeout", "5", seconds(1), func(c *Config) *time.Duration { return &c.Dispatcher.RelayTimeout },
		"How long management queries wait for a relay. Setting up a call has its own deadline of 400 ms, because the SIP proxy's module gives up after 500."),
	setting("relay_recover_interval", "60", seconds(0), func(c *Config) *time.Duration { return &c.Dispatcher.RelayRecoverInterval },
		"How long a relay that did not answer may stay silent before its connection is closed."),
	setting("relay_selection", "least-loaded", choice("least-loaded", "random", "weighted", "labels"), func(c *Config) *string { return &c.Dispatcher.RelaySelection },
		"How a relay is chosen for a new call: least-loaded takes the better of two at random, weighted follows relay_weights, labels prefers relays that carry a label of relay_labels.").new(),
	setting("relay_weights", "", weights, func(c *Config) *map[string]int { return &c.Dispatcher.RelayWeights },
		"Shares of new calls for relay_selection = weighted, as in \"relay1=3, 192.0.2.10=1\". A relay that is not listed has weight 1; one with 0 is the last resort.").new(),
	setting("relay_labels", "", words, func(c *Config) *[]string { return &c.Dispatcher.RelayLabels },
		"Labels for relay_selection = labels, the best first.").new(),
	setting("cleanup_dead_relays_after", "43200", seconds(0), func(c *Config) *time.Duration { return &c.Dispatcher.CleanupDeadRelaysAfter },
		"When the calls of a relay that is gone are forgotten."),
	setting("cleanup_expired_sessions_after", "86400", seconds(0), func(c *Config) *time.Duration { return &c.Dispatcher.CleanupExpiredSessionsAfter },
		"When an expired call is forgotten that the SIP proxy never removed."),
	setting("accounting", "", backends, func(c *Config) *[]string { return &c.Dispatcher.Accounting },
		"Where finished calls are stored: webhook, radius. The original's database is not part of this version: it is named here without effect.").
		partly(missingBackends),
}, programKeys(func(c *Config) *Program { return &c.Dispatcher.Program })...)

var relayKeys = append([]key{
	setting("dispatchers", "", hosts, func(c *Config) *[]string { return &c.Relay.Dispatchers },
		"Dispatchers to connect to: addresses or names, with 25060 as port unless given. A name is looked up as SRV record _sip._udp first, then as address."),
	setting("name", "", name, func(c *Config) *string { return &c.Relay.Name },
		"Name by which dispatchers know this relay, also when its address changes.").new().orElse("host name and relay address"),
	setting("labels", "", words, func(c *Config) *[]string { return &c.Relay.Labels },
		"Labels told to the dispatchers, for relay_selection = labels; for example a region.").new(),
	setting("passport", "None", passport, func(c *Config) *string { return &c.Relay.Passport },
		"What the certificate of a dispatcher must say, as in \"O:Example, CN:dispatcher*\". None lets every certificate of the authority in."),
	setting("relay_ip", "", addresses, func(c *Config) *[]netip.Addr { return &c.Relay.RelayIP },
		"Address on which media is relayed: one IPv4 address, one IPv6 address, or one of each.").orElse("the address of the default route"),
	setting("advertised_ip", "", addresses, func(c *Config) *[]netip.Addr { return &c.Relay.AdvertisedIP },
		"Address to put into SDP instead of relay_ip, for a relay behind a NAT that forwards the ports: one of each family at most. Switches auto_detect_interfaces off."),
	setting("auto_detect_interfaces", "no", boolean, func(c *Config) *bool { return &c.Relay.AutoDetectInterfaces },
		"Whether a call's addresses are those from which its parties are reached, for a relay between two networks."),
	setting("port_range", "40000:60000", portRange, func(c *Config) *PortRange { return &c.Relay.PortRange },
		"Media ports: the first, and the one behind the last, both even. A call with one stream takes four."),
	setting("port_rest_time", "30", seconds(0), func(c *Config) *time.Duration { return &c.Relay.PortRestTime },
		"How long a port rests after a call before the next one gets it, so that late packets of the old call reach nobody.").new(),
	setting("stream_timeout", "90", seconds(1), func(c *Config) *time.Duration { return &c.Relay.StreamTimeout },
		"When a stream expires in which no media came at all."),
	setting("idle_timeout", "90", seconds(1), func(c *Config) *time.Duration { return &c.Relay.IdleTimeout },
		"When a stream expires in which media came and then stopped in both directions.").new(),
	setting("one_way_timeout", "0", seconds(0), func(c *Config) *time.Duration { return &c.Relay.OneWayTimeout },
		"When a stream expires in which one direction is silent. 0: never, it is only reported.").new(),
	setting("on_hold_timeout", "7200", seconds(1), func(c *Config) *time.Duration { return &c.Relay.OnHoldTimeout },
		"When a stream on hold expires."),
	setting("address_learning", "guarded", choice("guarded", "strict", "first-packet"), func(c *Config) *string { return &c.Relay.AddressLearning },
		"From where a party's media is believed. guarded: its SDP and signalling addresses at once, others only after proof; strict: those addresses only; first-packet: whoever sends first, as the original.").new(),
	setting("trusted_media_ranges", "", ranges, func(c *Config) *[]netip.Prefix { return &c.Relay.TrustedMediaRanges },
		"Networks whose media is believed like that of a party's own address, for trunks that send from other addresses than they sign for.").new(),
	setting("routable_private_ranges", "", ranges, func(c *Config) *[]netip.Prefix { return &c.Relay.RoutablePrivateRanges },
		"Private networks that this relay reaches, so that an SDP address in them is used before media came. none is an empty list."),
	setting("fast_path", "auto", choice("auto", "tc", "clsact", "sk_lookup", "off"), func(c *Config) *string { return &c.Relay.FastPath },
		"What moves packets. auto and tc: a program inside the kernel moves streams once their addresses are decided, attached by tcx or, before Linux 6.6, by clsact; clsact: always that way; sk_lookup: user space, with one socket for each address and processor; off: user space, with a socket for each port. What the host does not allow falls back to the next, and the log says why.").new(),
	setting("bpf_dir", "/sys/fs/bpf/mediaproxy", path, func(c *Config) *string { return &c.Relay.BPFDir },
		"Folder in the BPF file system where streams inside the kernel outlive the relay, for its next start.").new(),
	setting("on_stop", "keep", choice("keep", "end"), func(c *Config) *string { return &c.Relay.OnStop },
		"What TERM does to the calls. keep leaves them, with their ports, to the next start of the relay, 5 s later if there are any, and a second TERM within these ends them; end ends them at once and reports each as expired. The original ends them.").new(),
	setting("orphan_lease", "300", seconds(1), func(c *Config) *time.Duration { return &c.Relay.OrphanLease },
		"How long streams inside the kernel go on without their relay, after a crash or with on_stop = keep.").new(),
	setting("dns_check_interval", "60", seconds(1), func(c *Config) *time.Duration { return &c.Relay.DNSCheckInterval },
		"How often the names in dispatchers are looked up again. The last good answer is kept while the name service fails."),
	setting("use_srv_port", "no", boolean, func(c *Config) *bool { return &c.Relay.UseSRVPort },
		"Whether the port of an SRV record is used. The original keeps the port configured, because _sip._udp names the port of SIP.").new(),
	setting("keepalive_interval", "10", seconds(1), func(c *Config) *time.Duration { return &c.Relay.KeepaliveInterval },
		"How often a dispatcher is asked whether it is still there. After three questions without answer the connection is made anew."),
	setting("reconnect_delay", "10", seconds(1), func(c *Config) *time.Duration { return &c.Relay.ReconnectDelay },
		"How long to wait before a failed connection is tried again."),
	setting("traffic_sampling_period", "15", seconds(0), func(c *Config) *time.Duration { return &c.Relay.TrafficSamplingPeriod },
		"Over how many seconds the relayed traffic in the summary is averaged. 0: not measured."),
	ignored("userspace_transmit_every", "counters are always exact here", "A divisor for updates of counters in the original."),
}, programKeys(func(c *Config) *Program { return &c.Relay.Program })...)

// programKeys are the settings that both programs have.
func programKeys(program func(*Config) *Program) []key {
	return []key{
		setting("log_level", "INFO", logLevel, func(c *Config) *Level { return &program(c).LogLevel },
			"The least important messages to log."),
		setting("log_format", "text", choice("text", "json"), func(c *Config) *string { return &program(c).LogFormat },
			"Form of log lines on the terminal; json is one object per line.").new(),
		setting("state_dir", "", folder, func(c *Config) *string { return &program(c).StateDir },
			"Folder for what must outlive a restart: calls in relay, certificates of mediaproxy up in tls.").new().orElse("/var/lib/mediaproxy; without root $XDG_STATE_HOME/mediaproxy"),
		setting("strict_config", "no", boolean, func(c *Config) *bool { return &program(c).StrictConfig },
			"Whether unknown names in this file stop the start instead of being a warning.").new(),
	}
}

var tlsKeys = []key{
	setting("certs_path", "tls", path, func(c *Config) *string { return &c.TLS.CertsPath },
		"Folder with ca.pem, crl.pem and the certificate and key of each program (dispatcher.crt, dispatcher.key, relay.crt, relay.key). A relative path is looked up in the local configuration folder, then in /etc/mediaproxy."),
	setting("verify_interval", "300", seconds(0), func(c *Config) *time.Duration { return &c.TLS.VerifyInterval },
		"How often these files are looked at for changes and the certificates of live connections are verified again. 0: only once."),
}

var openSIPSKeys = []key{
	setting("socket_path", "/run/opensips/socket", path, func(c *Config) *string { return &c.OpenSIPS.SocketPath },
		"Datagram socket of OpenSIPS' management interface (module mi_datagram)."),
	ignored("location_table", "only other programs read it", "Table of registered phones."),
}

var hangupKeys = []key{
	setting("dialect", "auto", choice("auto", "opensips", "kamailio"), func(c *Config) *string { return &c.Hangup.Dialect },
		"The SIP proxy's commands; auto tells OpenSIPS and Kamailio apart by the form of their dialog ids.").new(),
	setting("socket_path", "", proxySocket, func(c *Config) *string { return &c.Hangup.SocketPath },
		"Datagram socket of the SIP proxy's management interface: a path (module mi_datagram of OpenSIPS, jsonrpcs of Kamailio with dgram_socket), or udp:IP:PORT.").new().
		orElse("socket_path of [OpenSIPS] if it is there, else /run/kamailio/kamailio_rpc.sock"),
}

var radiusKeys = []key{
	setting("config_file", "/etc/opensips/radius/client.conf", path, func(c *Config) *string { return &c.Radius.ConfigFile },
		"Configuration of a RADIUS client, as radiusclient has it: it names servers, the file with their secrets and the dictionary. For accounting = radius."),
	setting("additional_dictionary", "radius/dictionary", path, func(c *Config) *string { return &c.Radius.AdditionalDictionary },
		"Dictionary read behind the one of the client configuration, for numbers other than the built-in ones. A relative path is looked up in the local configuration folder, then in /etc/mediaproxy."),
}

var databaseKeys = []key{
	setting("dburi", "", text, func(c *Config) *string { return &c.Database.URI },
		"scheme://user:password@host/database. Write %% for a percent sign.").hidden().without("accounting is not part of this version"),
	setting("sessions_table", "media_sessions", name, func(c *Config) *string { return &c.Database.SessionsTable },
		"Table of finished calls.").without("accounting is not part of this version"),
	setting("callid_column", "call_id", name, func(c *Config) *string { return &c.Database.CallIDColumn },
		"Column of the Call-ID.").without("accounting is not part of this version"),
	setting("fromtag_column", "from_tag", name, func(c *Config) *string { return &c.Database.FromTagColumn },
		"Column of the From tag.").without("accounting is not part of this version"),
	setting("totag_column", "to_tag", name, func(c *Config) *string { return &c.Database.ToTagColumn },
		"Column of the To tag.").without("accounting is not part of this version"),
	setting("info_column", "info", name, func(c *Config) *string { return &c.Database.InfoColumn },
		"Column of the session document.").without("accounting is not part of this version"),
}

var webhookKeys = []key{
	setting("url", "", httpURL, func(c *Config) *string { return &c.Webhook.URL },
		"Where each finished call is posted, for accounting = webhook. Any status from 200 to 299 means that it is stored; everything else is tried again.").new().hidden(),
	setting("token", "", text, func(c *Config) *string { return &c.Webhook.Token },
		"Sent as bearer token. Write %% for a percent sign.").new().hidden(),
}

var thorKeys = []key{
	ignored("domain", "there is no SIP Thor network here", "Domain of the network."),
	ignored("node_ip", "there is no SIP Thor network here", "Address of this node."),
}
