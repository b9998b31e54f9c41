'use strict';
'require view';
'require form';
'require uci';
'require hearth.parts as parts';

// Sections of /etc/config/hearth that exist once. One that somebody deleted is made again when it is needed.
const SECTIONS = [ 'server', 'listen', 'tls', 'prefixes', 'node', 'routes', 'dns', 'derp', 'wan', 'policy', 'clients', 'metrics', 'log', 'limits' ];

// Lengths of time and sizes as hearth writes them.
const TIME = /^(never|[0-9]+(ms|s|m|h|d))+$/;
const SIZE = /^[0-9]+(KiB|MiB)?$/;

function fits(pattern, expected) {
	return function(section_id, value) {
		return !value || pattern.test(value) || expected;
	};
}

function isTime(section_id, value) {
	return fits(TIME, _('Expected a time such as 90s, 30m, 12h, 180d or never'))(section_id, value);
}

function isSize(section_id, value) {
	return fits(SIZE, _('Expected a number of bytes such as 65536, 64KiB or 4MiB'))(section_id, value);
}

function isListener(section_id, value) {
	return fits(/^(off|([^ ]*:)?[0-9]{1,5})$/, _('Expected a port, an address with a port, or off'))(section_id, value);
}

function isUrl(section_id, value) {
	return fits(/^https?:\/\/[^ \/]+(:[0-9]{1,5})?(\/[^ ]*)?$/, _('Expected a URL that begins with https:// or http://'))(section_id, value);
}

function isPath(section_id, value) {
	return fits(/^\//, _('Expected a path that begins with /'))(section_id, value);
}

return view.extend({
	load: function() {
		return uci.load('hearth').then(function() {
			SECTIONS.forEach(function(name) {
				if (!uci.get('hearth', name))
					uci.add('hearth', 'hearth', name);
			});
			if (!uci.get('hearth', 'member'))
				uci.add('hearth', 'member', 'member');
		});
	},

	render: function() {
		const map = new form.Map('hearth', _('Settings'),
			_('What is empty has the default of hearth, which is shown in grey. hearth starts anew when you apply changes; devices come back by themselves.'));
		const section = map.section(form.NamedSection, 'server', 'hearth');

		section.addremove = false;
		[
			[ 'general', _('General') ], [ 'devices', _('Devices') ], [ 'dns', _('DNS') ], [ 'relay', _('Relay') ],
			[ 'outside', _('Outside') ], [ 'member', _('This router') ], [ 'more', _('More') ]
		].forEach(function(tab) { section.tab(tab[0], tab[1]); });

		this.general(section);
		this.devices(section);
		this.dns(section);
		this.relay(section);
		this.outside(section);
		this.member(section);
		this.more(section);
		return map.render().then(function(node) {
			const path = uci.get('hearth', 'server', 'config_file');
			if (path)
				node.insertBefore(E('div', { 'class': 'alert-message warning' }, [
					E('p', {}, [ _('hearth takes its configuration from %s. Of this page only the switches under “General” and “This router” count.').format(parts.words(path)) ])
				]), node.firstChild);
			return node;
		});
	},

	// An option of a tab that lives in another section of the file. Options of different sections may have
	// the same name, so the form knows them by both.
	option: function(section, tab, type, place, name, title, description) {
		const option = section.taboption(tab, type, '_' + place + '_' + name, title, description);
		option.ucisection = place;
		option.ucioption = name;
		option.rmempty = true;
		option.optional = true;
		return option;
	},

	text: function(section, tab, path, title, description, placeholder, validate) {
		const names = path.split('.');
		const option = this.option(section, tab, form.Value, names[0], names[1], title, description);
		option.placeholder = placeholder;
		if (validate)
			option.validate = validate;
		return option;
	},

	list: function(section, tab, path, title, description, placeholder) {
		const names = path.split('.');
		const option = this.option(section, tab, form.DynamicList, names[0], names[1], title, description);
		option.placeholder = placeholder;
		return option;
	},

	flag: function(section, tab, path, title, description, isOn) {
		const names = path.split('.');
		const option = this.option(section, tab, form.Flag, names[0], names[1], title, description);
		option.default = isOn ? option.enabled : option.disabled;
		return option;
	},

	general: function(section) {
		this.flag(section, 'general', 'server.enabled', _('Run hearth'),
			_('Now and whenever the router starts.'), false).rmempty = false;
		this.flag(section, 'general', 'server.open_wan', _('Reachable from the internet'),
			_('Opens the ports of HTTPS and STUN in the firewall for the zone “wan”, and of plain HTTP only if the server URL begins with http://. Needed for devices that join or connect from elsewhere.'), false).rmempty = false;
		this.text(section, 'general', 'server.server_url', _('Server URL'),
			_('What devices are told to connect to. They keep it: choose a name that stays yours. Plain HTTP works for addresses at home only.'),
			'https://home.example.org:8443', isUrl);
		this.text(section, 'general', 'server.base_domain', _('Domain of the devices'),
			_('A device is NAME.DOMAIN. The host of the server URL must not be in it.'), 'hearth.internal').datatype = 'hostname';
		this.text(section, 'general', 'listen.https', 'HTTPS', _('A port, an address with a port, or off.'), '8443', isListener);
		this.text(section, 'general', 'listen.http', 'HTTP',
			_('Ports 80 and 443 belong to this page of the router unless you move it.'), '8080', isListener);
		this.text(section, 'general', 'listen.stun', 'STUN (UDP)', _('By it devices learn their address outside.'), '3478', isListener);
		this.text(section, 'general', 'tls.cert_file', _('Certificate'),
			_('A file in PEM with the whole chain. Without one hearth makes its own, which is enough for the relay.'), '/etc/hearth/hearth.crt', isPath);
		this.text(section, 'general', 'tls.key_file', _('Key of the certificate'), null, '/etc/hearth/hearth.key', isPath);
	},

	devices: function(section) {
		this.flag(section, 'devices', 'node.approval', _('New devices wait for approval'),
			_('Those with a key too, unless it is that of an invitation.'), false);
		this.text(section, 'devices', 'node.expiry', _('A login is good for'), _('Then somebody has to log in on the device again. Devices with tags are never asked.'), 'never', isTime);
		this.text(section, 'devices', 'node.ephemeral_timeout', _('Ephemeral devices are deleted after'), null, '30m', isTime);
		this.text(section, 'devices', 'prefixes.v4', _('IPv4 addresses of devices'),
			_('A part of 100.64.0.0/10. Choose another part when your provider gives you an address in it.'), '100.64.0.0/10').datatype = 'cidr4';
		this.text(section, 'devices', 'prefixes.v6', _('IPv6 addresses of devices'), null, 'fd7a:115c:a1e0::/48').datatype = 'cidr6';
		this.text(section, 'devices', 'routes.probe_interval', _('Ask routers whether they work every'),
			_('When two devices offer the same network, the other one steps in for one that does not answer.'), '10s', isTime);
		this.text(section, 'devices', 'routes.probe_timeout', _('Wait for their answer'), null, '5s', isTime);
	},

	dns: function(section) {
		this.flag(section, 'dns', 'dns.magic_dns', _('Names for devices'), _('Clients answer for the names of devices themselves (MagicDNS).'), true);
		this.flag(section, 'dns', 'dns.use_router', _('Use the resolver of this router'),
			_('All devices then have its blocklists and its names, wherever they are. The router should be a member of the network.'), false);
		this.text(section, 'dns', 'dns.router', _('Whose resolver'), _('Name of a device, a tag, or an address, when it is not this router.'), 'gateway').depends('_dns_use_router', '1');
		this.text(section, 'dns', 'dns.lan_domain', _('Domain at home'), null, 'lan').depends('_dns_use_router', '1');
		this.list(section, 'dns', 'dns.nameservers', _('Resolvers'), _('Addresses, or URLs of DNS over HTTPS. “none” stands for an empty list.'), '9.9.9.9');
		this.flag(section, 'dns', 'dns.override_local_dns', _('They replace those of the devices'), null, true);
		this.flag(section, 'dns', 'dns.use_with_exit_node', _('They stay in use with an exit node'), null, false);
		this.list(section, 'dns', 'dns.search_domains', _('Search domains'), null, 'corp.example');
		this.list(section, 'dns', 'dns.wildcard', _('Devices with all names below theirs'), _('By name or tag.'), 'nas');
		this.text(section, 'dns', 'dns.records_file', _('File of records'), _('JSON in the form of Headscale.'), '/etc/hearth/records.json', isPath);

		const split = this.rows(section, 'dns', 'dns_split', _('Resolvers for some domains'));
		split.option(form.Value, 'domain', _('Domain')).datatype = 'hostname';
		split.option(form.DynamicList, 'nameservers', _('Resolvers'));

		const rules = this.rows(section, 'dns', 'dns_rule', _('Resolvers for some devices'), _('The first rule counts that fits a device.'));
		rules.option(form.DynamicList, 'target', _('Who (user, group, tag or name)'));
		rules.option(form.DynamicList, 'nameservers', _('Resolvers'));

		const records = this.rows(section, 'dns', 'dns_record', _('Fixed records'), _('Those of the page “DNS” come on top of them.'));
		records.option(form.Value, 'name', _('Name'));
		const type = records.option(form.ListValue, 'type', _('Type'));
		type.value('', _('by the value'));
		[ 'A', 'AAAA', 'ALIAS' ].forEach(function(name) { type.value(name, name); });
		records.option(form.Value, 'value', _('Value'));
	},

	// A table of sections without names.
	rows: function(section, tab, type, title, description) {
		const rows = section.taboption(tab, form.SectionValue, '_' + type, form.GridSection, type, title, description).subsection;
		rows.anonymous = true;
		rows.addremove = true;
		rows.sortable = true;
		rows.nodescriptions = true;
		return rows;
	},

	relay: function(section) {
		this.flag(section, 'relay', 'derp.enabled', _('Relay'), _('For devices that cannot reach each other directly.'), true);
		this.flag(section, 'relay', 'derp.stun_only', _('STUN only'), _('Devices learn their address here, and relay elsewhere.'), false);
		this.text(section, 'relay', 'derp.host_name', _('Host that devices dial'), _('When it is not that of the server URL.'), 'relay.example.org').datatype = 'host';
		this.text(section, 'relay', 'derp.ipv4', _('IPv4 address that devices dial'), _('hearth finds its address outside by itself. Set this when it cannot.'), '203.0.113.1').datatype = 'ip4addr';
		this.text(section, 'relay', 'derp.ipv6', _('IPv6 address that devices dial'), null, '2001:db8::1').datatype = 'ip6addr';
		this.text(section, 'relay', 'derp.port', _('Port that devices dial'), _('When a router in front forwards another one.'), '8443').datatype = 'port';
		this.text(section, 'relay', 'derp.stun_port', _('Port of STUN that devices dial'), null, '3478').datatype = 'port';
		this.text(section, 'relay', 'limits.derp_client_rate', _('Most bytes per second of one device'), _('0 is no limit.'), '0', isSize);
		this.text(section, 'relay', 'limits.derp_total_rate', _('Most bytes per second of all devices'), _('0 is no limit.'), '0', isSize);

		const admit = this.option(section, 'relay', form.ListValue, 'derp', 'admit', _('Who may use it'));
		admit.value('', _('the devices of this network'));
		admit.value('url', _('those of another server'));
		admit.value('keys', _('devices with certain keys'));
		admit.value('open', _('anybody who finds it'));
		this.text(section, 'relay', 'derp.admit_url', _('Server to ask'), null, 'https://home.example.org/verify').depends('_derp_admit', 'url');
		this.flag(section, 'relay', 'derp.admit_fail_open', _('Let in when nobody can be asked'), null, false).depends('_derp_admit', 'url');
		this.list(section, 'relay', 'derp.admit_keys', _('Keys'), null, 'nodekey:…').depends('_derp_admit', 'keys');

		this.list(section, 'relay', 'derp.map_urls', _('Other relays (URLs)'), _('Lists of relays as JSON, for example those of Tailscale.'), 'https://controlplane.tailscale.com/derpmap/default');
		this.list(section, 'relay', 'derp.map_files', _('Other relays (files)'), null, '/etc/hearth/derp.yaml');
		this.text(section, 'relay', 'derp.map_refresh', _('Read these lists again every'), null, '3h', isTime);
	},

	outside: function(section) {
		this.text(section, 'outside', 'wan.interface', _('Interface'), _('hearth takes that of the default route.'), 'pppoe-wan');
		this.text(section, 'outside', 'wan.ipv4', _('IPv4 address outside'), _('Fixed, in the place of what hearth finds.'), '203.0.113.7').datatype = 'ip4addr';
		this.text(section, 'outside', 'wan.ipv6', _('IPv6 address outside'), null, '2001:db8::1').datatype = 'ip6addr';
		const publish = this.option(section, 'outside', form.ListValue, 'wan', 'publish', _('Tell devices the addresses'), _('They then find the router when its name leads nowhere.'));
		publish.value('', _('when the server URL has a name'));
		publish.value('always', _('always'));
		publish.value('never', _('never'));
		this.flag(section, 'outside', 'wan.port_mapping', _('Ask the router in front for port forwardings'), _('UPnP-IGD, NAT-PMP or PCP, when this router is behind another one.'), false);
		this.list(section, 'outside', 'wan.stun_servers', _('Servers that tell the address outside'), _('Asked when the address of the interface is private.'), 'stun.example.org:3478');
		this.list(section, 'outside', 'clients.addresses', _('Addresses at which devices find this router'), _('Beside those that hearth finds. “none” is no address at all, not even those.'), '203.0.113.1');
	},

	member: function(section) {
		this.flag(section, 'member', 'member.enabled', _('This router is a member'),
			_('Its own Tailscale client joins the network. Needs the package “tailscale”.'), false).rmempty = false;
		this.text(section, 'member', 'member.hostname', _('Its name'), null, 'router').datatype = 'hostname';
		this.text(section, 'member', 'member.tag', _('Its tag'), _('What stands for the router in the policy.'), 'tag:router',
			fits(/^tag:[A-Za-z][A-Za-z0-9-]*$/, _('Expected a tag such as tag:router')));
		this.list(section, 'member', 'member.lan', _('Networks to offer'), _('Names of interfaces. Their networks are approved at once.'), 'lan');
		this.flag(section, 'member', 'member.exit_node', _('Exit node'), _('Devices may send all their traffic through this router.'), true);
		this.text(section, 'member', 'member.relay_port', _('Port of a peer relay (UDP)'),
			_('A faster relay for devices in hard networks, when the policy grants it. 0 is off.'), '0').datatype = 'range(0, 65535)';
		this.flag(section, 'member', 'member.open_wan', _('Open its ports to the internet'), _('UDP, for direct connections.'), false);
		this.flag(section, 'member', 'member.firewall', _('Firewall zone'), _('A zone “hearth”, with ways to and from the networks, and out for the exit node.'), true);
	},

	more: function(section) {
		this.text(section, 'more', 'policy.file', _('File of the policy'),
			_('Who may reach whom, in the language of Tailscale. Without it: the policy that was set by command or API.'), '/etc/hearth/policy.hujson', isPath);
		const level = this.option(section, 'more', form.ListValue, 'log', 'level', _('Log'));
		level.value('', 'info');
		[ 'error', 'warn', 'debug', 'trace' ].forEach(function(name) { level.value(name, name); });
		this.text(section, 'more', 'metrics.listen', _('Numbers for Prometheus'), _('This page has no protection of its own.'), 'off', isListener);
		this.text(section, 'more', 'server.board', _('Board'), _('Whose limits of memory and connections to take. hearth finds its board by itself.'), 'auto');
		this.text(section, 'more', 'clients.latest_version', _('Newest client'), _('Devices with an older one are told of it.'), '1.102.5');
		this.text(section, 'more', 'server.data_dir', _('Directory of the data'), _('Database and keys, some hundred KB. On a USB stick, if you like.'), '/etc/hearth/data', isPath);
		this.text(section, 'more', 'server.config_file', _('Configuration of your own'),
			_('TOML, or JSON when its name ends in .json. Then only the switches of this page count.'), '/etc/hearth/hearth.toml', isPath);
	}
});
