'use strict';
'require view';
'require ui';
'require hearth.calls as calls';
'require hearth.parts as parts';

// The last choice creates a user.
function isNew(owner) {
	return owner.selectedIndex == owner.options.length - 1;
}

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return calls.users();
	},

	render: function(answer) {
		const head = E('h2', {}, [ _('Add a device') ]);
		if (answer.error)
			return E([], [ head, parts.problem(answer) ]);

		const users = answer.users;
		const name = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'maxlength': 63, 'placeholder': _('Name, for example anna'), 'aria-label': _('Name of the new user') });
		const nameRow = this.field(_('Name of the new user'), name);
		const owner = E('select', {
			'class': 'cbi-input-select',
			'id': 'hearth-owner',
			'change': function() { nameRow.style.display = isNew(owner) ? '' : 'none'; }
		}, (users.length ? users.map(function(user) {
			return E('option', { 'value': user.name }, [ parts.name(user.display_name || user.name) ]);
		}) : [ E('option', { 'value': '' }, [ 'home' ]) ]).concat([
			E('option', { 'value': '' }, [ _('New user …') ])
		]));
		const hours = E('select', { 'class': 'cbi-input-select', 'id': 'hearth-hours' }, [
			E('option', { 'value': 1 }, [ _('1 hour') ]),
			E('option', { 'value': 24, 'selected': '' }, [ _('1 day') ]),
			E('option', { 'value': 168 }, [ _('1 week') ]),
			E('option', { 'value': 720 }, [ _('30 days') ])
		]);
		const result = E('div', { 'id': 'hearth-invitation' });

		nameRow.style.display = 'none';
		return E([], [
			head,
			E('p', {}, [ _('An invitation is a single-use key for one device. Scan the QR code with a phone, or run the command on a computer.') ]),
			E('div', { 'class': 'cbi-section' }, [
				this.field(_('Owner of the device'), owner),
				nameRow,
				this.field(_('Valid for'), hours),
				E('p', {}, [ parts.button(_('Create invitation'), 'apply important', L.bind(function() {
					return this.invite(owner, name, hours, result);
				}, this)) ])
			]),
			result
		]);
	},

	field: function(title, input) {
		return E('div', { 'class': 'cbi-value' }, [
			E('label', { 'class': 'cbi-value-title' }, [ title ]),
			E('div', { 'class': 'cbi-value-field' }, [ input ])
		]);
	},

	invite: function(owner, name, hours, result) {
		const first = isNew(owner);
		const who = first ? name.value.trim() : owner.value;
		const user = first ? calls.createUser(who) : Promise.resolve({});

		return parts.change(user.then(function(answer) {
			if (answer.error)
				return answer;
			if (first) {
				owner.insertBefore(E('option', { 'value': who }, [ parts.name(who) ]), owner.lastElementChild);
				owner.selectedIndex = owner.options.length - 2;
				owner.dispatchEvent(new Event('change'));
			}
			return calls.invite(who, +hours.value);
		}), L.bind(function(invite) {
			parts.replace(result, [ this.renderInvite(invite) ]);
			result.scrollIntoView({ block: 'nearest' });
		}, this));
	},

	renderInvite: function(invite) {
		const isWeb = /^https?:\/\//.test(invite.join_url);
		return E('div', { 'class': 'cbi-section' }, [
			E('h3', {}, [ _('Invitation for a device of %s, valid until %s').format(parts.name(invite.user), parts.moment(invite.expiration)) ]),
			invite.qr.length ? E('p', {}, [ parts.qr(invite.qr) ]) : '',
			E('p', {}, [ _('The QR code opens this page with instructions for each system. Open it on the device that is to join:') ]),
			this.copyable(invite.join_url, 'hearth-link'),
			isWeb ? E('p', {}, [ E('a', { 'href': invite.join_url, 'target': '_blank', 'rel': 'noreferrer noopener' }, [ _('Open the page') ]) ]) : '',
			E('p', {}, [ _('Or run on a computer with the Tailscale client, as administrator:') ]),
			this.copyable(invite.command, 'hearth-command'),
			E('p', {}, [ E('em', {}, [ _('This key is shown only once; hearth stores only its hash.') ]) ]),
			E('p', {}, [
				_('If an app shows a page “A device asks to join” instead, enter the key there, or approve the device here:'), ' ',
				E('a', { 'href': L.url('admin/services/hearth/devices') }, [ _('Devices') ])
			])
		]);
	},

	// A text with a button that copies it. Browsers offer the clipboard to pages over HTTPS only, so the text
	// is selected and copied the old way.
	copyable: function(text, id) {
		const field = E('input', {
			'type': 'text',
			'id': id,
			'class': 'cbi-input-text',
			'readonly': '',
			'style': 'flex:1;min-width:10em;max-width:60em;width:auto;font-family:monospace',
			'value': text,
			'focus': function() { field.select(); }
		});
		const button = E('button', {
			'class': 'btn cbi-button',
			'type': 'button',
			'click': function() {
				field.select();
				if (document.execCommand('copy'))
					button.textContent = _('Copied');
			}
		}, [ _('Copy') ]);
		return E('div', { 'style': 'display:flex;flex-wrap:wrap;gap:.4em;align-items:center' }, [ field, button ]);
	}
});
