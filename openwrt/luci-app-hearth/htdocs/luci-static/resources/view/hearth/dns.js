'use strict';
'require view';
'require hearth.calls as calls';
'require hearth.parts as parts';

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return calls.records();
	},

	render: function(answer) {
		this.place = E('div', {});
		this.show(answer);
		return E([], [
			E('h2', {}, [ _('DNS') ]),
			E('p', {}, [
				_('DNS records for all devices, in addition to the MagicDNS names.'), ' ',
				E('a', { 'href': L.url('admin/services/hearth/settings') }, [ _('DNS settings') ])
			]),
			this.place
		]);
	},

	refresh: function() {
		return calls.records().then(L.bind(this.show, this));
	},

	show: function(answer) {
		if (answer.error) {
			parts.replace(this.place, [ parts.problem(answer) ]);
			return;
		}
		parts.replace(this.place, [
			E('div', { 'class': 'cbi-section', 'id': 'hearth-records' }, [
				parts.table([ _('Name'), _('Type'), _('Value'), _('Resolves to'), _('Source'), '' ],
					answer.records.map(L.bind(this.row, this)), _('No records yet.')),
				parts.leftOut(answer)
			]),
			this.renderAdd()
		]);
	},

	row: function(record) {
		const sources = {
			api: _('This page'),
			configuration: _('Settings'),
			policy: _('Policy'),
			file: _('Records file')
		};
		const isOwn = record.source == 'api';
		return {
			cells: [
				[ E('strong', {}, [ parts.words(record.name, 253) ]) ],
				[ parts.words(record.type) ],
				[ parts.words(record.value, 253) ],
				record.addresses.length ? parts.lines(record.addresses) : [ parts.label(_('unresolved'), 'warning') ],
				[ sources[record.source] || parts.words(record.source) ],
				[ isOwn ? parts.button(_('Delete'), 'remove', L.bind(function() {
					parts.confirm(_('Delete %s?').format(parts.name(record.name)),
						_('Devices can no longer resolve this name.'), _('Delete'), L.bind(function() {
							return parts.change(calls.deleteRecord(record.name, record.type, record.value), L.bind(this.refresh, this));
						}, this));
				}, this)) : '' ]
			]
		};
	},

	renderAdd: function() {
		const field = function(title, input, help) {
			return E('div', { 'class': 'cbi-value' }, [
				E('label', { 'class': 'cbi-value-title', 'for': input.id }, [ title ]),
				E('div', { 'class': 'cbi-value-field' }, [ input, help ? E('div', { 'class': 'cbi-value-description' }, [ help ]) : '' ])
			]);
		};
		const name = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'id': 'hearth-record-name', 'maxlength': 253, 'placeholder': 'printer' });
		const value = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'id': 'hearth-record-value', 'maxlength': 253, 'placeholder': '192.168.1.20' });
		return E('div', { 'class': 'cbi-section' }, [
			E('h3', {}, [ _('New record') ]),
			field(_('Name'), name, _('Names without a dot are placed in the MagicDNS domain.')),
			field(_('Value'), value, _('IPv4 or IPv6 address, or the name of a device (alias).')),
			E('p', {}, [ parts.button(_('Add'), 'add', L.bind(function() {
				return parts.change(calls.addRecord(name.value.trim(), '', value.value.trim()), L.bind(this.refresh, this));
			}, this)) ])
		]);
	}
});
