'use strict';
'require baseclass';
'require dom';
'require ui';

// Pieces that the pages are made of.
//
// Devices choose their names, so every text reaches the page as a text node. With LuCI that means: children
// are always given as a list, since a lone string is taken for HTML.

// Control characters, and those that turn the direction of a line around or are not seen: with them a name
// could pass for another one.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

// Letters of a name in a table: those of a label in DNS (RFC 1035 section 2.3.4).
const NAME = 63;

// A text as it is shown, at most `limit` letters of it.
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
		return [ _('hearth is switched off'), _('Switch it on at the page “Overview”.') ];
	},
	stopped: function() {
		return [
			_('hearth does not run'),
			_('It is switched on, but nobody answers at its socket. It may be starting; else the system log tells why.')
		];
	},
	silent: function() {
		return [ _('hearth does not answer'), _('It runs, but gave no answer in time. The router may be busy: try again.') ];
	},
	unreadable: function() {
		return [
			_('hearth gave an answer that this page does not understand'),
			_('Are hearth and luci-app-hearth of different versions?')
		];
	},
	refused: function(message) {
		return [ _('hearth says no'), words(message) ];
	},
	invalid: function(message) {
		return [ _('That cannot be right'), words(message) ];
	},
	backend: function() {
		return [
			_('The backend of this page does not answer'),
			_('Log out and in again. If that does not help, restart rpcd: /etc/init.d/rpcd restart')
		];
	}
};

// Headline and explanation of an answer's `error`.
function explained(answer) {
	return (faults[answer.error] || faults.unreadable)(answer.message);
}

return baseclass.extend({
	words: words,

	// A name that somebody chose, no longer than a table can bear.
	name: function(text) {
		return words(text, NAME);
	},

	explained: explained,

	// Whether this session may look only.
	readonly: function() {
		return !L.hasViewPermission() || null;
	},

	// A box in the place of what an answer should have held.
	problem: function(answer) {
		const lines = explained(answer);
		const log = answer.error == 'stopped' || answer.error == 'silent';

		return E('div', { 'class': 'alert-message warning', 'data-error': answer.error }, [
			E('h4', {}, [ lines[0] ]),
			E('p', {}, [ lines[1] ]),
			log ? E('p', {}, [ E('a', { 'href': L.url('admin/status/logs') }, [ _('System log') ]) ]) : ''
		]);
	},

	// Carries out a change. When it went well `then` is done, else a box at the top says why not.
	change: function(promise, then) {
		return promise.then(function(answer) {
			if (!answer.error)
				return then ? then(answer) : answer;
			const lines = explained(answer);
			ui.addNotification(null, [ E('p', {}, [ E('strong', {}, [ lines[0] ]), ' – ', lines[1] ]) ], 'error');
		});
	},

	// A button. `style` is one of LuCI's: action, apply, remove, …
	button: function(label, style, handler, more) {
		return E('button', Object.assign({
			'class': 'btn cbi-button cbi-button-' + style,
			'type': 'button',
			'click': ui.createHandlerFn(this, handler),
			'disabled': this.readonly()
		}, more || {}), [ label ]);
	},

	// A short word with a colour: success, warning, important or notice.
	label: function(text, style) {
		// LuCI's theme has the same blue for what is important and what is a mere notice.
		const colour = { important: 'background:#b3261e;color:#fff;', notice: 'background:#6b7280;color:#fff;' };
		return E('span', { 'class': 'label ' + style, 'style': (colour[style] || '') + 'margin:0 .4em 0 0' }, [ words(text) ]);
	},

	// A table. Each cell is a list of texts and nodes. Without rows `nothing` is shown.
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
					'data-title': titles[column],
					'style': 'overflow-wrap:anywhere;white-space:normal;vertical-align:middle'
				}, cell);
			}));
		});

		if (!rows.length)
			body.push(E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td', 'colspan': titles.length }, [ E('em', {}, [ nothing ]) ]) ]));
		return E('table', { 'class': 'table' }, [ head ].concat(body));
	},

	// Names and values, without those that have none.
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

	// One thing a line.
	lines: function(list) {
		return list.map(function(item) {
			return E('div', {}, [ words(item, 253) ]);
		});
	},

	// What a list left out for its length.
	leftOut: function(answer) {
		return answer.left_out > 0
			? E('p', {}, [ E('em', {}, [ _('%d more are not shown: the list is too long for this page. The command line shows all.').format(answer.left_out) ]) ])
			: '';
	},

	// How long, in the largest unit that fits.
	span: function(seconds) {
		const units = [ [ 86400, _('%d d') ], [ 3600, _('%d h') ], [ 60, _('%d min') ] ];
		for (let i = 0; i < units.length; i++)
			if (seconds >= units[i][0])
				return units[i][1].format(Math.floor(seconds / units[i][0]));
		return _('%d s').format(Math.max(0, Math.floor(seconds)));
	},

	// A moment that has passed.
	ago: function(text) {
		const when = time(text);
		return when ? _('%s ago').format(this.span((Date.now() - when) / 1000)) : '–';
	},

	// A moment by the clock of the browser.
	moment: function(text) {
		const when = time(text);
		return when ? when.toLocaleString() : '–';
	},

	// Whether a moment has passed; `null` when there is none.
	hasPassed: function(text) {
		const when = time(text);
		return when ? when <= Date.now() : null;
	},

	// Asks before something that cannot be undone. `yes` gives a promise.
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

	// Puts other nodes in the place of those in `place`.
	replace: function(place, nodes) {
		dom.content(place, nodes);
	}
});
