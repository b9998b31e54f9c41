'use strict';
'require view';
'require poll';
'require hearth.calls as calls';
'require hearth.parts as parts';

const levels = {
	problem: [ 'important', function() { return _('Problem'); } ],
	warning: [ 'warning', function() { return _('Warning'); } ],
	note: [ 'notice', function() { return _('Note'); } ],
	ok: [ 'success', function() { return _('OK'); } ]
};

// Why the database is read-only, and what to do.
const causes = {
	full: function() {
		return [ _('no space left on the file system'), _('Delete what is no longer needed, or use a larger drive.') ];
	},
	'read-only': function() {
		return [ _('the file system is read-only'), _('Usually the drive has failed: see the kernel log, check the file system, and replace the drive.') ];
	},
	'io-error': function() {
		return [ _('the drive reports I/O errors'), _('Back up the data directory and replace the drive.') ];
	},
	'no-response': function() {
		return [ _('the drive does not respond'), _('See the kernel log; check or replace the drive.') ];
	},
	permission: function() {
		return [ _('permission denied in the data directory'), _('The data directory and its files must belong to the user “hearth”.') ];
	}
};

function readOnly(fault) {
	const cause = fault && causes[fault.cause];
	if (!cause)
		return _('The database is read-only. See the system log.');
	const [ reason, advice ] = cause();
	return _('The database is read-only since %s: %s. Devices stay connected; changes are rejected. %s')
		.format(parts.moment(fault.since), reason, advice);
}

function bytes(count) {
	return '%1024.1mB'.format(count);
}

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return calls.status();
	},

	render: function(status) {
		this.state = E('div', {});
		this.doctor = E('div', { 'class': 'cbi-section', 'style': 'display:none' });
		this.details = E('div', {});
		this.show(status);
		this.examine();
		poll.add(L.bind(function() {
			return calls.status().then(L.bind(this.show, this));
		}, this), 5);
		return E([], [ E('h2', {}, [ _('hearth') ]), this.state, this.doctor, this.details ]);
	},

	// Redraws the state if it has changed.
	show: function(status) {
		const shown = JSON.stringify(Object.assign({}, status, { uptime: Math.floor((status.uptime || 0) / 60) }));
		if (shown == this.shown)
			return;
		const wasDown = this.wasDown;
		this.shown = shown;
		this.wasDown = !!status.error;
		parts.replace(this.state, [
			status.error && status.error != 'off' ? parts.problem(status) : '',
			this.renderSwitch(status)
		].concat(status.error ? [] : [
			this.renderActions(status),
			this.renderWarnings(status)
		]));
		parts.replace(this.details, status.error ? [] : [ this.renderDetails(status) ]);
		if (status.error)
			parts.replace(this.doctor, []);
		else if (wasDown)
			this.examine();
	},

	renderSwitch: function(status) {
		if (status.error == 'backend' || status.error == 'unreadable')
			return '';
		const running = !status.error;
		const word = running ? parts.label(_('running'), 'success')
			: !status.enabled ? parts.label(_('disabled'), 'notice')
			// The process runs but does not answer.
			: status.running ? parts.label(_('not ready'), 'warning')
			: parts.label(_('not running'), 'important');
		const toggle = L.bind(function(enabled) {
			return parts.change(calls.setEnabled(enabled), L.bind(function() {
				return calls.status().then(L.bind(this.show, this));
			}, this));
		}, this);
		const on = parts.button(_('Enable'), 'apply', function() { return toggle(true); });
		const off = parts.button(_('Disable'), 'reset', function() {
			parts.confirm(_('Disable hearth?'),
				_('Existing connections between devices stay up, but no new ones can be set up and no device can join.'),
				_('Disable'), function() { return toggle(false); });
		});
		const devices = _('%d devices, %d online').format(status.nodes, status.online) +
			(status.expired ? ', ' + _('%d with an expired key').format(status.expired) : '');

		return E('div', { 'class': 'cbi-section' }, [
			E('p', {}, [ word ].concat(running ? [ devices ] : [])),
			running ? E('p', { 'style': 'overflow-wrap:anywhere' }, [ _('Devices connect to %s.').format(parts.words(status.server_url)), ' ', parts.setting('server.server_url') ]) : '',
			E('p', {}, [
				running ? E('a', { 'class': 'btn cbi-button cbi-button-action important', 'href': L.url('admin/services/hearth/invite') }, [ _('Add a device') ]) : '', ' ',
				status.enabled ? off : on
			])
		].concat(status.enabled ? [] : [
			E('p', {}, [ _('hearth connects your devices in a private network (tailnet) of your own. They use the official Tailscale clients, and this router is their server.') ]),
			E('p', {}, [ _('Enabling starts it now and at every boot. It is reachable from your LAN only: nothing is opened to the internet until you do that in “Settings”. No device joins without an invitation or your approval.') ])
		]));
	},

	// What waits for a decision of the administrator.
	renderActions: function(status) {
		const items = [], member = status.member || {};
		const line = function(text, link) { items.push(E('li', {}, [ text, ' ', link ])); };
		const page = function(name, label) {
			return E('a', { 'href': L.url('admin/services/hearth/' + name) }, [ label ]);
		};
		const names = function(list) {
			return list.first.map(function(node) { return parts.name(node.name); }).join(', ') +
				(list.count > list.first.length ? ' …' : '');
		};

		if (status.pending > 0)
			line(_('Pending registrations: %d.').format(status.pending), page('devices', _('Approve or reject')));
		if (status.waiting_ssh > 0)
			line(_('SSH connections awaiting approval: %d.').format(status.waiting_ssh), page('devices', _('Approve or reject')));
		if (status.unauthorized.count > 0)
			line(_('Devices awaiting approval: %s.').format(names(status.unauthorized)), page('devices', _('Approve or delete')));
		if (status.waiting_routes.count > 0)
			line(_('Routes awaiting approval on: %s.').format(names(status.waiting_routes)), page('routes', _('Approve')));
		if (!status.nodes && !status.pending)
			line(_('No devices yet.'), page('invite', _('Add the first device')));
		if (member.enabled && !member.installed)
			line(_('This router cannot join the tailnet: the package “tailscale” is not installed.'),
				E('a', { 'href': L.url('admin/system/package-manager') }, [ _('System › Software') ]));
		return items.length ? E('div', { 'class': 'cbi-section', 'id': 'hearth-actions' }, [
			E('h3', {}, [ _('Action required') ]), E('ul', {}, items)
		]) : '';
	},

	renderWarnings: function(status) {
		const warnings = status.warnings.slice();
		if (!status.clock_is_plausible)
			warnings.unshift(_('The system clock is not set. Nothing expires until it is.'));
		if (!status.database_is_writable)
			warnings.unshift(readOnly(status.database_fault));
		return E('div', {}, warnings.map(function(warning) {
			return E('div', { 'class': 'alert-message warning', 'style': 'overflow-wrap:anywhere' }, [
				E('p', {}, [ parts.words(warning) ].concat(parts.settings(warning)))
			]);
		}));
	},

	renderDetails: function(status) {
		const relay = status.relay, board = status.board, member = status.member || {};
		const listeners = [
			status.http ? _('HTTP on %s').format(status.http) : null,
			status.https ? _('HTTPS on %s').format(status.https) : null,
			status.stun ? _('STUN on %s').format(status.stun) : null
		].filter(function(text) { return text; });
		return E('details', { 'class': 'cbi-section' }, [
			E('summary', { 'style': 'cursor:pointer' }, [ _('Details') ]),
			parts.facts([
				[ _('MagicDNS domain'), status.base_domain ],
				[ _('Listening on'), parts.whole(listeners) ],
				[ _('This router in the tailnet'), member.enabled ? member.said : '' ],
				[ _('Relay'), relay
					? _('%d connected, %s relayed, %d packets dropped').format(relay.connections, bytes(relay.bytes_sent), relay.packets_dropped)
					: _('off') ],
				[ _('Policy'), status.policy_version
					? _('version %s').format(status.policy_version)
					: status.policy_is_closed
						? _('none is valid (no device can connect to another)')
						: _('none (all devices can connect to each other)') ],
				[ _('Last automatic backup'), status.last_backup ? parts.moment(status.last_backup) : _('none') ],
				[ _('Board'), board && board.name ? board.name + (board.source ? ' (' + board.source + ')' : '') : '' ],
				[ _('Memory budget'), board && board.budget ? bytes(board.budget) : '' ],
				[ _('Uptime'), parts.span(status.uptime) ],
				[ _('Version'), status.version ]
			])
		]);
	},

	// Loads the findings of the doctor; none if hearth has no doctor.
	examine: function() {
		return calls.doctor().then(L.bind(function(answer) {
			if (answer.error) {
				this.doctor.style.display = 'none';
				return;
			}
			this.doctor.style.display = '';
			parts.replace(this.doctor, this.renderFindings(answer));
		}, this));
	},

	renderFindings: function(answer) {
		const wrong = answer.findings.filter(function(finding) { return finding.level != 'ok'; });
		const good = answer.findings.filter(function(finding) { return finding.level == 'ok'; });
		const again = E('button', {
			'class': 'btn cbi-button cbi-button-neutral',
			'type': 'button',
			'click': L.bind(function(ev) {
				ev.currentTarget.disabled = true;
				return this.examine();
			}, this)
		}, [ _('Check again') ]);

		return [
			E('h3', {}, [ _('Connectivity') ]),
			this.renderAddresses(answer.wan)
		].concat(wrong.map(this.renderFinding), [
			good.length ? E('details', {}, [
				E('summary', { 'style': 'cursor:pointer' }, [ _('Passed checks: %d').format(good.length) ])
			].concat(good.map(this.renderFinding))) : '',
			E('p', {}, [ again ])
		]);
	},

	renderAddresses: function(wan) {
		const known = [ wan.ipv4, wan.ipv6 ].filter(function(text) { return text; }).map(parts.words).join(', ');
		const lines = known ? [ _('Addresses on %s: %s').format(parts.words(wan.interface) || '?', known) ] : [];

		if (wan.outside_ipv4 && wan.outside_ipv4 != wan.ipv4)
			lines.push(_('Public IPv4 address: %s').format(parts.words(wan.outside_ipv4)));
		return E('div', {}, parts.lines(lines));
	},

	renderFinding: function(finding) {
		const level = levels[finding.level] || levels.note;
		return E('div', { 'class': 'hearth-finding', 'style': 'margin:.8em 0;overflow-wrap:anywhere' }, [
			E('div', {}, [ parts.label(level[1](), level[0]), E('strong', {}, [ parts.words(finding.title) ]) ]),
			finding.detail ? E('div', {}, [ parts.words(finding.detail) ]) : '',
			finding.advice ? E('div', {}, [ E('em', {}, [ _('Suggested fix:') ]), ' ', parts.words(finding.advice) ]
				.concat(parts.settings(finding.advice))) : ''
		]);
	}
});
