// Backend of the LuCI pages: talks to hearth over its Unix socket, HTTP/1.1, one connection per request.
//
// rpcd handles one call at a time, so each request has a deadline and each answer a size limit.
// Input from a page is checked here and then encoded as JSON or escaped into a path. No program is
// run. Answers of hearth contain names chosen by devices, so they are cut to what the pages show.
//
// Answers are objects. An answer with `error` failed:
//   off          hearth is disabled in its settings
//   stopped      it is enabled, but not listening on its socket; `problem` is why it was not started, if known
//   silent       the request timed out
//   unreadable   the answer is malformed or too long
//   refused      hearth refused the request; `message` is its reason
//   invalid      the arguments are invalid; `message` says why

'use strict';

import { readfile, stat } from 'fs';
import { connect, poll, POLLIN, POLLOUT } from 'socket';
import { cursor } from 'uci';
import { connect as bus } from 'ubus';

const SOCKET = getenv('HEARTH_SOCKET') ?? '/var/run/hearth/hearth.sock';
// Written by /etc/init.d/hearth and /usr/libexec/hearth/member.
const REFUSED = getenv('HEARTH_REFUSED') ?? '/var/etc/hearth.refused';
const MEMBER_SAID = getenv('HEARTH_MEMBER_SAID') ?? '/var/run/hearth-member.said';
// Where packages of the Tailscale client put it.
const CLIENTS = [ '/usr/sbin/tailscale', '/usr/bin/tailscale' ];

// Timeout of a query and of a change, in milliseconds; slow flash may need seconds for a commit.
const ASK = 5000;
const CHANGE = 12000;
// Maximum size of an answer of hearth, in bytes. A thousand nodes take 1.3 MB.
const ANSWER_MAX = 8 << 20;
// Maximum size of a list passed to the page, in bytes of JSON. A ubus message is limited to 1 MiB
// (UBUS_MAX_MSGLEN in libubus), and short texts take up to twice as much there.
const LIST_MAX = 500 << 10;
// Entries of the audit log in one answer, and reports of clients.
const AUDIT_PAGE = 100, REPORTS = 50;

function fault(kind, message) {
	return { error: kind, message: message ?? '' };
}

function milliseconds() {
	let now = clock(true);
	return now[0] * 1000 + now[1] / 1000000;
}

// Text cut to `limit` bytes.
function words(value, limit) {
	return type(value) == 'string' ? substr(value, 0, limit ?? 256) : '';
}

function number(value) {
	return type(value) == 'int' || type(value) == 'double' ? value : 0;
}

// The first `limit` items, each converted by `made`.
function items(list, limit, made) {
	return type(list) == 'array' ? map(slice(list, 0, limit), made) : [];
}

function texts(list, limit) {
	return items(list, limit ?? 64, text => words(text, 256));
}

// Percent-encodes a path segment or query value. Source: RFC 3986 section 2.3.
function escaped(text) {
	let result = '';

	for (let i = 0; i < length(text); i++) {
		let byte = ord(text, i), letter = chr(byte);
		result += match(letter, /^[A-Za-z0-9._~-]$/s) ? letter : sprintf('%%%02X', byte);
	}
	// A segment of dots only would change the directory.
	return match(result, /^[.]+$/s) ? replace(result, '.', '%2E') : result;
}

function is_enabled(section) {
	let enabled = cursor().get('hearth', section ?? 'server', 'enabled');
	return index([ '1', 'on', 'true', 'yes', 'enabled' ], enabled ?? '') >= 0;
}

// Why hearth was not started: the setting, as section.option, and the reason; `null` if it is not known.
function refusal() {
	let text = readfile(REFUSED, 4096) ?? '', end = index(text, '\n');
	return end < 0 ? null : { setting: words(substr(text, 0, end), 64), message: words(trim(substr(text, end)), 2000) };
}

function nobody() {
	let enabled = is_enabled();
	return { ...fault(enabled ? 'stopped' : 'off'), problem: enabled ? refusal() : null };
}

// Whether this router is to join its own tailnet, whether it has the client for it, and what came of it.
function member() {
	return {
		enabled: is_enabled('member'),
		installed: length(filter(CLIENTS, path => stat(path))) > 0,
		said: words(trim(readfile(MEMBER_SAID, 1024) ?? ''), 512)
	};
}

// Whether procd reports a running process; `null` if procd does not answer.
function is_running() {
	let services = bus()?.call('service', 'list', { name: 'hearth' });

	if (!services)
		return null;
	for (let name, instance in services?.hearth?.instances)
		if (instance?.running)
			return true;
	return false;
}

// Sends the request and reads until hearth closes the connection: `[ bytes ]`, or `[ null, kind ]`.
function exchange(request, deadline) {
	let peer = connect(SOCKET, null, null, 1000);
	if (!peer)
		return [ null, 'stopped' ];

	let left = () => max(0, int(deadline - milliseconds()));
	let close = outcome => { peer.close(); return outcome; };

	while (length(request)) {
		if (!(poll(left(), [ peer, POLLOUT ])?.[0]?.[1] & POLLOUT))
			return close([ null, 'silent' ]);
		let sent = peer.send(substr(request, 0, 4096));
		if (!sent)
			return close([ null, 'unreadable' ]);
		request = substr(request, sent);
	}

	let pieces = [], bytes = 0;
	while (true) {
		if (!poll(left(), [ peer, POLLIN ])?.[0]?.[1])
			return close([ null, 'silent' ]);
		// With a length: without one, ucode before 2025-11 reports a stale error.
		let piece = peer.recv(65536);
		if (piece == null)
			return close([ null, 'unreadable' ]);
		if (!length(piece))
			return close([ join('', pieces) ]);
		bytes += length(piece);
		if (bytes > ANSWER_MAX)
			return close([ null, 'unreadable' ]);
		push(pieces, piece);
	}
}

// Sends a request to hearth and returns its answer, or a fault.
function ask(method, path, body, patience) {
	let text = body == null ? '' : sprintf('%J', body);
	let request = `${method} /api/v1/${path} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n` +
		`Content-Type: application/json\r\nContent-Length: ${length(text)}\r\n\r\n${text}`;
	let outcome = exchange(request, milliseconds() + patience), answer = outcome[0];

	if (answer == null)
		return outcome[1] == 'stopped' ? nobody() : fault(outcome[1]);

	let end = index(answer, '\r\n\r\n');
	let head = end < 0 ? '' : substr(answer, 0, end) + '\r\n';
	let status = int(match(head, /^HTTP\/1\.[01] ([0-9][0-9][0-9])/s)?.[1] ?? 0);
	let announced = match(head, /\r\ncontent-length: *([0-9]+)\r\n/is)?.[1];
	let content = end < 0 ? '' : substr(answer, end + 4);

	if (!status || announced == null || int(announced) != length(content))
		return fault('unreadable');

	let value;
	try { value = json(content); }
	catch (e) { return fault('unreadable'); }

	if (type(value) != 'object')
		return fault('unreadable');
	if (status < 200 || status > 299)
		return fault('refused', words(value.message, 2000));
	return value;
}

function get(path) { return ask('GET', path, null, ASK); }
function post(path, body) { return ask('POST', path, body ?? {}, CHANGE); }
function remove(path) { return ask('DELETE', path, null, CHANGE); }

// Answer with a list under `name`, cut to the size limit of ubus, and the number of entries left out.
function bounded(name, list, made) {
	let kept = [], bytes = 0;

	if (type(list) != 'array')
		return fault('unreadable');
	for (let item in list) {
		item = made(item);
		bytes += length(sprintf('%J', item));
		if (bytes > LIST_MAX)
			break;
		push(kept, item);
	}
	return { [name]: kept, left_out: length(list) - length(kept) };
}

// The list under `key` of the answer, bounded as above.
function listed(path, key, name, made) {
	let answer = get(path);
	return answer.error ? answer : bounded(name, answer[key], made);
}

// Calls `change` if all arguments are valid: each of `checks` is `[ valid, what was expected ]`.
function checked(checks, change) {
	for (let check in checks)
		if (!check[0])
			return fault('invalid', check[1]);

	let answer = change();
	return answer.error ? answer : { done: true };
}

// The flag `s` of a pattern makes `$` match only the end of the text, not the end of a line.

function is_id(text) {
	return [ type(text) == 'string' && !!match(text, /^[0-9]{1,20}$/s), 'expected a node ID' ];
}

function is_request(text) {
	return [ type(text) == 'string' && !!match(text, /^[A-Za-z0-9_-]{1,48}$/s), 'expected the ID of a registration or SSH connection' ];
}

// Text of 1 to `limit` bytes without control characters.
function is_text(text, limit, what) {
	return [
		type(text) == 'string' && length(text) > 0 && length(text) <= limit && !match(text, /[[:cntrl:]]/s),
		`expected ${what}, ${limit} bytes at most`
	];
}

function is_route(text) {
	return type(text) == 'string' && !!match(text, /^[0-9a-fA-F.:]{2,45}\/[0-9]{1,3}$/s);
}

// Fields of a node that the pages show.
function shown_node(node) {
	return {
		id: words(node.id, 20),
		name: words(node.givenName, 128),
		hostname: words(node.name, 256),
		user: words(node.user?.name, 128),
		tags: texts(node.tags, 32),
		addresses: texts(node.ipAddresses, 4),
		online: !!node.online,
		last_seen: words(node.lastSeen, 40),
		expiry: words(node.expiry, 40),
		created: words(node.createdAt, 40),
		authorized: !!node.authorized,
		unhealthy: !!node.unhealthy,
		wireguard: !!node.wireguard,
		health: items(node.health, 5, line => words(line, 300)),
		offered: texts(node.availableRoutes),
		approved: texts(node.approvedRoutes),
		serving: texts(node.subnetRoutes)
	};
}

function shown_user(user) {
	return {
		id: words(user.id, 20),
		name: words(user.name, 128),
		display_name: words(user.displayName, 128),
		role: words(user.role, 20)
	};
}

// Entry of the audit log. hearth cuts its texts to 256 bytes.
function shown_entry(entry) {
	return {
		id: words(entry.id, 20),
		time: words(entry.eventTime, 40),
		origin: words(entry.origin, 40),
		actor: words(entry.actor?.name),
		actor_type: words(entry.actor?.type, 40),
		action: words(entry.action, 40),
		target: words(entry.target?.name),
		target_type: words(entry.target?.type, 40),
		target_id: words(entry.target?.id, 64),
		property: words(entry.target?.property, 40),
		old: words(entry.old),
		new: words(entry.new),
		details: words(entry.details)
	};
}

function shown_report(report) {
	return {
		time: words(report.at, 40),
		node: words(report.node, 128),
		node_id: words(report.nodeId, 20),
		action: words(report.action),
		details: words(report.details, 512)
	};
}

// Number of nodes in a list, and the names of the first ones.
function shown_names(list) {
	return {
		count: length(list ?? []),
		first: items(list, 10, node => ({ id: words(node.id, 20), name: words(node.givenName, 128) }))
	};
}

const methods = {
	// State of hearth.
	status: {
		call: function() {
			let answer = get('hearth/status');
			let common = { enabled: is_enabled(), running: is_running(), member: member() };

			if (answer.error)
				return { ...common, ...answer };

			let relay = answer.relay, board = answer.board, fault = answer.databaseFault;
			return {
				...common,
				version: words(answer.version, 40),
				server_url: words(answer.serverUrl, 512),
				base_domain: words(answer.baseDomain),
				http: words(answer.http, 64),
				https: words(answer.https, 64),
				stun: words(answer.stun, 64),
				uptime: number(answer.uptimeSeconds),
				clock_is_plausible: !!answer.clockIsPlausible,
				database_is_writable: !!answer.databaseIsWritable,
				database_fault: type(fault) == 'object' ? {
					cause: words(fault.cause, 20),
					since: words(fault.since, 40)
				} : null,
				users: number(answer.users),
				nodes: number(answer.nodes),
				online: number(answer.online),
				expired: number(answer.expired),
				pending: number(answer.pending),
				waiting_ssh: number(answer.waitingSsh),
				unauthorized: shown_names(answer.unauthorized),
				waiting_routes: shown_names(answer.waitingRoutes),
				policy_version: words(answer.policyVersion, 20),
				policy_is_closed: !!answer.policyIsClosed,
				last_backup: words(answer.lastBackup, 40),
				warnings: items(answer.warnings, 30, line => words(line, 1000)),
				relay: type(relay) == 'object' ? {
					connections: number(relay.connections),
					packets_sent: number(relay.packetsSent),
					bytes_sent: number(relay.bytesSent),
					packets_dropped: number(relay.packetsDropped)
				} : null,
				board: type(board) == 'object' ? {
					name: words(board.name, 128),
					source: words(board.source, 128),
					budget: number(board.memoryBudget)
				} : null
			};
		}
	},

	// Findings of the doctor.
	doctor: {
		call: function() {
			let answer = get('hearth/doctor');
			if (answer.error)
				return answer;
			return {
				worst: words(answer.worst, 20),
				findings: items(answer.findings, 60, finding => ({
					id: words(finding.id, 64),
					level: words(finding.level, 20),
					title: words(finding.title, 300),
					detail: words(finding.detail, 2000),
					advice: words(finding.advice, 2000)
				})),
				wan: {
					interface: words(answer.wan?.interface, 32),
					ipv4: words(answer.wan?.ipv4, 64),
					ipv6: words(answer.wan?.ipv6, 64),
					outside_ipv4: words(answer.wan?.outsideIpv4, 64)
				}
			};
		}
	},

	nodes: {
		call: function() {
			return listed('node', 'nodes', 'nodes', shown_node);
		}
	},

	// Pending registrations.
	pending: {
		call: function() {
			let answer = get('hearth/pending');
			if (answer.error)
				return answer;
			let waiting = filter(answer.pending ?? [], login => login.state == 'waiting');
			return bounded('pending', waiting, login => ({
				id: words(login.authId, 64),
				name: words(login.name, 256),
				os: words(login.os, 64),
				machine_key: words(login.machineKey, 80),
				tags: texts(login.requestTags, 32),
				created: words(login.createdAt, 40)
			}));
		}
	},

	// SSH connections in check mode that wait for a decision.
	ssh_checks: {
		call: function() {
			let answer = get('hearth/ssh');
			if (answer.error)
				return answer;
			let waiting = filter(answer.checks ?? [], check => check.state == 'waiting');
			return bounded('checks', waiting, check => ({
				id: words(check.id, 64),
				source: words(check.source, 128),
				target: words(check.target, 128),
				local_user: words(check.localUser, 128),
				created: words(check.createdAt, 40)
			}));
		}
	},

	users: {
		call: function() {
			return listed('user', 'users', 'users', shown_user);
		}
	},

	records: {
		call: function() {
			return listed('dns/records', 'records', 'records', record => ({
				name: words(record.name),
				type: words(record.type, 10),
				value: words(record.value),
				addresses: texts(record.addresses, 8),
				source: words(record.source, 20)
			}));
		}
	},

	// Audit log before the entry `before`, newest first; `more` if there are older entries. Client reports likewise.
	audit: {
		args: { before: '' },
		call: function(request) {
			let before = request.args.before;
			before ??= '';
			if (before != '' && !is_id(before)[0])
				return fault('invalid', 'expected the ID of an entry');

			// One more than is shown, to learn whether there are older ones.
			let answer = get(`hearth/audit?limit=${AUDIT_PAGE + 1}` + (before == '' ? '' : `&before=${before}`));
			if (answer.error)
				return answer;
			if (type(answer.logs) != 'array' || type(answer.reports) != 'array')
				return fault('unreadable');
			let page = bounded('entries', slice(reverse(answer.logs), 0, AUDIT_PAGE), shown_entry);
			return {
				entries: page.entries,
				more: length(page.entries) < length(answer.logs),
				reports: items(reverse(answer.reports), REPORTS, shown_report)
			};
		}
	},

	// Enables or disables hearth. procd is notified of the change and starts or stops it.
	set_enabled: {
		args: { enabled: true },
		call: function(request) {
			let uci = cursor();
			if (!uci.load('hearth') || !uci.get('hearth', 'server'))
				return fault('invalid', 'missing section `server` in /etc/config/hearth');
			uci.set('hearth', 'server', 'enabled', request.args.enabled ? '1' : '0');
			if (!uci.commit('hearth'))
				return fault('refused', 'cannot write /etc/config/hearth');
			bus()?.call('service', 'event', { type: 'config.change', data: { package: 'hearth' } });
			return { done: true };
		}
	},

	// Approves a pending registration for `user`.
	approve_login: {
		args: { id: '', user: '' },
		call: function(request) {
			let id = request.args.id, user = request.args.user;
			return checked([ is_request(id), is_text(user, 255, 'a user name') ],
				() => post('auth/register', { authId: id, user }));
		}
	},

	reject_login: {
		args: { id: '' },
		call: function(request) {
			let id = request.args.id;
			return checked([ is_request(id) ], () => post('auth/reject', { authId: id }));
		}
	},

	// Approves an SSH connection that waits for it.
	approve_ssh: {
		args: { id: '' },
		call: function(request) {
			let id = request.args.id;
			return checked([ is_request(id) ], () => post('hearth/ssh/approve', { id }));
		}
	},

	reject_ssh: {
		args: { id: '' },
		call: function(request) {
			let id = request.args.id;
			return checked([ is_request(id) ], () => post('hearth/ssh/reject', { id }));
		}
	},

	// Approves a device (device approval).
	authorize: {
		args: { id: '' },
		call: function(request) {
			let id = request.args.id;
			return checked([ is_id(id) ], () => post(`node/${escaped(id)}/approve`));
		}
	},

	rename: {
		args: { id: '', name: '' },
		call: function(request) {
			let id = request.args.id, name = request.args.name;
			return checked([ is_id(id), is_text(name, 63, 'a name') ],
				() => post(`node/${escaped(id)}/rename/${escaped(name)}`));
		}
	},

	// Expires the key of a device now, or disables its expiry if `never`.
	expire: {
		args: { id: '', never: true },
		call: function(request) {
			let id = request.args.id, never = request.args.never;
			return checked([ is_id(id) ],
				() => post(`node/${escaped(id)}/expire`, never ? { disableExpiry: true } : {}));
		}
	},

	delete: {
		args: { id: '' },
		call: function(request) {
			let id = request.args.id;
			return checked([ is_id(id) ], () => remove(`node/${escaped(id)}`));
		}
	},

	// Sets the approved routes of a device. Routes missing from the list are no longer approved.
	set_routes: {
		args: { id: '', routes: [] },
		call: function(request) {
			let id = request.args.id, routes = request.args.routes;
			let fit = type(routes) == 'array' && length(routes) <= 256 &&
				!length(filter(routes, route => !is_route(route)));
			return checked([ is_id(id), [ fit, 'expected prefixes such as 192.168.1.0/24' ] ],
				() => post(`node/${escaped(id)}/approve_routes`, { routes }));
		}
	},

	// Creates a single-use key, its join URL and QR code. An empty user means the only existing one.
	invite: {
		args: { user: '', hours: 24 },
		call: function(request) {
			let user = request.args.user, hours = request.args.hours;
			user ??= '';
			hours ??= 24;
			if (user != '' && !is_text(user, 255, '')[0])
				return fault('invalid', 'expected a user name');
			if (type(hours) != 'int' || hours < 1 || hours > 8760)
				return fault('invalid', 'expected 1 to 8760 hours');

			let answer = post('hearth/invite', { user, expiration: `${hours}h` });
			if (answer.error)
				return answer;
			return {
				user: words(answer.user?.name, 128),
				expiration: words(answer.expiration, 40),
				command: words(answer.command, 1024),
				join_url: words(answer.joinUrl, 1024),
				// The largest code has 177 modules on a side (ISO/IEC 18004 section 6.3.1).
				qr: items(answer.qr, 177, row => words(row, 177))
			};
		}
	},

	create_user: {
		args: { name: '' },
		call: function(request) {
			let name = request.args.name;
			return checked([ is_text(name, 255, 'a name') ], () => post('user', { name }));
		}
	},

	add_record: {
		args: { name: '', type: '', value: '' },
		call: function(request) {
			let name = request.args.name, kind = request.args.type, value = request.args.value;
			kind ??= '';
			return checked([
				is_text(name, 253, 'a name'),
				[ index([ '', 'A', 'AAAA', 'ALIAS' ], kind) >= 0, 'expected A, AAAA or ALIAS' ],
				is_text(value, 253, 'an address or device name')
			], () => post('dns/records', { name, type: kind, value }));
		}
	},

	delete_record: {
		args: { name: '', type: '', value: '' },
		call: function(request) {
			let name = request.args.name, kind = request.args.type, value = request.args.value;
			return checked([
				is_text(name, 253, 'a name'),
				is_text(kind, 10, 'a type'),
				is_text(value, 253, 'a value')
			], () => remove(`dns/records?name=${escaped(name)}&type=${escaped(kind)}&value=${escaped(value)}`));
		}
	}
};

return { 'luci.hearth': methods };
