'use strict';
'require baseclass';
'require dom';
'require ui';

// Building blocks of the pages.
//
// Devices choose their names, so every text reaches the page as a text node. With LuCI that means: children
// are always given as a list, since a lone string is taken for HTML.

// Control characters, and invisible or bidirectional formatting characters: with them a name could pass for
// another one.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

// Maximum length of a name in a table: that of a DNS label (RFC 1035 section 2.3.4).
const NAME = 63;

// Options of /etc/config/hearth, as messages of hearth name them. Not a part of a host name or path.
const SETTING = /(^|[^\w.\/:-])(server_url|base_domain|data_dir|(?:server|listen|tls|prefixes|node|routes|dns|derp|wan|policy|clients|backup|metrics|log|limits|member)\.[a-z][a-z0-9_]*)(?!\.?[\w-])/g;

// Text for display, cut to `limit` characters.
function words(text, limit) {
	text = String(text == null ? '' : text).replace(UNSEEN, '\ufffd');
	return limit && text.length > limit ? text.slice(0, limit) + '…' : text;
}

function time(text) {
	const parsed = Date.parse(text || '');
	return isNaN(parsed) ? null : new Date(parsed);
}

const faults = {
	off: function() {
		return [ _('hearth is disabled'), _('Enable it on the “Overview” page.') ];
	},
	stopped: function() {
		return [
			_('hearth is not running'),
			_('hearth is enabled but not listening on its socket. It may still be starting; otherwise see the system log.')
		];
	},
	silent: function() {
		return [ _('hearth is not responding'), _('The request timed out. The router may be busy; try again.') ];
	},
	unreadable: function() {
		return [
			_('Unexpected response from hearth'),
			_('The installed versions of hearth and luci-app-hearth may not match.')
		];
	},
	refused: function(message) {
		return [ _('hearth refused the request'), words(message) ];
	},
	invalid: function(message) {
		return [ _('Invalid input'), words(message) ];
	},
	backend: function() {
		return [
			_('The LuCI backend of hearth is not responding'),
			_('Log out of LuCI and log in again. If this persists, restart rpcd: /etc/init.d/rpcd restart')
		];
	}
};

// Headline and explanation of an answer's `error`.
function explained(answer) {
	return (faults[answer.error] || faults.unreadable)(answer.message);
}

return baseclass.extend({
	words: words,

	// Name chosen by a user or device, cut for display in a table.
	name: function(text) {
		return words(text, NAME);
	},

	explained: explained,

	// Whether this session has read access only.
	readonly: function() {
		return !L.hasViewPermission() || null;
	},

	// Link to an option on the settings page, `section.option`.
	setting: function(path, label) {
		return E('a', { 'href': L.url('admin/services/hearth/settings') + '#' + path }, [ label || _('Settings') ]);
	},

	// Links to the options that a message of hearth names.
	settings: function(text) {
		const paths = [];
		Array.from(String(text).matchAll(SETTING)).forEach(function(found) {
			const path = found[2].indexOf('.') < 0 ? 'server.' + found[2] : found[2];
			if (paths.indexOf(path) < 0)
				paths.push(path);
		});
		return paths.map(L.bind(function(path) {
			return E('span', {}, [ ' ', this.setting(path, _('Settings: %s').format(path)) ]);
		}, this));
	},

	// Error box, shown in place of the data that could not be loaded.
	problem: function(answer) {
		const lines = explained(answer);
		const links = [];

		if (answer.problem) {
			lines[1] = words(answer.problem.message);
			if (/^[a-z_]+\.[a-z_]+$/.test(answer.problem.setting))
				links.push(this.setting(answer.problem.setting, _('Settings: %s').format(answer.problem.setting)), ' ');
		}
		if (answer.error == 'off')
			links.push(E('a', { 'href': L.url('admin/services/hearth/overview') }, [ _('Overview') ]));
		if (answer.error == 'stopped' || answer.error == 'silent')
			links.push(E('a', { 'href': L.url('admin/status/logs') }, [ _('System log') ]));
		return E('div', { 'class': 'alert-message warning', 'data-error': answer.error }, [
			E('h4', {}, [ lines[0] ]),
			E('p', { 'style': 'overflow-wrap:anywhere' }, [ lines[1] ]),
			links.length ? E('p', {}, links) : ''
		]);
	},

	// Waits for a change, then calls `then`; on failure shows a notification with the reason.
	change: function(promise, then) {
		return promise.then(function(answer) {
			if (!answer.error)
				return then ? then(answer) : answer;
			const lines = explained(answer);
			ui.addNotification(null, [ E('p', {}, [ E('strong', {}, [ lines[0] ]), ' – ', lines[1] ]) ], 'error');
		});
	},

	// Button. `style` is one of LuCI's: action, apply, remove, …
	button: function(label, style, handler, more) {
		return E('button', Object.assign({
			'class': 'btn cbi-button cbi-button-' + style,
			'type': 'button',
			'click': ui.createHandlerFn(this, handler),
			'disabled': this.readonly()
		}, more || {}), [ label ]);
	},

	// Label. `style`: success, warning, important or notice.
	label: function(text, style) {
		// LuCI's theme uses the same blue for `important` and `notice`.
		const colour = { important: 'background:#b3261e;color:#fff;', notice: 'background:#6b7280;color:#fff;' };
		return E('span', { 'class': 'label ' + style, 'style': (colour[style] || '') + 'margin:0 .4em 0 0' }, [ words(text) ]);
	},

	// Table. Each cell is a list of texts and nodes; `nothing` is shown if there are no rows.
	table: function(titles, rows, nothing) {
		const head = E('tr', { 'class': 'tr table-titles' }, titles.map(function(title) {
			return E('th', { 'class': 'th' }, [ title ]);
		}));
		const body = rows.map(function(row, number) {
			const attributes = Object.assign({ 'class': 'tr cbi-rowstyle-' + (number % 2 + 1) }, row.attributes || {});
			return E('tr', attributes, row.cells.map(function(cell, column) {
				// Names may be long and without a space.
				return E('td', {
					'class': 'td',
					'data-title': titles[column] || null,
					'style': 'overflow-wrap:anywhere;white-space:normal;vertical-align:middle'
				}, cell);
			}));
		});

		if (!rows.length)
			body.push(E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td', 'colspan': titles.length }, [ E('em', {}, [ nothing ]) ]) ]));
		return E('table', { 'class': 'table' }, [ head ].concat(body));
	},

	// Table of names and values; empty values are left out.
	facts: function(pairs) {
		return E('table', { 'class': 'table' }, pairs.filter(function(pair) {
			return pair[1] != null && pair[1] !== '';
		}).map(function(pair) {
			return E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'width': '33%' }, [ pair[0] ]),
				E('td', { 'class': 'td left', 'style': 'overflow-wrap:anywhere;white-space:normal' }, Array.isArray(pair[1]) ? pair[1] : [ words(pair[1]) ])
			]);
		}));
	},

	// One item per line.
	lines: function(list) {
		return list.map(function(item) {
			return E('div', {}, [ words(item, 253) ]);
		});
	},

	// One item per line, such as an address, and none is broken that is not longer than one of IPv6 with its port.
	whole: function(list) {
		return list.map(function(item) {
			const style = item.length <= 47 ? 'white-space:nowrap' : '';
			return E('div', { 'style': style }, [ words(item, 253) ]);
		});
	},

	// Short form of a machine key, by which people compare it: its first ten digits in two groups.
	shortKey: function(text) {
		const digits = /^mkey:([0-9a-f]{5})([0-9a-f]{5})[0-9a-f]*$/.exec(text);
		return digits ? digits[1] + '-' + digits[2] : words(text, 20);
	},

	// Note about entries left out of a list.
	leftOut: function(answer) {
		return answer.left_out > 0
			? E('p', {}, [ E('em', {}, [ _('%d more entries are not shown because the list is too long for this page. The command line lists all of them.').format(answer.left_out) ]) ])
			: '';
	},

	// Duration in the largest unit that fits.
	span: function(seconds) {
		const units = [ [ 86400, _('%d d') ], [ 3600, _('%d h') ], [ 60, _('%d min') ] ];
		for (let i = 0; i < units.length; i++)
			if (seconds >= units[i][0])
				return units[i][1].format(Math.floor(seconds / units[i][0]));
		return _('%d s').format(Math.max(0, Math.floor(seconds)));
	},

	// Time since `text`.
	ago: function(text) {
		const when = time(text);
		return when ? _('%s ago').format(this.span((Date.now() - when) / 1000)) : '–';
	},

	// Local date and time.
	moment: function(text) {
		const when = time(text);
		return when ? when.toLocaleString() : '–';
	},

	// Whether a time is in the past; `null` if it is not set.
	hasPassed: function(text) {
		const when = time(text);
		return when ? when <= Date.now() : null;
	},

	// Asks for confirmation. `yes` returns a promise.
	confirm: function(title, text, label, yes) {
		ui.showModal([ title ], [
			E('p', {}, [ text ]),
			E('div', { 'class': 'right button-row' }, [
				E('button', { 'class': 'btn', 'type': 'button', 'click': ui.hideModal }, [ _('Cancel') ]), ' ',
				this.button(label, 'negative important', function() {
					return Promise.resolve(yes()).then(ui.hideModal);
				})
			])
		]);
	},

	// The QR code of `rows` (a dark module is 1), with its quiet zone, dark on light on every theme.
	qr: function(rows) {
		const svg = 'http://www.w3.org/2000/svg';
		const quiet = 4, side = rows.length + 2 * quiet;
		let path = '';

		rows.forEach(function(row, y) {
			for (let x = 0; x < row.length; x++)
				if (row.charAt(x) == '1')
					path += 'M' + (x + quiet) + ' ' + (y + quiet) + 'h1v1h-1z';
		});

		const drawing = document.createElementNS(svg, 'svg');
		const dark = document.createElementNS(svg, 'path');
		drawing.setAttribute('viewBox', '0 0 ' + side + ' ' + side);
		drawing.setAttribute('role', 'img');
		drawing.setAttribute('aria-label', _('QR code'));
		drawing.setAttribute('shape-rendering', 'crispEdges');
		drawing.setAttribute('style', 'background:#fff;width:100%;max-width:20em;display:block');
		dark.setAttribute('d', path);
		dark.setAttribute('fill', '#000');
		drawing.appendChild(dark);
		return drawing;
	},

	// Replaces the children of `place`.
	replace: function(place, nodes) {
		dom.content(place, nodes);
	}
});
