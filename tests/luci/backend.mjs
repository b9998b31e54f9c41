// The backend in ucode, against a real hearth and against peers that misbehave: node --test backend.mjs
//
//   UCODE   the interpreter; ucode
//   HEARTH  the program; target/debug/hearth

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync, existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as scenarios from './scenarios.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');
const backend = join(root, 'openwrt/luci-app-hearth/root/usr/share/rpcd/ucode/luci.hearth.uc');
const { UCODE = 'ucode', HEARTH = join(root, 'target/debug/hearth') } = process.env;

let folder, socket, hearth;

// Calls methods of the backend, in a home with these settings: the answer of each.
function calls(list, { path = socket, enabled = '1', running = '1' } = {}) {
	const file = join(folder, 'calls.json'), uci = join(folder, 'uci.json');
	writeFileSync(file, JSON.stringify(list));
	if (enabled !== undefined)
		writeFileSync(uci, JSON.stringify({ hearth: { server: { '.type': 'hearth', enabled } } }));
	const output = execFileSync(UCODE, [ '-L', join(here, 'backend/*.uc'), join(here, 'backend/driver.uc'), backend, file ], {
		encoding: 'utf8', maxBuffer: 64 << 20, timeout: 60000,
		env: {
			...process.env, HEARTH_SOCKET: path, TEST_UCI: uci, TEST_BUS: join(folder, 'bus'), TEST_RUNNING: running,
			HEARTH_REFUSED: join(folder, 'refused'), HEARTH_MEMBER_SAID: join(folder, 'said')
		}
	});
	return output.trim().split('\n').map(line => JSON.parse(line));
}

const call = (method, args, more) => calls([ [ method, args ] ], more)[0];

// One request to hearth past the backend.
function ask(method, path, body) {
	return new Promise((resolve, reject) => {
		const wish = request({ socketPath: socket, method, path: `/api/v1/${path}`, headers: { 'content-type': 'application/json' } }, response => {
			let text = '';
			response.on('data', piece => text += piece).on('end', () => resolve(JSON.parse(text)));
		});
		wish.on('error', reject).end(body && JSON.stringify(body));
	});
}

before(async () => {
	folder = mkdtempSync(join(tmpdir(), 'hearth-luci-'));
	socket = join(folder, 'hearth.sock');
	hearth = spawn(HEARTH, [ 'serve', '--http', '127.0.0.1:0', '--https', 'off', '--stun', 'off', '--data-dir', join(folder, 'data'), '--socket', socket ], { stdio: 'ignore' });
	const deadline = Date.now() + 60000;
	while (!existsSync(socket) || !(await ask('GET', 'health').catch(() => null))) {
		assert.ok(Date.now() < deadline && hearth.exitCode === null, 'hearth does not start');
		await new Promise(resolve => setTimeout(resolve, 20));
	}
	await ask('POST', 'user', { name: 'anna' });
	for (const [ name, last, routes ] of [ [ 'nas', 1, [ '192.168.7.0/24', '10.9.0.0/16' ] ], [ 'camera', 2, [] ] ])
		await ask('POST', 'node/wireguard', {
			name, key: 'nodekey:' + String(last).padStart(64, 'a'), endpoints: [ `192.0.2.${last}:51820` ], user: 'anna', routes
		});
});

after(async () => {
	if (hearth?.exitCode === null) {
		const ended = new Promise(resolve => hearth.once('exit', resolve));
		hearth.kill();
		await ended;
	}
	if (folder)
		rmSync(folder, { recursive: true, force: true });
});

// What kind of thing a value is, all the way down; of a list the first item counts.
function shape(value) {
	if (Array.isArray(value))
		return value.length ? [ shape(value[0]) ] : [];
	if (value && typeof value == 'object')
		return Object.fromEntries(Object.keys(value).sort().map(key => [ key, shape(value[key]) ]));
	return value === null ? null : typeof value;
}

// Whether two shapes agree; an empty list and `null` agree with everything of their kind.
function agree(one, other, path = '') {
	if (one === null || other === null)
		return;
	if (Array.isArray(one) && Array.isArray(other))
		return one.length && other.length ? agree(one[0], other[0], `${path}[]`) : undefined;
	assert.equal(typeof one, typeof other, path);
	if (typeof one != 'object')
		return assert.equal(one, other, path);
	assert.deepEqual(Object.keys(one), Object.keys(other), path);
	for (const key of Object.keys(one))
		agree(one[key], other[key], `${path}.${key}`);
}

test('what the pages are tested with has the shape of what the backend says', () => {
	calls([ [ 'add_record', { name: 'printer', type: 'A', value: '192.168.1.20' } ] ]);
	const methods = [ 'status', 'nodes', 'pending', 'ssh_checks', 'users', 'records', 'audit', 'doctor' ];
	calls(methods.map(name => [ name, {} ])).forEach((answer, i) => {
		if (methods[i] == 'doctor' && answer.error)
			return assert.deepEqual(answer, scenarios.empty.doctor);
		agree(shape(answer), shape(scenarios.home[methods[i]]), methods[i]);
	});
	agree(shape(call('invite', { user: 'anna', hours: 24 })), shape(scenarios.home.invite), 'invite');
	const stopped = { path: join(folder, 'nobody') };
	agree(shape(call('status', {}, stopped)), shape(scenarios.stopped.status), 'stopped');
	assert.equal(call('status', {}, stopped).error, 'stopped');
	assert.equal(call('status', {}, { ...stopped, enabled: '0' }).error, 'off');
});

test('why hearth was not started, and what came of the router as a member, is passed on', () => {
	const stopped = { path: join(folder, 'nobody') };
	const { problem } = scenarios.clash.status;
	assert.equal(call('status', {}, stopped).problem, null);
	writeFileSync(join(folder, 'refused'), `${problem.setting}\n${problem.message}\n`);
	writeFileSync(join(folder, 'said'), 'joined the tailnet as \'router\'\n');
	try {
		for (const method of [ 'status', 'nodes', 'users' ])
			assert.deepEqual(call(method, {}, stopped).problem, problem, method);
		assert.equal(call('status', {}, { ...stopped, enabled: '0' }).problem, null, 'not of one that is off');
		assert.equal(call('status').problem, undefined, 'nor of one that runs');
		assert.equal(call('status').member.said, 'joined the tailnet as \'router\'');
		for (const text of [ '', 'listen.https', '\n', `${'x'.repeat(9000)}\n${'y'.repeat(9000)}` ]) {
			writeFileSync(join(folder, 'refused'), text);
			assert.equal(call('status', {}, stopped).error, 'stopped', JSON.stringify(text.slice(0, 20)));
		}
	}
	finally {
		rmSync(join(folder, 'refused'));
		rmSync(join(folder, 'said'));
	}
});

test('nodes are told as they are', () => {
	const { nodes } = call('nodes');
	const nas = nodes.find(node => node.name == 'nas');
	assert.equal(nas.user, 'anna');
	assert.equal(nas.wireguard, true);
	assert.equal(nas.addresses.length, 2);
	assert.deepEqual(nas.offered.sort(), [ '10.9.0.0/16', '192.168.7.0/24' ]);
});

test('each change arrives at hearth', async () => {
	const id = call('nodes').nodes.find(node => node.name == 'nas').id;
	const done = { done: true };
	const answers = calls([
		[ 'rename', { id, name: 'store' } ],
		[ 'set_routes', { id, routes: [ '10.9.0.0/16' ] } ],
		[ 'create_user', { name: 'bruno' } ],
		[ 'add_record', { name: 'git', type: '', value: 'store' } ],
		[ 'authorize', { id } ]
	]);
	assert.deepEqual(answers, [ done, done, done, done, done ]);
	const node = call('nodes').nodes.find(node => node.id == id);
	assert.deepEqual([ node.name, node.approved ], [ 'store', [ '10.9.0.0/16' ] ]);
	assert.ok(call('users').users.some(user => user.name == 'bruno'));
	const git = call('records').records.find(record => record.name.startsWith('git.'));
	assert.deepEqual([ git.type, git.value, git.source, git.addresses.length ], [ 'ALIAS', 'store', 'api', 2 ]);
	assert.deepEqual(calls([
		[ 'delete_record', { name: git.name, type: git.type, value: git.value } ],
		[ 'delete', { id: call('nodes').nodes.find(node => node.name == 'camera').id } ]
	]), [ done, done ]);
	assert.ok(!call('records').records.some(record => record.name.startsWith('git.')));
	assert.ok(!call('nodes').nodes.some(node => node.name == 'camera'));
});

test('the audit log has the newest change first, and the ones before an entry', () => {
	calls([ [ 'create_user', { name: 'first' } ], [ 'create_user', { name: 'second' } ] ]);
	const { entries, more } = call('audit', { before: '' });
	assert.equal(more, false);
	assert.deepEqual(entries.slice(0, 2).map(entry => entry.target), [ 'second', 'first' ]);
	const [ { actor_type, origin, action, target_type } ] = entries;
	assert.deepEqual([ actor_type, origin, action, target_type ], [ 'SOCKET', 'ADMIN_CONSOLE', 'CREATE', 'USER' ]);
	assert.deepEqual(call('audit', { before: entries[0].id }).entries, entries.slice(1));
	assert.equal(call('audit', { before: '1&limit=2' }).error, 'invalid');
});

test('a page of the audit log has at most 100 entries, and says whether there are more', () => {
	const logs = Array.from({ length: 101 }, (_, i) => ({ id: String(i + 1), actor: {}, target: {}, new: 'x'.repeat(2000) }));
	return peer(connection => connection.end(answer(JSON.stringify({ logs, reports: logs }))), async (path, heard) => {
		const [ first, older ] = await callsBeside([ [ 'audit', { before: '' } ], [ 'audit', { before: '2' } ] ], path);
		assert.deepEqual([ first.entries.length, first.more, first.reports.length ], [ 100, true, 50 ]);
		assert.deepEqual([ first.entries[0].id, first.entries[99].id, first.entries[0].new.length ], [ '101', '2', 256 ]);
		assert.deepEqual(heard.map(text => text.split('\r\n')[0]), [
			'GET /api/v1/hearth/audit?limit=101 HTTP/1.1', 'GET /api/v1/hearth/audit?limit=101&before=2 HTTP/1.1'
		]);
		assert.equal(older.error, undefined);
	});
});

test('of SSH connections only those are shown that wait, and a decision names its ID', () => {
	const check = (id, state) => ({ id, state, source: 'phone', target: 'nas', localUser: 'root', createdAt: '2026-11-28T04:00:00Z' });
	const checks = [ check('a', 'approved'), check('b', 'waiting'), check('c', 'rejected') ];
	return peer(connection => connection.end(answer(JSON.stringify({ checks }))), async (path, heard) => {
		const answers = await callsBeside([ [ 'ssh_checks', {} ], [ 'approve_ssh', { id: 'b' } ], [ 'reject_ssh', { id: 'b' } ] ], path);
		assert.deepEqual(answers, [
			{ checks: [ { id: 'b', source: 'phone', target: 'nas', local_user: 'root', created: '2026-11-28T04:00:00Z' } ], left_out: 0 },
			{ done: true }, { done: true }
		]);
		assert.deepEqual(heard.map(text => text.split('\r\n')[0]), [
			'GET /api/v1/hearth/ssh HTTP/1.1', 'POST /api/v1/hearth/ssh/approve HTTP/1.1', 'POST /api/v1/hearth/ssh/reject HTTP/1.1'
		]);
		assert.deepEqual(JSON.parse(heard[1].split('\r\n\r\n')[1]), { id: 'b' });
	});
});

test('an invitation ends when it was asked to, and brings the code of its page', async () => {
	const invite = call('invite', { user: 'anna', hours: 3 });
	const left = (Date.parse(invite.expiration) - Date.now()) / 3600000;
	assert.ok(left > 2.9 && left <= 3.01, invite.expiration);
	assert.match(invite.join_url, /^http:\/\/127\.0\.0\.1:\d+\/join#hskey-auth-/);
	assert.ok(invite.command.endsWith(invite.join_url.split('#')[1]));
	assert.ok(invite.qr.length >= 33 && invite.qr.every(row => row.length == invite.qr.length && /^[01]+$/.test(row)));
	assert.equal(call('invite', { user: 'anna', hours: 0 }).error, 'invalid');
	assert.equal(call('invite', { user: 'a\nb', hours: 1 }).error, 'invalid');
});

test('an invitation is asked for by its length: the clock of the router may be set later', () => {
	return peer(connection => connection.end(answer('{}')), async (path, heard) => {
		await callsBeside([ [ 'invite', { user: 'anna', hours: 3 } ] ], path);
		assert.match(heard[0], /"expiration": *"3h"/);
	});
});

test('what hearth refuses comes with its reason', () => {
	const id = call('nodes').nodes[0].id;
	for (const [ method, args, words ] of [
		[ 'rename', { id: '999', name: 'x' }, /node not found/ ],
		[ 'rename', { id, name: '-' }, /./ ],
		[ 'approve_login', { id: 'nobody', user: 'anna' }, /./ ],
		[ 'reject_login', { id: 'nobody' }, /./ ],
		[ 'approve_ssh', { id: 'nobody' }, /./ ],
		[ 'reject_ssh', { id: 'x'.repeat(24) }, /no SSH connection with this ID/ ],
		[ 'create_user', { name: 'anna' }, /anna/ ],
		[ 'add_record', { name: 'x', type: 'A', value: 'no address' }, /./ ],
		[ 'expire', { id, never: false }, /./ ]
	]) {
		const answer = call(method, args);
		assert.equal(answer.error, 'refused', JSON.stringify(answer));
		assert.match(answer.message, words);
	}
});

// A server at a socket of its own that says the same to everybody, and notes what it is asked.
async function peer(behave, check) {
	const path = join(folder, 'peer.sock');
	const heard = [];
	const server = createServer(connection => {
		let text = '';
		connection.on('error', () => {});
		connection.on('data', piece => {
			const before = text;
			text += piece;
			if (!before.includes('\r\n\r\n') && text.includes('\r\n\r\n')) {
				heard.push(text);
				behave(connection);
			}
		});
	});
	await new Promise(resolve => server.listen(path, resolve));
	try {
		// The backend is another process, and this one has to go on serving: it cannot wait for it.
		await check(path, heard);
	}
	finally {
		await new Promise(resolve => server.close(resolve));
	}
}

// As [calls], without blocking this process.
function callsBeside(list, path, env = {}) {
	const file = join(folder, 'calls.json'), uci = join(folder, 'uci.json');
	writeFileSync(file, JSON.stringify(list));
	writeFileSync(uci, JSON.stringify({ hearth: { server: { '.type': 'hearth', enabled: '1' } } }));
	const child = spawn(UCODE, [ '-L', join(here, 'backend/*.uc'), join(here, 'backend/driver.uc'), backend, file ], {
		env: { ...process.env, HEARTH_SOCKET: path, TEST_UCI: uci, TEST_BUS: join(folder, 'bus'), TEST_RUNNING: '1', ...env }
	});
	let output = '', errors = '';
	child.stdout.on('data', piece => output += piece);
	child.stderr.on('data', piece => errors += piece);
	return new Promise((resolve, reject) => child.on('close', code => code
		? reject(new Error(errors || output)) : resolve(output.trim().split('\n').map(line => JSON.parse(line)))));
}

const answer = (body, status = '200 OK', length = Buffer.byteLength(body)) =>
	`HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`;

test('names are escaped into paths, whatever is in them', () =>
	peer(connection => connection.end(answer('{}')), async (path, heard) => {
		const names = [ 'a/../../b', '..', '.', 'a b?c=d&e#f', 'ü', '%2e', "';reboot;'", '$(reboot)', 'a\\b' ];
		const answers = await callsBeside([
			...names.map(name => [ 'rename', { id: '7', name } ]),
			[ 'delete_record', { name: 'a&type=b', type: 'A', value: '1 2+3' } ],
			[ 'add_record', { name: 'x"},{"y', type: 'A', value: '\\' } ]
		], path);
		assert.ok(answers.every(answer => answer.done), JSON.stringify(answers));
		const lines = heard.map(text => text.split('\r\n')[0]);
		names.forEach((name, i) => {
			const part = lines[i].match(/^POST \/api\/v1\/node\/7\/rename\/([A-Za-z0-9_~%-][A-Za-z0-9._~%-]*) HTTP\/1\.1$/)?.[1];
			assert.ok(part, lines[i]);
			assert.equal(decodeURIComponent(part), name);
		});
		assert.equal(lines.at(-2), 'DELETE /api/v1/dns/records?name=a%26type%3Db&type=A&value=1%202%2B3 HTTP/1.1');
		assert.deepEqual(JSON.parse(heard.at(-1).split('\r\n\r\n')[1]), { name: 'x"},{"y', type: 'A', value: '\\' });
	}));

test('arguments that make no sense never reach hearth', () =>
	peer(connection => connection.end(answer('{}')), async (path, heard) => {
		const answers = await callsBeside([
			[ 'rename', { id: '1/../2', name: 'x' } ], [ 'rename', { id: '', name: 'x' } ], [ 'rename', { id: '1', name: '' } ],
			[ 'rename', { id: '1', name: 'a\nb' } ], [ 'rename', { id: '1', name: 'x'.repeat(64) } ], [ 'rename', { id: '1' } ],
			[ 'delete', { id: '1 2' } ], [ 'delete', { id: '1\n' } ], [ 'reject_login', { id: 'abc\nd' } ], [ 'set_routes', { id: '1', routes: [ '10.0.0.0/8\nx' ] } ], [ 'authorize', {} ], [ 'expire', { id: 'x', never: true } ],
			[ 'approve_login', { id: 'a/b', user: 'anna' } ], [ 'approve_login', { id: 'abc', user: '' } ],
			[ 'reject_login', { id: 'x'.repeat(49) } ], [ 'approve_ssh', { id: 'a/b' } ], [ 'reject_ssh', {} ], [ 'set_routes', { id: '1', routes: [ '10.0.0.0/8; x' ] } ],
			[ 'set_routes', { id: '1', routes: Array(257).fill('10.0.0.0/8') } ], [ 'set_routes', { id: '1', routes: [ 1 ] } ],
			[ 'invite', { user: '', hours: 8761 } ], [ 'create_user', { name: '\u0001' } ],
			[ 'add_record', { name: 'a', type: 'TXT', value: 'b' } ], [ 'add_record', { name: 'a', type: '', value: 'x'.repeat(254) } ],
			[ 'delete_record', { name: 'a' } ]
		], path);
		answers.forEach((answer, i) => assert.equal(answer.error, 'invalid', `${i}: ${JSON.stringify(answer)}`));
		assert.deepEqual(heard, []);
	}));

test('answers that are none are faults, not crashes', async () => {
	const long = '{"nodes":"' + 'x'.repeat(9 << 20) + '"}';
	for (const [ what, text, expected ] of [
		[ 'nothing', '', 'unreadable' ],
		[ 'no HTTP', 'hello\r\n\r\n', 'unreadable' ],
		[ 'no end of the head', 'HTTP/1.1 200 OK\r\n', 'unreadable' ],
		[ 'no length', 'HTTP/1.1 200 OK\r\n\r\n{}', 'unreadable' ],
		[ 'cut off', answer('{"nodes":[', '200 OK', 99), 'unreadable' ],
		[ 'no JSON', answer('<html>'), 'unreadable' ],
		[ 'a list', answer('[1]'), 'unreadable' ],
		[ 'other fields', answer('{"nodes":{"a":1}}'), 'unreadable' ],
		[ 'deep', answer('['.repeat(100000)), 'unreadable' ],
		[ 'too long', answer(long), 'unreadable' ],
		[ 'a refusal', answer('{"code":13,"message":"the database takes no changes"}', '500 Internal Server Error'), 'refused' ],
		[ 'a refusal without words', answer('{}', '404 Not Found'), 'refused' ]
	])
		await peer(connection => connection.end(text), async path => {
			const [ outcome ] = await callsBeside([ [ 'nodes', {} ] ], path);
			assert.equal(outcome.error, expected, what);
		});
});

test('who says nothing, or says it too slowly, is given up', async () => {
	for (const [ what, behave ] of [
		[ 'silence', () => {} ],
		[ 'a drip', connection => {
			const drip = setInterval(() => connection.write('H'), 100);
			connection.on('close', () => clearInterval(drip));
		} ]
	])
		await peer(behave, async path => {
			const began = Date.now();
			const [ outcome ] = await callsBeside([ [ 'users', {} ] ], path);
			assert.equal(outcome.error, 'silent', what);
			assert.ok(Date.now() - began < 10000, `${what}: ${Date.now() - began} ms`);
		});
});

test('a list that is too long for ubus is cut, and the rest is counted', () => {
	const nodes = Array.from({ length: 1000 }, (_, i) => ({
		id: String(i), givenName: `device-${i}`, name: 'x'.repeat(2000), ipAddresses: [ '100.64.0.1' ], tags: Array(200).fill('tag:x'), online: true
	}));
	return peer(connection => connection.end(answer(JSON.stringify({ nodes }))), async path => {
		const [ outcome ] = await callsBeside([ [ 'nodes', {} ] ], path);
		assert.equal(outcome.nodes.length + outcome.left_out, nodes.length);
		assert.ok(outcome.left_out > 0 && outcome.nodes.length > 100);
		assert.ok(JSON.stringify(outcome).length < 700 << 10);
		assert.equal(outcome.nodes[0].hostname.length, 256);
	});
});

test('switching hearth on or off writes the setting and tells procd', () => {
	rmSync(join(folder, 'bus'), { force: true });
	assert.deepEqual(call('set_enabled', { enabled: false }), { done: true });
	const uci = () => JSON.parse(readFileSync(join(folder, 'uci.json'), 'utf8')).hearth.server;
	assert.deepEqual(uci(), { '.type': 'hearth', enabled: '0' });
	const bus = readFileSync(join(folder, 'bus'), 'utf8').trim().split('\n').map(line => JSON.parse(line));
	assert.deepEqual(bus, [ [ 'service', 'event', { type: 'config.change', data: { package: 'hearth' } } ] ]);
	call('set_enabled', { enabled: true });
	assert.equal(uci().enabled, '1');
});
