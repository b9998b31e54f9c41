'use strict';
'require view';
'require poll';
'require ui';
'require hearth.calls as calls';
'require hearth.parts as parts';

// User that is created for the first device, as `hearth invite` does.
const FIRST_USER = 'home';

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return Promise.all([ calls.nodes(), calls.pending(), calls.users(), calls.sshChecks() ]);
	},

	render: function(answers) {
		this.place = E('div', {});
		this.filter = E('input', {
			'type': 'search',
			'class': 'cbi-input-text',
			'placeholder': _('Name, address, owner or tag'),
			'aria-label': _('Search devices'),
			'input': L.bind(function() { this.sift(); }, this)
		});
		this.show(answers);
		poll.add(L.bind(this.refresh, this), 10);
		return E([], [ E('h2', {}, [ _('Devices') ]), this.place ]);
	},

	refresh: function() {
		return this.load().then(L.bind(this.show, this));
	},

	// Redraws the lists if they have changed.
	show: function(answers) {
		const nodes = answers[0], pending = answers[1], users = answers[2], checks = answers[3];
		const failed = [ nodes, pending, checks ].filter(function(answer) { return answer.error; });
		// An online device is always last seen just now, so that alone is not a change.
		const shown = JSON.stringify(answers, function(key, value) {
			return this.online && key == 'last_seen' ? undefined : value;
		});

		if (shown == this.shown)
			return;
		this.shown = shown;
		if (failed.length) {
			parts.replace(this.place, [ parts.problem(failed[0]) ]);
			return;
		}
		parts.replace(this.place, [
			E('p', {}, [ E('a', { 'class': 'btn cbi-button cbi-button-action', 'href': L.url('admin/services/hearth/invite') }, [ _('Add a device') ]) ]),
			this.renderPending(pending, users.users || []),
			this.renderSsh(checks),
			this.renderNodes(nodes)
		]);
		this.sift();
	},

	renderPending: function(answer, users) {
		if (!answer.pending.length)
			return '';
		const rows = answer.pending.map(L.bind(function(login) {
			const owner = E('select', { 'class': 'cbi-input-select', 'style': 'width:auto;min-width:6em;max-width:12em', 'aria-label': _('Owner'), 'disabled': parts.readonly() },
				(users.length ? users.map(function(user) { return user.name; }) : [ FIRST_USER ]).map(function(name) {
					return E('option', { 'value': name }, [ parts.name(name) ]);
				}));
			const approve = function() {
				const made = users.length ? Promise.resolve({}) : calls.createUser(FIRST_USER);
				return made.then(function(answer) {
					return answer.error ? answer : calls.approveLogin(login.id, owner.value);
				});
			};
			// Tags take the place of the owner, and the policy may give them more than a person has.
			const question = login.tags.length ? {
				title: _('Approve %s with tags?').format(parts.name(login.name)),
				text: _('It requests %s. Once approved, it has these tags and belongs to no user. To add it without tags, reject it and log it in without --advertise-tags.').format(parts.words(login.tags.join(', '), 253)),
				label: _('Approve with tags')
			} : null;
			return {
				attributes: { 'data-login': login.id },
				cells: [
					[ E('strong', {}, [ parts.name(login.name) ]) ].concat(
						parts.lines(login.tags.length ? [ _('requests %s').format(login.tags.join(', ')) ] : [])),
					[ parts.name(login.os) ],
					[ parts.ago(login.created) ],
					[ E('code', { 'style': 'white-space:nowrap' }, [ parts.shortKey(login.machine_key) ]) ],
					[ owner ],
					this.decision(approve, function() { return calls.rejectLogin(login.id); }, question)
				]
			};
		}, this));
		return E('div', { 'class': 'cbi-section', 'id': 'hearth-pending' }, [
			E('h3', {}, [ _('Pending registrations') ]),
			E('p', {}, [ _('Approve only devices that you recognize. A device can claim any name; the machine key is the one on the page that it shows.') ]),
			parts.table([ _('Device'), _('System'), _('Since'), _('Machine key'), _('Owner'), '' ], rows, ''),
			parts.leftOut(answer)
		]);
	},

	// SSH connections to which a rule of the policy with the action `check` applies.
	renderSsh: function(answer) {
		if (!answer.checks.length)
			return '';
		const rows = answer.checks.map(L.bind(function(check) {
			return {
				attributes: { 'data-ssh': check.id },
				cells: [
					[ E('strong', {}, [ parts.name(check.source) ]) ],
					[ E('strong', {}, [ parts.name(check.target) ]) ],
					[ parts.name(check.local_user) ],
					[ parts.ago(check.created) ],
					[ E('code', { 'style': 'white-space:nowrap' }, [ parts.words(check.id, 8) ]) ],
					this.decision(function() { return calls.approveSsh(check.id); }, function() { return calls.rejectSsh(check.id); })
				]
			};
		}, this));
		return E('div', { 'class': 'cbi-section', 'id': 'hearth-ssh' }, [
			E('h3', {}, [ _('SSH connections awaiting approval') ]),
			E('p', {}, [ _('Approve a connection only if you or someone you trust is connecting. Compare the ID with the last part of the link that the SSH client shows.') ]),
			parts.table([ _('From'), _('To'), _('As user'), _('Since'), _('ID'), '' ], rows, ''),
			parts.leftOut(answer)
		]);
	},

	// Buttons that approve or reject what waits for it; `question` is asked before it is approved.
	decision: function(approve, reject, question) {
		const change = L.bind(function(call) {
			return parts.change(call(), L.bind(this.refresh, this));
		}, this);
		const ask = function() {
			return question
				? parts.confirm(question.title, question.text, question.label, function() { return change(approve); })
				: change(approve);
		};
		return [
			parts.button(_('Approve'), 'apply', ask), ' ',
			parts.button(_('Reject'), 'reset', function() { return change(reject); })
		];
	},

	renderNodes: function(answer) {
		const nodes = answer.nodes.slice().sort(function(a, b) {
			return (a.authorized - b.authorized) || a.name.localeCompare(b.name, undefined, { numeric: true });
		});
		const rows = nodes.map(L.bind(this.row, this));
		return E('div', { 'class': 'cbi-section', 'id': 'hearth-nodes' }, [
			nodes.length > 8 ? E('p', {}, [ this.filter ]) : '',
			parts.table([ _('Device'), _('Addresses'), _('Owner'), _('Last seen'), _('Expires'), '' ], rows,
				_('No devices yet.')),
			parts.leftOut(answer)
		]);
	},

	row: function(node) {
		const name = [ E('strong', {}, [ parts.name(node.name) ]) ];
		if (node.hostname && node.hostname.toLowerCase() != node.name.toLowerCase())
			name.push(E('div', {}, [ E('small', {}, [ parts.name(node.hostname) ]) ]));
		if (!node.authorized)
			name.push(E('div', {}, [ parts.label(_('awaiting approval'), 'warning') ]));
		if (node.wireguard)
			name.push(E('div', {}, [ parts.label(_('WireGuard only'), 'notice') ]));
		node.health.forEach(function(line) {
			name.push(E('div', {}, [ E('small', {}, [ '⚠ ' + parts.words(line) ]) ]));
		});

		const expired = parts.hasPassed(node.expiry);
		const buttons = [];
		if (!node.authorized)
			buttons.push(parts.button(_('Approve'), 'apply', L.bind(function() {
				return parts.change(calls.authorize(node.id), L.bind(this.refresh, this));
			}, this)), ' ');
		buttons.push(
			parts.button(_('Rename'), 'edit', L.bind(this.rename, this, node)), ' ',
			node.wireguard ? '' : parts.button(_('Set expiry'), 'neutral', L.bind(this.expire, this, node)), ' ',
			parts.button(_('Delete'), 'remove', L.bind(this.remove, this, node)));
		return {
			attributes: {
				'data-node': node.id,
				'data-find': parts.words([ node.name, node.hostname, node.user ].concat(node.addresses, node.tags).join(' ')).toLowerCase()
			},
			cells: [
				name,
				parts.whole(node.addresses),
				node.tags.length ? parts.whole(node.tags) : [ parts.name(node.user) ],
				[ node.online ? parts.label(_('online'), 'success') : parts.ago(node.last_seen) ],
				[ expired == null ? _('never') : expired ? parts.label(_('expired'), 'important') : parts.moment(node.expiry) ],
				buttons
			]
		};
	},

	// Filters the rows by the search field.
	sift: function() {
		const wanted = this.filter.value.trim().toLowerCase();
		this.place.querySelectorAll('[data-find]').forEach(function(row) {
			row.style.display = row.getAttribute('data-find').indexOf(wanted) >= 0 ? '' : 'none';
		});
	},

	rename: function(node) {
		const field = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'value': parts.words(node.name), 'maxlength': 63, 'aria-label': _('New name') });
		ui.showModal([ _('Rename %s').format(parts.name(node.name)) ], [
			E('p', {}, [ _('The MagicDNS name of the device. Letters, digits and hyphens.') ]),
			E('p', {}, [ field ]),
			E('div', { 'class': 'right button-row' }, [
				E('button', { 'class': 'btn', 'type': 'button', 'click': ui.hideModal }, [ _('Cancel') ]), ' ',
				parts.button(_('Rename'), 'apply important', L.bind(function() {
					return parts.change(calls.rename(node.id, field.value.trim()), L.bind(this.refresh, this)).then(ui.hideModal);
				}, this))
			])
		]);
	},

	expire: function(node) {
		const set = L.bind(function(never) {
			return parts.change(calls.expire(node.id, never), L.bind(this.refresh, this)).then(ui.hideModal);
		}, this);
		ui.showModal([ _('When should the key of %s expire?').format(parts.name(node.name)) ], [
			E('p', {}, [ _('Now: the device is disconnected until someone logs in on it again. Never: suitable for routers and servers.') ]),
			E('div', { 'class': 'right button-row' }, [
				E('button', { 'class': 'btn', 'type': 'button', 'click': ui.hideModal }, [ _('Cancel') ]), ' ',
				parts.button(_('Never'), 'neutral', function() { return set(true); }), ' ',
				parts.button(_('Now'), 'negative important', function() { return set(false); })
			])
		]);
	},

	remove: function(node) {
		parts.confirm(_('Delete %s?').format(parts.name(node.name)),
			_('The device is disconnected immediately, and its name and addresses become available. To return, it has to join again.'),
			_('Delete'), L.bind(function() {
				return parts.change(calls.delete(node.id), L.bind(this.refresh, this));
			}, this));
	}
});
