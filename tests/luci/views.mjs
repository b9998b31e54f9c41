// What the pages show and do, in Chromium: node --test views.mjs
//
//   CHROMIUM        the browser; chromium
//   LUCI_RESOURCES  a folder luci-static/resources of a real LuCI, in the place of the stub
//   LUCI_THEME      the folder above its bootstrap/, for screenshots that look like LuCI

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { read } from './catalogue.mjs';
import { Browser } from './chromium.mjs';
import { Router, views } from './router.mjs';
import * as scenarios from './scenarios.mjs';

const { CHROMIUM = 'chromium', LUCI_RESOURCES, LUCI_THEME } = process.env;
const isReal = !!LUCI_RESOURCES;
let browser, router;

before(async () => {
	router = new Router(LUCI_RESOURCES, LUCI_THEME);
	await router.start(scenarios.home);
	browser = await Browser.start(CHROMIUM);
});

after(async () => {
	await browser?.stop();
	await router?.stop();
});

// Opens a page in a home, and closes it after the check.
async function at(view, scenario, check, { readonly = false, faults = false, attacked = false } = {}) {
	router.play(scenario, readonly);
	const page = await browser.page();
	try {
		await page.open(router.view(view));
		await page.until("document.querySelector('#view h2, #view .alert-message')");
		await check(page);
		if (!isReal && !attacked)
			assert.equal(await page.value('window.textsAsHtml ?? 0'), 0, `${view}: a text was taken for HTML`);
		if (!faults)
			assert.deepEqual(page.faults, []);
	}
	finally {
		await page.close();
	}
}

// Changes that the page asked for.
const asked = () => router.calls.filter(([ object, method ]) => object == 'luci.hearth' && method in { ...scenarios.changes, invite: 1 })
	.map(([ , method, args ]) => [ method, args ]);

// Waits until there are so many of them.
const changes = count => router.until(() => asked().length >= count, `${count} changes`);

const visible = words => `document.body.innerText.includes(${JSON.stringify(words)})`;

test('every page shows itself without a fault', async () => {
	for (const scenario of [ scenarios.home, scenarios.empty, scenarios.many ])
		for (const view of views)
			await at(view, scenario, async page => {
				assert.equal(await page.value("document.querySelectorAll('#view h2').length"), 1, view);
				assert.ok(!/undefined|NaN|\[object|%[sd]/.test(await page.text()), `${view}: ${await page.text()}`);
			});
});

test('the overview shows the state, pending actions and findings of the doctor', () =>
	at('overview', scenarios.home, async page => {
		await page.until("document.querySelectorAll('.hearth-finding').length == 5");
		const text = await page.text();
		assert.ok(!text.includes('GL.iNet GL-MT6000'), 'details are folded');
		assert.ok(text.indexOf('Add a device') < text.indexOf('Action required'), 'what to do comes first');
		await page.value("document.querySelectorAll('details').forEach(one => { one.open = true; })");
		const all = await page.text();
		for (const words of [ 'https://home.example.org:8443', 'GL.iNet GL-MT6000', '58.4 MiB', '2 d', 'version 3', 'Last automatic backup' ])
			assert.ok(all.includes(words), `${words} in ${all}`);
		const wrap = text => page.value(`getComputedStyle([ ...document.querySelectorAll('details div') ].find(one => one.textContent == '${text}')).whiteSpace`);
		assert.equal(await wrap('HTTPS on [::]:8443'), 'nowrap', 'no address is broken');
		for (const words of [ '4 devices, 2 online', 'Add a device', 'Pending registrations: 1.', 'Approve or reject', 'SSH connections awaiting approval: 2.', 'Devices awaiting approval: tablet.', 'Routes awaiting approval on: router.',
			'Your ISP uses carrier-grade NAT', 'run `hearth derp` on a rented server', 'Passed checks: 2' ])
			assert.ok(text.includes(words), `${words} in ${text}`);
		assert.equal(await page.value("document.querySelectorAll('details .hearth-finding').length"), 2);
		const links = await page.value("[...document.querySelectorAll('.hearth-finding a')].map(link => [ link.textContent, link.hash ])");
		assert.deepEqual(links, [ [ 'Settings: derp.map_files', '#derp.map_files' ] ], 'advice leads to the settings that it names, and to no host name');
	}));

test('what keeps hearth from starting is said in its own words, with a link to the setting', async () => {
	for (const view of views.filter(view => view != 'settings'))
		await at(view, scenarios.clash, async page => {
			await page.until(visible("listen.https '8443' by LuCI (uhttpd at 0.0.0.0:8443)"));
			const links = await page.value("[...document.querySelectorAll('.alert-message a')].map(link => link.getAttribute('href'))");
			assert.ok(links[0].endsWith('/admin/services/hearth/settings#listen.https'), links[0]);
		});
	await at('settings', scenarios.clash, page => page.until(visible("listen.https '8443' by LuCI")));
});

test('a link to a setting shows its field', async () => {
	const hash = async (name, check) => {
		router.play(scenarios.home);
		const page = await browser.page();
		try {
			await page.open(router.view('settings') + '#' + name);
			await page.until("document.querySelector('#view h2')");
			await check(page);
		}
		finally {
			await page.close();
		}
	};
	for (const name of [ 'listen.https', 'wan.ipv4', 'member.enabled', 'derp.map_files', 'backup.directory' ])
		await hash(name, page => page.until(`document.querySelector('[data-name="_${name.replace('.', '_')}"]')?.style.outline &&
			document.querySelector('[data-name="_${name.replace('.', '_')}"]').offsetParent`));
	await hash('wan.on_change', page => page.until(visible('wan.on_change has no field on this page')));
	await hash('nonsense', page => page.until("document.querySelector('[data-name]')"));
});

test('a router that cannot join because the client is missing says so', async () => {
	const member = said => ({ ...scenarios.home, status: { ...scenarios.status, member: { enabled: true, installed: false, said } } });
	await at('overview', member(''), page => page.until(visible('the package “tailscale” is not installed')));
	await at('settings', member(''), page => page.until(visible('Install it under System › Software')));
	await at('overview', { ...scenarios.home, status: { ...scenarios.status, member: { enabled: true, installed: true, said: 'joined the tailnet' } } }, async page => {
		assert.ok(!(await page.text()).includes('is not installed'));
		await page.value("document.querySelectorAll('details').forEach(one => { one.open = true; })");
		await page.until(visible('joined the tailnet'));
	});
});

test('empty fields show what applies, by the running hearth', () =>
	at('settings', { ...scenarios.home, uci: { server: { '.name': 'server', '.type': 'hearth' } } }, async page => {
		const grey = name => page.value(`document.querySelector('[data-name="${name}"] input:not([type=hidden])').placeholder`);
		await page.until(`document.querySelector('[data-name="_listen_https"] input')`);
		for (const [ name, value ] of [
			[ '_server_server_url', 'https://home.example.org:8443' ], [ '_listen_https', '8443' ], [ '_wan_ipv4', '203.0.113.9' ],
			[ '_wan_interface', 'pppoe-wan' ], [ '_node_expiry', 'never' ], [ '_derp_ipv4', '' ], [ '_tls_cert_file', '' ], [ '_derp_host_name', '' ]
		])
			assert.equal(await grey(name), value, name);
	}));

test('the key of a pending device is shown in its short form', () =>
	at('devices', scenarios.home, page => page.until(visible('5e9b1-c7aa0'))));

test('a hearth without a doctor or devices shows neither findings nor alarming zeros', () =>
	at('overview', scenarios.empty, async page => {
		await page.until(visible('Add the first device'));
		assert.ok(!(await page.text()).includes('Connectivity'));
	}));

test('switching off asks first, switching on does not', async () => {
	await at('overview', scenarios.home, async page => {
		await page.click('Disable', '#view');
		await page.until(visible('Disable hearth?'));
		assert.deepEqual(asked(), []);
		await page.click('Disable', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		assert.deepEqual(asked(), [ [ 'set_enabled', { enabled: false } ] ]);
	});
	let state = scenarios.off;
	await at('overview', {
		...scenarios.home,
		status: () => state.status,
		set_enabled: () => {
			state = scenarios.home;
			return scenarios.changes.set_enabled;
		}
	}, async page => {
		assert.match((await page.text()).toLowerCase(), /disabled/);
		for (const words of [ 'they use the official tailscale clients', 'it is reachable from your lan only: nothing is opened to the internet' ])
			assert.ok((await page.text()).toLowerCase().includes(words), words);
		await page.click('Enable', '#view');
		await page.until(visible('https://home.example.org:8443'));
		assert.deepEqual(asked(), [ [ 'set_enabled', { enabled: true } ] ]);
	});
});

test('when hearth does not answer every page says why', async () => {
	const expected = {
		off: 'hearth is disabled', stopped: 'hearth is not running', silent: 'The request timed out',
		unreadable: 'Unexpected response from hearth', absent: 'The LuCI backend of hearth is not responding',
		denied: 'The LuCI backend of hearth is not responding'
	};
	for (const [ name, words ] of Object.entries(expected))
		for (const view of views.filter(view => view != 'settings' && !(view == 'overview' && name == 'off')))
			await at(view, scenarios[name], page => page.until(visible(words)), { faults: name == 'denied' });
});

test('an unresponsive process is distinguished from none', async () => {
	for (const [ name, words ] of [ [ 'stopped', 'not running' ], [ 'silent', 'not ready' ] ])
		await at('overview', scenarios[name], async page => assert.ok((await page.text()).toLowerCase().includes(words), name));
});

test('settings can be changed while hearth is off', () =>
	at('settings', scenarios.off, page => page.until(visible('Enable hearth'))));

test('a pending registration is approved for the chosen owner, or rejected', () =>
	at('devices', scenarios.home, async page => {
		await page.until(visible('kitchen-laptop'));
		await page.fill('#hearth-pending select', 'anna');
		await page.click('Approve', '#hearth-pending');
		await page.click('Approve with tags', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		await page.click('Reject', '#hearth-pending');
		await changes(2);
		const id = 'fJ3kd93-KDw_39dkfoEWq1';
		assert.deepEqual(asked(), [ [ 'approve_login', { id, user: 'anna' } ], [ 'reject_login', { id } ] ]);
	}));

test('a device that requests tags is approved only after they were named, one without at once', async () => {
	const home = tags => ({ ...scenarios.home, pending: { pending: [ { ...scenarios.home.pending.pending[0], tags } ], left_out: 0 } });
	await at('devices', home([ 'tag:kitchen', 'tag:<b>' ]), async page => {
		await page.click('Approve', '#hearth-pending');
		await page.until(visible('Approve kitchen-laptop with tags?'));
		assert.match(await page.text('.modal'), /It requests tag:kitchen, tag:<b>\. Once approved, it has these tags and belongs to no user/);
		await page.click('Cancel', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		assert.deepEqual(asked(), []);
	});
	await at('devices', home([]), async page => {
		await page.click('Approve', '#hearth-pending');
		await changes(1);
		assert.deepEqual(asked().map(([ method ]) => method), [ 'approve_login' ]);
	});
});

test('a policy that was never valid is said, and the warnings of hearth are shown', () => {
	const warning = 'the policy in /etc/hearth/policy.hujson was rejected; there is no previous policy, so no device can reach another: line 3';
	const status = { ...scenarios.status, policy_version: '', policy_is_closed: true, warnings: [ warning ] };
	return at('overview', { ...scenarios.home, status }, async page => {
		await page.until(visible(warning));
		await page.value("document.querySelectorAll('details').forEach(one => { one.open = true; })");
		await page.until(visible('none is valid (no device can connect to another)'));
	});
});

test('an SSH connection that waits is approved or rejected by its ID', () => {
	const [ first, second ] = scenarios.home.ssh_checks.checks;
	let waiting = [ first, second ];
	const decided = id => {
		waiting = waiting.filter(check => check.id != id);
		return { done: true };
	};
	const home = {
		...scenarios.home, ssh_checks: () => ({ checks: waiting, left_out: 0 }),
		approve_ssh: ({ id }) => decided(id), reject_ssh: ({ id }) => decided(id)
	};
	return at('devices', home, async page => {
		await page.until("document.querySelectorAll('[data-ssh]').length == 2");
		const row = await page.text(`[data-ssh="${second.id}"]`);
		for (const words of [ 'annas-phone', 'nas', 'root', ' ago', 'b0XmZk5-' ])
			assert.ok(row.includes(words), `${words} in ${row}`);
		await page.click('Approve', `[data-ssh="${second.id}"]`);
		await page.until(`!document.querySelector('[data-ssh="${second.id}"]')`);
		await page.click('Reject', `[data-ssh="${first.id}"]`);
		await page.until("!document.querySelector('#hearth-ssh')");
		assert.deepEqual(asked(), [ [ 'approve_ssh', { id: second.id } ], [ 'reject_ssh', { id: first.id } ] ]);
	});
});

test('approving the first registration creates the first user', () =>
	at('devices', { ...scenarios.home, users: scenarios.empty.users }, async page => {
		await page.click('Approve', '#hearth-pending');
		await page.click('Approve with tags', '.modal');
		await changes(2);
		assert.deepEqual(asked().map(([ method, args ]) => [ method, args.name ?? args.user ]), [ [ 'create_user', 'home' ], [ 'approve_login', 'home' ] ]);
	}));

test('the list of devices shows owner, addresses, last seen and expiry', () =>
	at('devices', scenarios.home, async page => {
		const row = id => page.text(`[data-node="${id}"]`);
		await page.until("document.querySelectorAll('[data-node]').length == 4");
		for (const [ id, expected ] of [
			[ 1, [ 'router', 'OpenWrt', '100.64.0.1', 'tag:router', 'online', 'never' ] ],
			[ 2, [ 'annas-phone', 'Pixel 9', 'anna', 'online' ] ],
			[ 3, [ 'nas', '2 d ago', 'expired', 'router: no default route' ] ],
			[ 4, [ 'tablet', 'awaiting approval', 'Approve' ] ]
		])
			for (const words of expected)
				assert.ok((await row(id)).toLowerCase().includes(words.toLowerCase()), `${words} in ${await row(id)}`);
		assert.ok(!(await row(2)).includes('Approve'));
		assert.equal(await page.value("document.querySelector('[data-node]').dataset.node"), '4', 'devices awaiting approval come first');
	}));

test('a device is approved, renamed, expired and deleted, the last only after confirmation', () =>
	at('devices', scenarios.home, async page => {
		await page.click('Approve', '[data-node="4"]');
		await changes(1);
		await page.click('Rename', '[data-node="3"]');
		await page.until("document.querySelector('.modal input')?.value == 'nas'");
		await page.fill('.modal input', ' backup ');
		await page.click('Rename', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		await page.click('Set expiry', '[data-node="2"]');
		await page.until(visible('When should the key of annas-phone expire?'));
		await page.click('Now', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		await page.click('Set expiry', '[data-node="1"]');
		await page.click('Never', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		await page.click('Delete', '[data-node="2"]');
		await page.until(visible('Delete annas-phone?'));
		await page.click('Cancel', '.modal');
		await page.click('Delete', '[data-node="2"]');
		await page.click('Delete', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		assert.deepEqual(asked(), [
			[ 'authorize', { id: '4' } ], [ 'rename', { id: '3', name: 'backup' } ], [ 'expire', { id: '2', never: false } ],
			[ 'expire', { id: '1', never: true } ], [ 'delete', { id: '2' } ]
		]);
	}));

test('a hundred devices can be searched, and omitted entries are reported', () =>
	at('devices', scenarios.many, async page => {
		await page.until("document.querySelectorAll('[data-node]').length == 100");
		assert.ok((await page.text()).includes('17 more entries are not shown'));
		await page.fill('#hearth-nodes input[type=search]', 'Device-77');
		const shown = await page.value("[...document.querySelectorAll('[data-node]')].filter(row => row.offsetParent).map(row => row.dataset.node)");
		assert.deepEqual(shown, [ '77' ]);
	}));

test('an invitation shows the QR code that hearth made, the link and the line', () =>
	at('invite', scenarios.home, async page => {
		await page.fill('#hearth-owner', 'anna');
		await page.fill('#hearth-hours', '168');
		await page.click('Create invitation', '#view');
		await page.until("document.querySelector('#hearth-invitation svg')");
		assert.deepEqual(asked(), [ [ 'invite', { user: 'anna', hours: 168 } ] ]);
		assert.equal(await page.value("document.getElementById('hearth-link').value"), scenarios.invite.join_url);
		assert.equal(await page.value("document.getElementById('hearth-command').value"), scenarios.invite.command);

		// The drawing, read back by its pixels.
		const size = scenarios.invite.qr.length + 8;
		const drawn = await page.value(`new Promise((resolve, reject) => {
			const svg = document.querySelector('#hearth-invitation svg').cloneNode(true), size = ${size};
			svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
			svg.setAttribute('width', size * 4);
			svg.setAttribute('height', size * 4);
			const image = new Image();
			image.onerror = reject;
			image.onload = () => {
				const canvas = document.createElement('canvas');
				canvas.width = canvas.height = size * 4;
				const pen = canvas.getContext('2d');
				pen.fillStyle = '#fff';
				pen.fillRect(0, 0, size * 4, size * 4);
				pen.drawImage(image, 0, 0);
				const rows = [];
				for (let y = 0; y < size; y++) {
					let row = '';
					for (let x = 0; x < size; x++)
						row += pen.getImageData(x * 4 + 2, y * 4 + 2, 1, 1).data[0] < 128 ? '1' : '0';
					rows.push(row);
				}
				resolve(rows);
			};
			image.src = 'data:image/svg+xml,' + encodeURIComponent(svg.outerHTML);
		})`);
		const quiet = Array(4).fill('0'.repeat(size));
		assert.deepEqual(drawn, [ ...quiet, ...scenarios.invite.qr.map(row => `0000${row}0000`), ...quiet ]);
	}));

test('an invitation for a new user creates the user first', () =>
	at('invite', scenarios.home, async page => {
		await page.value(`(() => {
			const owner = document.getElementById('hearth-owner');
			owner.selectedIndex = owner.options.length - 1;
			owner.dispatchEvent(new Event('change'));
		})()`);
		await page.fill('#view input', 'bruno');
		await page.click('Create invitation', '#view');
		await page.until("document.querySelector('#hearth-invitation svg')");
		assert.deepEqual(asked(), [ [ 'create_user', { name: 'bruno' } ], [ 'invite', { user: 'bruno', hours: 24 } ] ]);
		await page.click('Create invitation', '#view');
		await changes(3);
		assert.deepEqual(asked()[2], [ 'invite', { user: 'bruno', hours: 24 } ]);
	}));

test('approving one route leaves the others as they were', () =>
	at('routes', scenarios.home, async page => {
		const tick = async route => {
			const box = `document.querySelector('[data-node="1"] [data-route="${route}"]')`;
			await page.until(`${box} && !${box}.disabled`);
			await page.value(`${box}.click()`);
			await page.until(`${box} && !${box}.disabled`);
		};
		await tick('10.20.0.0/16');
		await tick('0.0.0.0/0');
		await tick('192.168.1.0/24');
		assert.deepEqual(asked(), [
			[ 'set_routes', { id: '1', routes: [ '192.168.1.0/24', '0.0.0.0/0', '::/0', '10.20.0.0/16' ] } ],
			[ 'set_routes', { id: '1', routes: [ '192.168.1.0/24' ] } ],
			[ 'set_routes', { id: '1', routes: [ '0.0.0.0/0', '::/0' ] } ]
		]);
		assert.match((await page.text()).toLowerCase(), /not advertised/, 'an approved route that no device advertises is shown');
	}));

test('records are added and deleted, but only those that were made here', () =>
	at('dns', scenarios.home, async page => {
		assert.equal(await page.value("document.querySelectorAll('#hearth-records button').length"), 2);
		await page.fill('#hearth-record-name', ' nas2 ');
		await page.fill('#hearth-record-value', '192.168.1.9');
		await page.click('Add', '#view');
		await changes(1);
		await page.click('Delete', '#hearth-records');
		await page.until(visible('Delete printer.hearth.internal?'));
		await page.click('Delete', '.modal');
		await page.until("!document.body.classList.contains('modal-overlay-active')");
		assert.deepEqual(asked(), [
			[ 'add_record', { name: 'nas2', type: '', value: '192.168.1.9' } ],
			[ 'delete_record', { name: 'printer.hearth.internal', type: 'A', value: '192.168.1.20' } ]
		]);
	}));

test('the audit log says who changed what, how, and from what to what, and below it what clients report', () =>
	at('audit', scenarios.home, async page => {
		const row = id => page.text(`[data-entry="${id}"]`);
		await page.until("document.querySelectorAll('[data-entry]').length == 6");
		for (const [ id, expected ] of [
			[ 48, [ 'hearth', 'automatic', 'Key expiry: changed', 'Device nas', 'never → ' ] ],
			[ 47, [ 'Administrator', 'command line or LuCI', 'Approved routes: changed', 'Device router', '192.168.1.0/24 → 192.168.1.0/24, 0.0.0.0/0, ::/0' ] ],
			[ 46, [ 'hskey-api-BC4J8B_wwgeY', 'REST API', 'Name: changed', 'ubuntu-server-2 → nas' ] ],
			[ 45, [ 'deleted', 'DNS record old.hearth.internal', 'was A 192.168.1.9' ] ],
			[ 44, [ 'annas-phone', 'Tailscale client', 'created', 'anna', 'expires ' ] ],
			[ 43, [ 'NEWCOMER', 'ELSEWHERE', 'REINDEX', 'SOMETHING_NEW', 'sha256:0123456789ab…' ] ]
		])
			for (const words of expected)
				assert.ok((await row(id)).includes(words), `${words} in ${await row(id)}`);
		assert.ok(!/\dT\d/.test(await page.text('#hearth-audit')), 'times are local');
		const reports = await page.text('#hearth-reports');
		for (const words of [ 'annas-phone', 'DISCONNECT_NODE', 'on a plane', 'deleted (ID 9)' ])
			assert.ok(reports.includes(words), `${words} in ${reports}`);
	}));

test('older entries are appended until there are no more, and a failure keeps what is shown', async () => {
	const pages = {
		'': { entries: [ scenarios.entry(9), scenarios.entry(8) ], more: true, reports: scenarios.home.audit.reports },
		8: { entries: [ scenarios.entry(7) ], more: true, reports: [] },
		7: { error: 'silent', message: '' }
	};
	const shown = "[...document.querySelectorAll('[data-entry]')].map(row => row.dataset.entry).join()";
	await at('audit', { ...scenarios.home, audit: ({ before }) => pages[before] }, async page => {
		await page.until(`${shown} == '9,8'`);
		await page.click('Older entries', '#hearth-audit');
		await page.until(`${shown} == '9,8,7'`);
		assert.ok((await page.text('#hearth-reports')).includes('on a plane'));
		await page.click('Older entries', '#hearth-audit');
		await page.until(visible('hearth is not responding'));
		assert.equal(await page.value(shown), '9,8,7');
		pages[7] = { entries: [ scenarios.entry(6) ], more: false, reports: [] };
		await page.until("![...document.querySelectorAll('#hearth-audit button')].some(button => button.disabled)");
		await page.click('Older entries', '#hearth-audit');
		await page.until(`${shown} == '9,8,7,6'`);
		assert.ok(!(await page.text('#hearth-audit')).includes('Older entries'));
	});
});

test('a refusal is shown with its reason and changes nothing on the page', async () => {
	for (const [ view, button, within, sure ] of [ [ 'devices', 'Approve', '#hearth-pending', 'Approve with tags' ], [ 'devices', 'Reject', '#hearth-ssh' ], [ 'invite', 'Create invitation', '#view' ], [ 'dns', 'Add', '#view' ] ])
		await at(view, scenarios.refusing, async page => {
			await page.click(button, within);
			if (sure)
				await page.click(sure, '.modal');
			await page.until(visible('the database is read-only'));
			await page.until(visible(button));
		});
});

test('a database that cannot be written is said with the reason and since when', async () => {
	await at('overview', scenarios.full, async page => {
		await page.until(visible('read-only since'));
		await page.until(visible(': no space left on the file system.'));
		await page.until(visible('changes are rejected'));
	});
});

test('a read-only session has no working button', async () => {
	for (const view of views.filter(view => view != 'settings'))
		await at(view, scenarios.home, async page => {
			const working = await page.value(`[...document.querySelectorAll('#view button, #view input[type=checkbox]')]
				.filter(one => !one.disabled).map(one => one.textContent)`);
			assert.deepEqual(working.filter(words => ![ 'Check again', 'Older entries' ].includes(words)), [], view);
		}, { readonly: true });
});

test('names chosen by devices and users are shown as text only', async () => {
	for (const view of views)
		await at(view, scenarios.nasty, async page => {
			if (view == 'overview')
				await page.until("document.querySelectorAll('.hearth-finding').length == 5");
			if (view == 'invite') {
				await page.click('Create invitation', '#view');
				await page.until("document.querySelector('#hearth-invitation svg')");
				assert.deepEqual(await page.value("[...document.querySelectorAll('#hearth-invitation a')].map(link => link.textContent)"), [ 'Devices' ], 'no link to a script');
			}
			if (view == 'devices') {
				for (const button of [ 'Rename', 'Set expiry', 'Delete' ]) {
					await page.click(button, '[data-node="1"]');
					await page.until("document.querySelector('.modal h4')?.textContent.includes('<img src=x')");
					await page.click('Cancel', '.modal');
				}
				await page.click('Rename', '[data-node="1"]');
				await page.click('Rename', '.modal');
				await page.until("document.querySelector('.alert-message')?.textContent.includes('<img src=x')");
			}
			// Whatever was loaded by an attack would have run by now: its image fails at once.
			await page.value('new Promise(resolve => { const image = new Image(); image.onerror = resolve; image.src = "x"; })');
			assert.equal(await page.value('window.hacked ?? null'), null, view);
			assert.equal(await page.value("document.querySelectorAll('#maincontent :is(img, iframe, script, object), #modal_overlay :is(img, iframe)').length"), 0, view);
			assert.equal(await page.value("document.querySelectorAll('#view svg').length"), view == 'invite' ? 1 : 0, view);
			if (view != 'settings' && view != 'invite')
				assert.ok((await page.text()).includes('<img src=x onerror="window.hacked=1">'), view);
			assert.ok(!/[\u0007\u202e]/.test(await page.text()), 'characters that are not seen are replaced');
		}, { faults: true });
});

test('the settings show the file and save what changed, each to its section', () =>
	at('settings', scenarios.home, async page => {
		const field = name => `document.querySelector('[data-name="${name}"] input:not([type=hidden])')`;
		await page.until(field('_server_server_url'));
		assert.equal(await page.value(`${field('_server_server_url')}.value`), 'https://home.example.org:8443');
		assert.equal(await page.value(`${field('_derp_enabled')}.checked`), false);
		assert.equal(await page.value(`${field('_dns_magic_dns')}.checked`), true, 'a default that is on');
		await page.value(`${field('_server_open_wan')}.click()`);
		for (const [ name, value ] of [ [ '_node_expiry', '180d' ], [ '_limits_derp_total_rate', '1MiB' ], [ '_backup_directory', '/mnt/usb/hearth-backups' ], [ '_backup_keep', '3' ] ])
			await page.value(`(() => {
				const field = ${field(name)};
				field.value = '${value}';
				for (const type of [ 'input', 'change', 'keyup', 'blur' ]) field.dispatchEvent(new Event(type, { bubbles: true }));
			})()`);
		await page.click('Save', '#view');
		// LuCI writes switches again that were not changed, and new sections with what is in them.
		const saved = () => {
			const sections = {};
			for (const [ object, method, args ] of router.calls)
				if (object == 'uci' && (method == 'set' || method == 'add'))
					for (const [ option, value ] of Object.entries(args.values ?? {}))
						if (scenarios.uci[args.section ?? args.name]?.[option] != value)
							sections[`${args.section ?? args.name}.${option}`] = value;
			return sections;
		};
		await router.until(() => Object.keys(saved()).length >= 5, 'five settings');
		assert.deepEqual(saved(), {
			'server.open_wan': '1', 'node.expiry': '180d', 'limits.derp_total_rate': '1MiB',
			'backup.directory': '/mnt/usb/hearth-backups', 'backup.keep': '3'
		});
	}));

test('an invalid setting is not saved', async () => {
	for (const [ name, value, expected ] of [
		[ '_server_server_url', 'home.example.org; reboot', 'Expected a URL' ],
		[ '_backup_directory', '/etc/uci-defaults', 'Expected a directory below' ],
		[ '_backup_keep', '0', 'Expected a number from 1 to 999' ]
	])
		await at('settings', scenarios.home, async page => {
			const field = `document.querySelector('[data-name="${name}"] input')`;
			await page.until(field);
			await page.value(`(() => {
				${field}.value = '${value}';
				for (const type of [ 'input', 'change', 'keyup', 'blur' ]) ${field}.dispatchEvent(new Event(type, { bubbles: true }));
			})()`);
			await page.click('Save', '#view');
			await page.until(visible(expected));
			assert.deepEqual(router.calls.filter(([ object, method ]) => object == 'uci' && method == 'set'), []);
		}, { faults: true });
});

test('a configuration file is named, because it replaces the settings of the page', () =>
	at('settings', { ...scenarios.home, uci: { ...scenarios.uci, server: { ...scenarios.uci.server, config_file: '/etc/hearth/my.toml' } } },
		page => page.until(visible('hearth reads its configuration from /etc/hearth/my.toml'))));

test('with its catalogue the app speaks German', { skip: isReal && 'a real LuCI makes its own catalogues' }, async () => {
	const known = read(new URL('../../openwrt/luci-app-hearth/po/de/hearth.po', import.meta.url));
	router.translations = Object.fromEntries(known);
	try {
		await at('overview', scenarios.home, async page => {
			await page.until(visible('Erreichbarkeit'));
			assert.ok((await page.text()).includes('4 Geräte, 2 online'));
		});
		await at('devices', scenarios.home, async page => {
			await page.until(visible('Ausstehende Registrierungen'));
			await page.until(visible('SSH-Verbindungen, die auf Genehmigung warten'));
		});
		await at('audit', scenarios.home, page => page.until(visible('Genehmigte Routen: geändert')));
		await at('settings', scenarios.home, page => page.until(visible('Ports in der Firewall öffnen')));
	}
	finally {
		router.translations = {};
	}
});

test('the runtime treats a lone text as HTML, so these tests would notice an attack', () =>
	at('overview', scenarios.home, async page => {
		await page.value(`document.body.appendChild(E('div', {}, '<img src=x onerror="window.hacked=1">'))`);
		await page.until('window.hacked == 1');
	}, { attacked: true }));
