'use strict';
'require view';
'require form';
'require uci';
'require hearth.calls as calls';
'require hearth.parts as parts';

// Named sections of /etc/config/hearth. Missing ones are added.
const SECTIONS = [ 'server', 'listen', 'tls', 'prefixes', 'node', 'routes', 'dns', 'derp', 'wan', 'policy', 'clients', 'backup', 'metrics', 'log', 'limits' ];

// Defaults of hearth and its package that do not depend on the router.
const DEFAULTS = {
	'server.base_domain': 'hearth.internal', 'server.board': 'auto', 'server.data_dir': '/etc/hearth/data',
	'listen.http': '8080', 'listen.https': '8443', 'listen.stun': '3478',
	'prefixes.v4': '100.64.0.0/10', 'prefixes.v6': 'fd7a:115c:a1e0::/48',
	'node.expiry': 'never', 'node.ephemeral_timeout': '30m',
	'routes.probe_interval': '10s', 'routes.probe_timeout': '5s',
	'dns.router': 'gateway', 'dns.lan_domain': 'lan', 'derp.map_refresh': '3h', 'metrics.listen': 'off',
	'limits.derp_client_rate': '0', 'limits.derp_total_rate': '0', 'backup.every': '1d',
	'member.hostname': 'router', 'member.tag': 'tag:router', 'member.relay_port': '0'
};

// A listener as it is entered: the port alone if it is for all addresses.
function listener(address) {
	return (address || '').replace(/^(\[::\]|0\.0\.0\.0):/, '');
}

function port(address) {
	return (address || '').replace(/^.*:/, '');
}

// What applies to options that are not set: values that the running hearth reports, else its defaults.
function effective(status, wan) {
	const known = status.error ? {} : {
		'server.server_url': status.server_url,
		'server.base_domain': status.base_domain,
		'server.board': (status.board || {}).name,
		'listen.http': listener(status.http),
		'listen.https': listener(status.https),
		'listen.stun': listener(status.stun),
		'derp.port': port(status.https),
		'derp.stun_port': port(status.stun),
		'wan.interface': wan.interface,
		'wan.ipv4': wan.outside_ipv4 || wan.ipv4,
		'wan.ipv6': wan.ipv6
	};
	Object.keys(known).forEach(function(path) {
		if (!known[path])
			delete known[path];
	});
	return Object.assign({}, DEFAULTS, known);
}

// Durations and sizes as hearth reads them.
const TIME = /^(never|[0-9]+(ms|s|m|h|d))+$/;
const SIZE = /^[0-9]+(KiB|MiB)?$/;

function fits(pattern, expected) {
	return function(section_id, value) {
		return !value || pattern.test(value) || expected;
	};
}

function isTime(section_id, value) {
	return fits(TIME, _('Expected a duration such as 90s, 30m, 12h, 180d, or never'))(section_id, value);
}

function isSize(section_id, value) {
	return fits(SIZE, _('Expected a size such as 65536, 64KiB or 4MiB'))(section_id, value);
}

function isListener(section_id, value) {
	return fits(/^(off|([^ ]*:)?[0-9]{1,5})$/, _('Expected a port, address:port, or off'))(section_id, value);
}

function isUrl(section_id, value) {
	return fits(/^https?:\/\/[^ \/]+(:[0-9]{1,5})?(\/[^ ]*)?$/, _('Expected a URL starting with https:// or http://'))(section_id, value);
}

function isNumber(section_id, value) {
	return fits(/^[1-9][0-9]{0,2}$/, _('Expected a number from 1 to 999'))(section_id, value);
}

// Source of the form: https://age-encryption.org/v1, a Bech32 text of 32 bytes.
function isRecipient(section_id, value) {
	return fits(/^age1[02-9ac-hj-np-z]{58}$/, _('Expected an age recipient: “age1” and 58 lower-case letters and digits'))(section_id, value);
}

// The places are those of /etc/init.d/hearth.
function isDataDir(section_id, value) {
	return fits(/^\/(etc\/hearth|mnt|srv|opt|media|tmp\/mountd)(\/(?!\.\.?(\/|$))[^\/]+)+\/?$/,
		_('Expected a directory below /etc/hearth, /mnt, /srv, /opt, /media or /tmp/mountd'))(section_id, value);
}

function isPath(section_id, value) {
	return fits(/^\//, _('Expected an absolute path'))(section_id, value);
}

return view.extend({
	load: function() {
		return Promise.all([ calls.status(), calls.doctor(), uci.load('hearth').then(function() {
			SECTIONS.forEach(function(name) {
				if (!uci.get('hearth', name))
					uci.add('hearth', 'hearth', name);
			});
			if (!uci.get('hearth', 'member'))
				uci.add('hearth', 'member', 'member');
		}) ]);
	},

	render: function(answers) {
		const status = answers[0];
		this.known = effective(status, answers[1].wan || {});
		this.hasClient = !status.member || status.member.installed;
		const map = new form.Map('hearth', _('Settings'),
			_('Empty fields use the value shown in grey. Applying changes restarts hearth; devices reconnect automatically.'));
		const section = map.section(form.NamedSection, 'server', 'hearth');

		section.addremove = false;
		[
			[ 'general', _('General') ], [ 'devices', _('Devices') ], [ 'dns', _('DNS') ], [ 'relay', _('Relay') ],
			[ 'wan', _('WAN') ], [ 'member', _('This router') ], [ 'backup', _('Backup') ], [ 'more', _('More') ]
		].forEach(function(tab) { section.tab(tab[0], tab[1]); });

		this.general(section);
		this.devices(section);
		this.dns(section);
		this.relay(section);
		this.wan(section);
		this.member(section);
		this.backup(section);
		this.more(section);
		return map.render().then(L.bind(function(node) {
			const path = uci.get('hearth', 'server', 'config_file');
			if (path)
				this.note(node, _('hearth reads its configuration from %s. Only the settings under “General” and “This router” on this page apply.').format(parts.words(path)));
			if (status.error == 'stopped' && status.problem)
				this.note(node, _('hearth is not running') + ': ' + parts.words(status.problem.message));
			window.setTimeout(L.bind(this.showOption, this, section, node), 0);
			return node;
		}, this));
	},

	note: function(node, text) {
		node.insertBefore(E('div', { 'class': 'alert-message warning', 'style': 'overflow-wrap:anywhere' }, [ E('p', {}, [ text ]) ]), node.firstChild);
	},

	// Shows the option that a link of another page names in the fragment, as section.option.
	showOption: function(section, node) {
		const path = /^#([a-z_]+)\.([a-z0-9_]+)$/.exec(window.location.hash);
		if (!path)
			return;
		const name = '_' + path[1] + '_' + path[2];
		const row = Array.from(node.querySelectorAll('[data-name]')).filter(function(row) {
			return row.getAttribute('data-name') == name;
		})[0];
		if (!row) {
			this.note(node, _('%s has no field on this page: set it in /etc/config/hearth.').format(path[1] + '.' + path[2]));
			return;
		}
		const pane = row.closest('[data-tab]');
		const tab = pane && document.querySelector('.cbi-tabmenu [data-tab="' + pane.getAttribute('data-tab') + '"] a');
		if (tab)
			tab.click();
		row.style.outline = '2px solid';
		row.scrollIntoView({ block: 'center' });
		const field = row.querySelector('input:not([type=hidden]), select');
		if (field)
			field.focus();
	},

	// Option on a tab, stored in another section of the file. Options of different sections may have the same
	// name, so the form key holds both.
	option: function(section, tab, type, place, name, title, description) {
		const option = section.taboption(tab, type, '_' + place + '_' + name, title, description);
		option.ucisection = place;
		option.ucioption = name;
		option.rmempty = true;
		option.optional = true;
		return option;
	},

	text: function(section, tab, path, title, description, validate) {
		const names = path.split('.');
		const option = this.option(section, tab, form.Value, names[0], names[1], title, description);
		option.placeholder = this.known[path] || '';
		if (validate)
			option.validate = validate;
		return option;
	},

	list: function(section, tab, path, title, description) {
		const names = path.split('.');
		return this.option(section, tab, form.DynamicList, names[0], names[1], title, description);
	},

	flag: function(section, tab, path, title, description, isOn) {
		const names = path.split('.');
		const option = this.option(section, tab, form.Flag, names[0], names[1], title, description);
		option.default = isOn ? option.enabled : option.disabled;
		return option;
	},

	general: function(section) {
		this.flag(section, 'general', 'server.enabled', _('Enable hearth'),
			_('Start now and at boot.'), false).rmempty = false;
		this.flag(section, 'general', 'server.open_wan', _('Open ports on the firewall'),
			_('Opens the HTTPS and STUN ports in the firewall zone “wan”, never the plain HTTP port. Required for devices that join or connect while away from home.'), false).rmempty = false;
		this.text(section, 'general', 'server.server_url', _('Server URL'),
			_('URL that devices connect to, for example https://home.example.org:8443. Devices store it, so choose a name that does not change. Plain HTTP works only with private addresses.'), isUrl);
		this.text(section, 'general', 'server.base_domain', _('MagicDNS domain'),
			_('Devices are named NAME.DOMAIN. The host of the server URL must not be inside this domain.')).datatype = 'hostname';
		this.text(section, 'general', 'listen.https', 'HTTPS', _('Port, address:port, or off. An empty field gets a free port at the next start.'), isListener);
		this.text(section, 'general', 'listen.http', 'HTTP',
			_('Likewise. Ports 80 and 443 are used by uhttpd, the web server of LuCI, unless you move it.'), isListener);
		this.text(section, 'general', 'listen.stun', 'STUN (UDP)', _('Devices use STUN to learn their public address.'), isListener);
		this.text(section, 'general', 'tls.cert_file', _('Certificate'),
			_('PEM file with the full chain, for example /etc/hearth/hearth.crt. If empty, hearth uses a self-signed certificate, which is sufficient for the relay.'), isPath);
		this.text(section, 'general', 'tls.key_file', _('Private key'), _('For example %s.').format('/etc/hearth/hearth.key'), isPath);
	},

	devices: function(section) {
		this.flag(section, 'devices', 'node.approval', _('Device approval'),
			_('New devices stay isolated until approved. Invitations approve their device.'), false);
		this.text(section, 'devices', 'node.expiry', _('Key expiry'), _('After this time the user has to log in on the device again, for example 180d. Tagged devices do not expire.'), isTime);
		this.text(section, 'devices', 'node.ephemeral_timeout', _('Ephemeral device timeout'), null, isTime);
		this.text(section, 'devices', 'prefixes.v4', _('IPv4 range of the tailnet'),
			_('Must be inside 100.64.0.0/10. If your ISP uses carrier-grade NAT, choose a part that does not contain your WAN address.')).datatype = 'cidr4';
		this.text(section, 'devices', 'prefixes.v6', _('IPv6 range of the tailnet')).datatype = 'cidr6';
		this.text(section, 'devices', 'routes.probe_interval', _('Subnet router probe interval'),
			_('If several devices advertise the same route, another one takes over when the active one stops responding.'), isTime);
		this.text(section, 'devices', 'routes.probe_timeout', _('Subnet router probe timeout'), null, isTime);
	},

	dns: function(section) {
		this.flag(section, 'dns', 'dns.magic_dns', _('MagicDNS'), _('Resolve the names of devices in the tailnet.'), true);
		this.flag(section, 'dns', 'dns.use_router', _('Use the DNS resolver of this router'),
			_('Devices use the blocklists and local names of this router wherever they are. This router should be joined to the tailnet.'), false);
		this.text(section, 'dns', 'dns.router', _('Resolver'), _('Device name, tag or IP address of the resolver; “gateway” is this router.')).depends('_dns_use_router', '1');
		this.text(section, 'dns', 'dns.lan_domain', _('Local domain')).depends('_dns_use_router', '1');
		this.list(section, 'dns', 'dns.nameservers', _('DNS resolvers'), _('IP addresses or DNS-over-HTTPS URLs, for example 9.9.9.9. Enter “none” for an empty list.'));
		this.flag(section, 'dns', 'dns.override_local_dns', _('Override local DNS'), null, true);
		this.flag(section, 'dns', 'dns.use_with_exit_node', _('Use with exit node'), null, false);
		this.list(section, 'dns', 'dns.search_domains', _('Search domains'), _('For example %s.').format('corp.example'));
		this.list(section, 'dns', 'dns.wildcard', _('Wildcard names'), _('Device names or tags, for example nas. Subdomains of their name resolve to them, too.'));
		this.text(section, 'dns', 'dns.records_file', _('Records file'), _('JSON, same format as extra_records_path in Headscale, for example /etc/hearth/records.json.'), isPath);

		const split = this.rows(section, 'dns', 'dns_split', _('Split DNS'));
		split.option(form.Value, 'domain', _('Domain')).datatype = 'hostname';
		split.option(form.DynamicList, 'nameservers', _('DNS resolvers'));

		const rules = this.rows(section, 'dns', 'dns_rule', _('DNS resolvers per device'), _('The first matching rule applies.'));
		rules.option(form.DynamicList, 'target', _('Devices (user, group, tag or name)'));
		rules.option(form.DynamicList, 'nameservers', _('DNS resolvers'));

		const records = this.rows(section, 'dns', 'dns_record', _('Static records'), _('In addition to the records of the “DNS” page.'));
		records.option(form.Value, 'name', _('Name'));
		const type = records.option(form.ListValue, 'type', _('Type'));
		type.value('', _('automatic'));
		[ 'A', 'AAAA', 'ALIAS' ].forEach(function(name) { type.value(name, name); });
		records.option(form.Value, 'value', _('Value'));
	},

	// Table of anonymous sections.
	rows: function(section, tab, type, title, description) {
		const rows = section.taboption(tab, form.SectionValue, '_' + type, form.GridSection, type, title, description).subsection;
		rows.anonymous = true;
		rows.addremove = true;
		rows.sortable = true;
		rows.nodescriptions = true;
		return rows;
	},

	relay: function(section) {
		this.flag(section, 'relay', 'derp.enabled', _('Relay'), _('DERP relay for devices that cannot connect directly.'), true);
		this.flag(section, 'relay', 'derp.stun_only', _('STUN only'), _('Offer STUN but no relay.'), false);
		this.text(section, 'relay', 'derp.host_name', _('Relay host name'), _('If different from the host of the server URL, for example relay.example.org.')).datatype = 'host';
		this.text(section, 'relay', 'derp.ipv4', _('Relay IPv4 address'), _('The public address is detected automatically. Set this only if detection fails, for example to 203.0.113.1.')).datatype = 'ip4addr';
		this.text(section, 'relay', 'derp.ipv6', _('Relay IPv6 address'), _('For example %s.').format('2001:db8::1')).datatype = 'ip6addr';
		this.text(section, 'relay', 'derp.port', _('Advertised relay port'), _('If the upstream router forwards a different port.')).datatype = 'port';
		this.text(section, 'relay', 'derp.stun_port', _('Advertised STUN port')).datatype = 'port';
		this.text(section, 'relay', 'limits.derp_client_rate', _('Rate limit per device (bytes/s)'), _('For example 1MiB. 0 means unlimited.'), isSize);
		this.text(section, 'relay', 'limits.derp_total_rate', _('Total rate limit (bytes/s)'), _('For example 1MiB. 0 means unlimited.'), isSize);

		const admit = this.option(section, 'relay', form.ListValue, 'derp', 'admit', _('Allowed clients'));
		admit.value('', _('devices of this tailnet'));
		admit.value('url', _('verified by another server'));
		admit.value('keys', _('listed keys only'));
		admit.value('open', _('everyone (open relay)'));
		this.text(section, 'relay', 'derp.admit_url', _('Verify URL'), _('For example %s.').format('https://home.example.org/verify')).depends('_derp_admit', 'url');
		this.flag(section, 'relay', 'derp.admit_fail_open', _('Allow when the server is unreachable'), null, false).depends('_derp_admit', 'url');
		this.list(section, 'relay', 'derp.admit_keys', _('Allowed keys'), _('Each is “nodekey:” and 64 hexadecimal digits.')).depends('_derp_admit', 'keys');

		this.list(section, 'relay', 'derp.map_urls', _('DERP map URLs'), _('DERP maps in JSON format, for example that of Tailscale: https://controlplane.tailscale.com/derpmap/default'));
		this.list(section, 'relay', 'derp.map_files', _('DERP map files'), _('For example %s.').format('/etc/hearth/derp.yaml'));
		this.text(section, 'relay', 'derp.map_refresh', _('DERP map refresh interval'), null, isTime);
	},

	wan: function(section) {
		this.text(section, 'wan', 'wan.interface', _('WAN interface'), _('Default: the interface of the default route. For example pppoe-wan.'));
		this.text(section, 'wan', 'wan.ipv4', _('Public IPv4 address'), _('Overrides the detected address, for example 203.0.113.7.')).datatype = 'ip4addr';
		this.text(section, 'wan', 'wan.ipv6', _('Public IPv6 address'), _('For example %s.').format('2001:db8::1')).datatype = 'ip6addr';
		const publish = this.option(section, 'wan', form.ListValue, 'wan', 'publish', _('Advertise public addresses'), _('Devices can then connect even if the server name does not resolve.'));
		publish.value('', _('if the server URL resolves to this router'));
		publish.value('always', _('always'));
		publish.value('never', _('never'));
		this.flag(section, 'wan', 'wan.port_mapping', _('Request port mappings from the upstream router'), _('By PCP, NAT-PMP or UPnP-IGD, if this router is behind another one.'), false);
		this.list(section, 'wan', 'wan.stun_servers', _('STUN servers'), _('Queried when the WAN interface has a private address, for example stun.example.org:3478.'));
		this.list(section, 'wan', 'clients.addresses', _('Additional server addresses'), _('In addition to the detected addresses, for example 203.0.113.1. Enter “none” to advertise no address at all.'));
	},

	member: function(section) {
		this.flag(section, 'member', 'member.enabled', _('Join this router to the tailnet'), this.hasClient
			? _('The Tailscale client of this router joins the tailnet.')
			: _('Not possible yet: the package “tailscale” is not installed. Install it under System › Software.'), false).rmempty = false;
		this.text(section, 'member', 'member.hostname', _('Device name')).datatype = 'hostname';
		this.text(section, 'member', 'member.tag', _('Tag'), _('Identifies this router in the policy.'),
			fits(/^tag:[A-Za-z][A-Za-z0-9-]*$/, _('Expected a tag such as tag:router')));
		this.list(section, 'member', 'member.lan', _('Advertised networks'), _('Interface names, for example lan. Their subnets are advertised and approved automatically.'));
		this.flag(section, 'member', 'member.exit_node', _('Exit node'), _('Devices can route their internet traffic through this router.'), true);
		this.text(section, 'member', 'member.relay_port', _('Peer relay port (UDP)'),
			_('Faster than DERP for devices that cannot connect directly; the policy has to grant it. For example 40000; 0 disables it.')).datatype = 'range(0, 65535)';
		this.flag(section, 'member', 'member.open_wan', _('Open ports on WAN'), _('UDP 41641 for direct connections, and the peer relay port.'), false);
		this.flag(section, 'member', 'member.firewall', _('Firewall zone'), _('Create the zone “hearth” with forwardings to and from the advertised networks, and to “wan” for the exit node.'), true);
	},

	backup: function(section) {
		this.text(section, 'backup', 'backup.directory', _('Backup directory'),
			_('Automatic copies of the database go here, for example /mnt/usb/hearth-backups. It must exist: create it below the mount point of a USB drive. If empty, copies stay in the data directory, on the same drive as the database.'), isDataDir);
		this.text(section, 'backup', 'backup.every', _('Backup interval'),
			_('A copy is made only if something changed. On internal flash it is made less often if the database is large. Enter “never” for none.'), isTime);
		this.text(section, 'backup', 'backup.keep', _('Copies to keep'),
			_('Default: 7 in a directory of your own; in the data directory of a router 1 or 2.'), isNumber);
		this.list(section, 'backup', 'backup.recipients', _('Backup recipients'),
			_('age recipients that can decrypt the backups for the program in backup.command. “hearth backup --sheet” makes one, with a recovery sheet to print.')).validate = isRecipient;
	},

	more: function(section) {
		this.text(section, 'more', 'policy.file', _('Policy file'),
			_('Access policy in the Tailscale policy format (HuJSON), for example /etc/hearth/policy.hujson. If empty, the policy set by command line or API applies.'), isPath);
		const level = this.option(section, 'more', form.ListValue, 'log', 'level', _('Log level'));
		level.value('', 'info');
		[ 'error', 'warn', 'debug', 'trace' ].forEach(function(name) { level.value(name, name); });
		this.list(section, 'more', 'listen.trusted_proxies', _('Trusted reverse proxies'), _('Addresses or ranges of reverse proxies whose X-Forwarded-For header or PROXY protocol is believed, for example 127.0.0.1.'));
		this.text(section, 'more', 'metrics.listen', _('Prometheus metrics'), _('Port or address:port, for example 127.0.0.1:9090. The metrics page has no authentication.'), isListener);
		this.text(section, 'more', 'server.board', _('Board'), _('Board profile for memory and connection limits. Detected automatically.'));
		this.text(section, 'more', 'clients.latest_version', _('Latest client version'), _('Devices with an older client show an update notice. For example 1.102.5.'));
		this.text(section, 'more', 'server.data_dir', _('Data directory'), _('Database and keys, a few hundred KB. May be on a USB drive, for example /mnt/usb/hearth.'), isDataDir);
		this.text(section, 'more', 'server.config_file', _('Configuration file'),
			_('TOML, or JSON if the name ends in .json, for example /etc/hearth/hearth.toml. Replaces all settings except those under “General” and “This router”.'), isPath);
	}
});
