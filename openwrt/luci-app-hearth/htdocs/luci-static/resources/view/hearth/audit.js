'use strict';
'require view';
'require hearth.calls as calls';
'require hearth.parts as parts';

// Source of the names: `ActorKind`, `Action`, `TargetKind` and `Property` of core/src/state/event.rs. A name that
// is missing here is shown as it is.

// Who, where the actor has no name, and how it reached hearth.
const actors = {
	SOCKET: function() { return [ _('Administrator'), _('command line or LuCI') ]; },
	API_KEY: function() { return [ _('API key'), _('REST API') ]; },
	OAUTH_CLIENT: function() { return [ _('OAuth client'), _('REST API') ]; },
	USER: function() { return [ _('User'), _('web page') ]; },
	NODE: function() { return [ _('Device'), _('Tailscale client') ]; },
	DEVICE: function() { return [ _('New device'), _('Tailscale client') ]; },
	AUTOMATED_WORKER: function() { return [ _('hearth'), _('automatic') ]; }
};

const actions = {
	CREATE: function() { return _('created'); },
	UPDATE: function() { return _('changed'); },
	DELETE: function() { return _('deleted'); },
	APPROVE: function() { return _('approved'); },
	REVOKE: function() { return _('approval revoked'); },
	REJECT: function() { return _('rejected'); },
	EXPIRED: function() { return _('expired'); },
	LOGIN: function() { return _('logged in'); },
	LOGOUT: function() { return _('logged out'); },
	REQUEST: function() { return _('requested'); }
};

const targets = {
	TAILNET: function() { return _('Tailnet'); },
	USER: function() { return _('User'); },
	NODE: function() { return _('Device'); },
	PREAUTH_KEY: function() { return _('Preauth key'); },
	API_KEY: function() { return _('API key'); },
	REGISTRATION: function() { return _('Pending registration'); },
	DNS_RECORD: function() { return _('DNS record'); },
	POLICY: function() { return _('Policy'); }
};

const properties = {
	MACHINE_NAME: function() { return _('Name'); },
	ROLE: function() { return _('Role'); },
	MAX_KEY_DURATION: function() { return _('Key lifetime'); },
	KEY_EXPIRY_TIME: function() { return _('Key expiry'); },
	ALLOWED_IPS: function() { return _('Approved routes'); },
	ADVERTISED_ROUTES: function() { return _('Advertised routes'); },
	ACL_TAGS: function() { return _('Tags'); },
	OWNER: function() { return _('Owner'); },
	ADDRESS: function() { return _('Addresses'); },
	ATTRIBUTES: function() { return _('Attributes'); },
	TAILNET_LOCK_KEY: function() { return _('Tailnet Lock key'); }
};

// Text of a name of the API; names of newer versions of hearth are shown as they are.
function text(table, name) {
	return Object.prototype.hasOwnProperty.call(table, name) ? table[name]() : parts.words(name);
}

// Value of an entry: times in it as local times, hashes shortened, and a space after each comma of a list.
function value(raw) {
	return parts.words(raw)
		.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, parts.moment)
		.replace(/\b(sha256:[0-9a-f]{12})[0-9a-f]+/g, '$1…')
		.replace(/,(?=\S)/g, ', ');
}

// Name or term whose words are broken only where nothing else helps; long ones break anywhere.
function whole(name) {
	return E('span', { 'style': name.length <= 24 ? 'overflow-wrap:break-word' : null }, [ name ]);
}

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return calls.audit('');
	},

	render: function(answer) {
		this.place = E('div', {});
		this.show(answer);
		return E([], [
			E('h2', {}, [ _('Audit log') ]),
			E('p', {}, [ _('Every change of devices, users, keys, routes, DNS records and the policy, newest first. The oldest entries are deleted when the log is full.') ]),
			this.place
		]);
	},

	show: function(answer) {
		if (answer.error) {
			parts.replace(this.place, [ parts.problem(answer) ]);
			return;
		}
		this.entries = (this.entries || []).concat(answer.entries);
		this.reports = this.reports || answer.reports;
		const last = this.entries[this.entries.length - 1];
		parts.replace(this.place, [
			E('div', { 'class': 'cbi-section', 'id': 'hearth-audit' }, [
				parts.table([ _('Time'), _('Who'), _('How'), _('What'), _('Target'), _('Change') ],
					this.entries.map(this.entry), _('No entries yet.')),
				answer.more && last ? E('p', {}, [
					// Reading needs no write access.
					parts.button(_('Older entries'), 'neutral', L.bind(this.older, this, last.id), { 'disabled': null })
				]) : ''
			]),
			E('div', { 'class': 'cbi-section', 'id': 'hearth-reports' }, [
				E('h3', {}, [ _('Client reports') ]),
				E('p', {}, [ _('Actions of users on their devices, as reported by the clients. These are lost when hearth restarts.') ]),
				parts.table([ _('Time'), _('Device'), _('Action'), _('Reason') ], this.reports.map(this.report), _('No reports yet.'))
			])
		]);
	},

	// Appends the entries before `id`. On failure the ones on the page stay.
	older: function(id) {
		return parts.change(calls.audit(id), L.bind(this.show, this));
	},

	entry: function(entry) {
		const actor = text(actors, entry.actor_type);
		const known = Array.isArray(actor);
		const action = text(actions, entry.action);
		const change = entry.old && entry.new ? value(entry.old) + ' → ' + value(entry.new)
			: entry.old ? _('was %s').format(value(entry.old))
			: value(entry.new);
		const what = entry.property ? text(properties, entry.property) + ': ' + action : action;

		return {
			attributes: { 'data-entry': entry.id },
			cells: [
				[ whole(parts.moment(entry.time)) ],
				[ whole(parts.words(entry.actor) || (known ? actor[0] : actor)) ],
				[ whole(known ? actor[1] : parts.words(entry.origin)) ],
				[ what ],
				[ text(targets, entry.target_type), ' ', E('strong', {}, [ whole(parts.words(entry.target || entry.target_id, 253)) ]) ],
				[ change, entry.details ? E('div', {}, [ E('small', {}, [ value(entry.details) ]) ]) : '' ]
			]
		};
	},

	report: function(report) {
		return {
			cells: [
				[ whole(parts.moment(report.time)) ],
				[ E('strong', {}, [ parts.name(report.node) || _('deleted (ID %s)').format(report.node_id) ]) ],
				[ parts.words(report.action) ],
				[ parts.words(report.details) ]
			]
		};
	}
});
