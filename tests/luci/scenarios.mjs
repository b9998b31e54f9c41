// What the backend answers in different homes. The shapes are those of luci.hearth.uc: backend.mjs compares
// `home` with what it says of a real hearth.

import { readFileSync } from 'node:fs';

const now = Date.now();
const ago = seconds => new Date(now - seconds * 1000).toISOString();
const none = { count: 0, first: [] };

export const status = {
	enabled: true, running: true, member: { enabled: false, installed: false, said: '' },
	version: '0.1.0', server_url: 'https://home.example.org:8443', base_domain: 'hearth.internal',
	http: '[::]:8080', https: '[::]:8443', stun: '[::]:3478', uptime: 183845,
	users: 2, nodes: 4, online: 2, expired: 1, pending: 1, waiting_ssh: 2,
	clock_is_plausible: true, database_is_writable: true, database_fault: null,
	unauthorized: { count: 1, first: [ { id: '4', name: 'tablet' } ] },
	waiting_routes: { count: 1, first: [ { id: '1', name: 'router' } ] },
	policy_version: '3', policy_is_closed: false, last_backup: ago(86400), warnings: [],
	relay: { connections: 3, packets_sent: 48211, bytes_sent: 61234567, packets_dropped: 12 },
	board: { name: 'GL.iNet GL-MT6000', source: '/tmp/sysinfo/board_name', budget: 128 << 20 }
};

export function node(id, name, more) {
	return {
		id: String(id), name, hostname: name, user: 'home', tags: [],
		addresses: [ `100.64.${id >> 8}.${id & 255}`, `fd7a:115c:a1e0::${id.toString(16)}` ],
		online: false, last_seen: ago(7300), expiry: '', created: ago(900000),
		authorized: true, unhealthy: false, wireguard: false, health: [], offered: [], approved: [], serving: [],
		...more
	};
}

const nodes = [
	node(1, 'router', {
		user: 'tagged-devices', tags: [ 'tag:router' ], online: true, last_seen: ago(0), hostname: 'OpenWrt',
		offered: [ '192.168.1.0/24', '10.20.0.0/16', '0.0.0.0/0', '::/0' ], approved: [ '192.168.1.0/24', '0.0.0.0/0', '::/0' ],
		serving: [ '192.168.1.0/24', '0.0.0.0/0', '::/0' ]
	}),
	node(2, 'annas-phone', { user: 'anna', online: true, last_seen: ago(0), hostname: 'Pixel 9', expiry: ago(-15000000) }),
	node(3, 'nas', { expiry: ago(86400), last_seen: ago(200000), health: [ 'router: no default route' ], approved: [ '192.168.9.0/24' ] }),
	node(4, 'tablet', { user: 'anna', authorized: false, last_seen: ago(400) })
];

const pending = [ {
	id: 'fJ3kd93-KDw_39dkfoEWq1', name: 'kitchen-laptop', os: 'linux',
	machine_key: 'mkey:5e9b1c7aa0b34f0d9e3b11fb27ad1d2c0d8f1a2b3c4d5e6f708192a3b4c5d6e7', tags: [ 'tag:kitchen' ], created: ago(95)
} ];

const checks = [
	{ id: 'Tq8vLw2-SSHchk_7dkfoEW2', source: 'annas-phone', target: 'nas', local_user: 'root', created: ago(40) },
	{ id: 'b0XmZk5-SSHchk_7dkfoEW2', source: 'annas-phone', target: 'nas', local_user: 'root', created: ago(12) }
];

const users = [
	{ id: '1', name: 'home', display_name: '', role: 'owner' },
	{ id: '2', name: 'anna', display_name: 'Anna', role: 'member' }
];

const records = [
	{ name: 'printer.hearth.internal', type: 'A', value: '192.168.1.20', addresses: [ '192.168.1.20' ], source: 'api' },
	{ name: 'git.hearth.internal', type: 'ALIAS', value: 'nas', addresses: [ '100.64.0.3', 'fd7a:115c:a1e0::3' ], source: 'configuration' },
	{ name: 'old.hearth.internal', type: 'ALIAS', value: 'gone', addresses: [], source: 'api' }
];

export function entry(id, more) {
	return {
		id: String(id), time: ago(90000 - id * 600), origin: 'ADMIN_CONSOLE', actor: '', actor_type: 'SOCKET', action: 'UPDATE',
		target: 'nas', target_type: 'NODE', target_id: '3', property: '', old: '', new: '', details: '', ...more
	};
}

const byKey = { origin: 'CONFIG_API', actor: 'hskey-api-BC4J8B_wwgeY', actor_type: 'API_KEY' };
const audit = {
	entries: [
		entry(48, { property: 'KEY_EXPIRY_TIME', old: 'never', new: '2026-11-26T22:00:00Z', origin: 'CONTROL', actor_type: 'AUTOMATED_WORKER' }),
		entry(47, { property: 'ALLOWED_IPS', old: '192.168.1.0/24', new: '192.168.1.0/24,0.0.0.0/0,::/0', target: 'router', target_id: '1' }),
		entry(46, { ...byKey, property: 'MACHINE_NAME', old: 'ubuntu-server-2', new: 'nas' }),
		entry(45, { ...byKey, action: 'DELETE', target: 'old.hearth.internal', target_type: 'DNS_RECORD', target_id: '', old: 'A 192.168.1.9' }),
		entry(44, { action: 'CREATE', origin: 'NODE', actor: 'annas-phone', actor_type: 'NODE', target: 'annas-phone', target_id: '2', new: 'anna', details: 'expires 2027-05-26T22:00:00.123Z' }),
		entry(43, { action: 'REINDEX', target: '', target_type: 'SOMETHING_NEW', target_id: '', details: `sha256:${'0123456789abcdef'.repeat(4)}`, actor_type: 'NEWCOMER', origin: 'ELSEWHERE' })
	],
	more: true,
	reports: [
		{ time: ago(3600), node: 'annas-phone', node_id: '2', action: 'DISCONNECT_NODE', details: 'on a plane' },
		{ time: ago(7200), node: '', node_id: '9', action: 'SSH_RECORDING_FAILED', details: 'from node 2 as "root": rejected' }
	]
};

export const doctor = {
	worst: 'problem',
	findings: [
		{ id: 'wan.carrier-nat', level: 'problem', title: 'Your ISP uses carrier-grade NAT (no public IPv4)',
			detail: 'The address on pppoe-wan is 100.71.2.3, from the range for carrier-grade NAT (100.64.0.0/10). This server is not reachable over IPv4 from the internet. Devices on the LAN are not affected.',
			advice: 'Ask your ISP for a public IPv4 address, or use IPv6, or run `hearth derp` on a rented server and add it to derp.map_files.' },
		{ id: 'url.old-address', level: 'warning', title: 'home.example.org resolves to another address',
			detail: 'DNS has 203.0.113.4; the public address is 203.0.113.9.',
			advice: 'Check the dynamic DNS service (ddns-scripts). Connected devices already received the new address.' },
		{ id: 'wan.no-ipv6', level: 'note', title: 'No IPv6', detail: 'No interface has a public IPv6 address.',
			advice: 'Ask your ISP for IPv6; it makes direct connections between devices more likely.' },
		{ id: 'database', level: 'ok', title: 'The database is writable', detail: '', advice: '' },
		{ id: 'clock', level: 'ok', title: 'The clock is set', detail: '', advice: '' }
	],
	wan: { interface: 'pppoe-wan', ipv4: '100.71.2.3', ipv6: '', outside_ipv4: '203.0.113.9' }
};

const joinUrl = 'https://home.example.org:8443/join#hskey-auth-0123456789ab-' + 'c'.repeat(64);

export const invite = {
	user: 'anna', expiration: ago(-86400), join_url: joinUrl,
	command: `tailscale login --login-server=https://home.example.org:8443 --auth-key=${joinUrl.split('#')[1]}`,
	// Three corners and a diagonal: tests read the modules, not the code.
	qr: Array.from({ length: 45 }, (_, y) => Array.from({ length: 45 }, (_, x) => {
		const inCorner = (cx, cy) => {
			const ring = Math.max(Math.abs(x - cx - 3), Math.abs(y - cy - 3));
			return ring <= 3 ? (ring == 2 ? '0' : '1') : null;
		};
		return inCorner(0, 0) ?? inCorner(38, 0) ?? inCorner(0, 38) ?? ((x * 7 + y * 13 + x * y) % 3 ? '0' : '1');
	}).join(''))
};

const done = { done: true };
export const changes = {
	set_enabled: done, approve_login: done, reject_login: done, approve_ssh: done, reject_ssh: done, authorize: done, rename: done, expire: done,
	delete: done, set_routes: done, create_user: done, add_record: done, delete_record: done
};

// The configuration that the package `hearth` installs.
export function shippedConfiguration(path) {
	const sections = {};
	let section;
	for (const line of readFileSync(path, 'utf8').split('\n')) {
		const [ , word, name, value ] = line.match(/^\s*(config|option|list)\s+(\S+)(?:\s+'([^']*)')?/) ?? [];
		if (word == 'config')
			section = sections[value] = { '.name': value, '.type': name, '.anonymous': false };
		else if (word == 'option')
			section[name] = value;
		else if (word == 'list')
			section[name] = [ ...(section[name] ?? []), value ];
	}
	return sections;
}

const section = (name, values = {}, type = 'hearth') => [ name, { '.name': name, '.type': type, '.anonymous': false, ...values } ];
export const uci = Object.fromEntries([
	section('server', { enabled: '1', open_wan: '0', server_url: 'https://home.example.org:8443' }),
	section('listen', { http: '8080', https: '8443', stun: '3478' }),
	section('dns', { use_router: '1', nameservers: [ '9.9.9.9' ] }),
	section('derp', { enabled: '0' }),
	section('member', { enabled: '0', hostname: 'router', tag: 'tag:router', lan: [ 'lan' ], exit_node: '1', relay_port: '0', open_wan: '0', firewall: '1' }, 'member'),
	section('cfg0a1b2c', { domain: 'corp.example', nameservers: [ '10.0.0.53' ], '.anonymous': true }, 'dns_split')
]);

const whole = list => name => ({ [name]: list, left_out: 0 });

export const home = {
	...changes, status, doctor, nodes: whole(nodes)('nodes'), pending: whole(pending)('pending'),
	ssh_checks: whole(checks)('checks'), users: whole(users)('users'), records: whole(records)('records'), audit, invite, uci
};

export const empty = {
	...home,
	status: { ...status, users: 0, nodes: 0, online: 0, expired: 0, pending: 0, waiting_ssh: 0, unauthorized: none, waiting_routes: none, policy_version: '', relay: null, board: null },
	nodes: { nodes: [], left_out: 0 }, pending: { pending: [], left_out: 0 },
	ssh_checks: { checks: [], left_out: 0 }, users: { users: [], left_out: 0 },
	records: { records: [], left_out: 0 }, audit: { entries: [], more: false, reports: [] }, doctor: { error: 'refused', message: 'Not Found' }
};

const failing = (error, message = '', problem) => {
	const answer = { error, message, ...problem };
	const methods = [ 'doctor', 'nodes', 'pending', 'ssh_checks', 'users', 'records', 'audit', 'invite', ...Object.keys(changes) ];
	return {
		...Object.fromEntries(methods.map(name => [ name, answer ])),
		status: { enabled: error != 'off', running: error == 'silent', member: status.member, ...answer }, uci
	};
};

export const off = { ...failing('off', '', { problem: null }), set_enabled: done };
export const stopped = failing('stopped', '', { problem: null });
export const clash = failing('stopped', '', { problem: {
	setting: 'listen.https',
	message: "ports are already in use: listen.https '8443' by LuCI (uhttpd at 0.0.0.0:8443). Set others in LuCI (Services > hearth > Settings) or by: uci set hearth.listen.https='8444'; uci commit hearth; /etc/init.d/hearth restart."
} });
export const silent = failing('silent');
export const unreadable = failing('unreadable');
// rpcd does not know the backend, or the session may not use it.
export const absent = { uci };
export const denied = Object.fromEntries(Object.keys(home).map(name => [ name, name == 'uci' ? uci : null ]));
export const refusing = {
	...home,
	...Object.fromEntries(Object.keys(changes).map(name => [ name, { error: 'refused', message: 'the database is read-only' } ])),
	invite: { error: 'refused', message: 'the database is read-only' }
};

export const full = {
	...home,
	status: { ...status, database_is_writable: false, database_fault: { cause: 'full', since: ago(7300) } }
};

export const many = {
	...home,
	status: { ...status, nodes: 100, online: 50 },
	nodes: { nodes: Array.from({ length: 100 }, (_, i) => node(i + 1, `device-${i + 1}`, {
		online: i % 2 == 0, user: i % 3 ? 'home' : 'anna', offered: i % 10 ? [] : [ `10.${i}.0.0/16` ]
	})), left_out: 17 }
};

export const attacks = [
	'<img src=x onerror="window.hacked=1">',
	'"><script>window.hacked=1</script>',
	"'--><svg onload=window.hacked=1>",
	'</td></tr></table><iframe srcdoc="<script>parent.hacked=1</script>">',
	'javascript:window.hacked=1',
	'nas\u202egnp.exe\u0007',
	'x'.repeat(500)
];

// Every text that a device, a user or another person can choose is an attack.
export const nasty = (() => {
	let next = 0;
	const keep = [ 'last_seen', 'expiry', 'created', 'type', 'source', 'level', 'id' ];
	const spoil = (value, key) => {
		if (typeof value == 'string')
			return keep.includes(key) ? value : attacks[next++ % attacks.length];
		if (Array.isArray(value))
			return value.map(item => spoil(item, key));
		if (value && typeof value == 'object')
			return Object.fromEntries(Object.entries(value).map(([ key, item ]) => [ key, spoil(item, key) ]));
		return value;
	};
	const spoiled = name => spoil(home[name]);
	return {
		...changes, uci,
		status: { ...spoil(status), warnings: attacks, version: attacks[0] },
		doctor: spoiled('doctor'),
		nodes: { nodes: attacks.map((attack, i) => ({ ...spoil(nodes[i % 4]), id: String(i + 1), name: attack, offered: [ attack, '::/0' ], approved: [ attack ] })), left_out: 0 },
		pending: { pending: attacks.map(attack => ({ ...spoil(pending[0]), name: attack, os: attack, id: 'abc' })), left_out: 0 },
		ssh_checks: { checks: attacks.map(attack => ({ ...checks[0], source: attack, target: attack, local_user: attack, id: attack })), left_out: 0 },
		users: { users: attacks.map((attack, i) => ({ id: String(i + 1), name: attack, display_name: attack, role: 'member' })), left_out: 0 },
		records: { records: attacks.map(attack => ({ ...spoil(records[0]), name: attack, value: attack, source: 'api' })), left_out: 0 },
		audit: {
			entries: attacks.map((attack, i) => ({ ...spoil(audit.entries[i % 6]), id: String(i + 1), target: attack, actor: attack })),
			more: true, reports: attacks.map(attack => ({ ...spoil(audit.reports[0]), node: attack, action: attack, details: attack }))
		},
		invite: { ...invite, user: attacks[0], join_url: attacks[4], command: attacks[0] },
		rename: { error: 'refused', message: attacks[0] }
	};
})();
