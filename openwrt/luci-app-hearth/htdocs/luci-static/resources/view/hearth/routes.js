'use strict';
'require view';
'require hearth.calls as calls';
'require hearth.parts as parts';

// The two routes of an exit node. hearth approves both when one is named.
const EXIT = [ '0.0.0.0/0', '::/0' ];

function isExit(route) {
	return EXIT.indexOf(route) >= 0;
}

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		return calls.nodes();
	},

	render: function(answer) {
		this.place = E('div', {});
		this.show(answer);
		return E([], [
			E('h2', {}, [ _('Routes') ]),
			E('p', {}, [ _('A subnet behind a device is reachable by others once the device advertises it and you approve it here. Linux clients also need --accept-routes.') ]),
			this.place
		]);
	},

	show: function(answer) {
		if (answer.error) {
			parts.replace(this.place, [ parts.problem(answer) ]);
			return;
		}
		const nodes = answer.nodes.slice().sort(function(a, b) {
			return a.name.localeCompare(b.name, undefined, { numeric: true });
		});
		const routes = [], exits = [];
		nodes.forEach(L.bind(function(node) {
			const known = node.offered.concat(node.approved.filter(function(route) {
				return node.offered.indexOf(route) < 0;
			}));
			const nets = known.filter(function(route) { return !isExit(route); });
			if (nets.length)
				routes.push({
					attributes: { 'data-node': node.id },
					cells: [ this.device(node), nets.map(L.bind(this.box, this, node)) ]
				});
			if (known.some(isExit))
				exits.push({
					attributes: { 'data-node': node.id },
					cells: [ this.device(node), [ this.box(node, EXIT[0]) ] ]
				});
		}, this));
		parts.replace(this.place, [
			E('div', { 'class': 'cbi-section', 'id': 'hearth-subnets' }, [
				E('h3', {}, [ _('Subnet routes') ]),
				parts.table([ _('Device'), _('Advertised routes') ], routes,
					_('No subnet routes advertised. Advertise one on a device with: tailscale set --advertise-routes=192.168.1.0/24'))
			]),
			E('div', { 'class': 'cbi-section', 'id': 'hearth-exits' }, [
				E('h3', {}, [ _('Exit nodes') ]),
				E('p', {}, [ _('Devices can route their internet traffic through an approved exit node.') ]),
				parts.table([ _('Device'), _('Exit node') ], exits,
					_('No exit node advertised. Advertise one on a device with: tailscale set --advertise-exit-node'))
			]),
			parts.leftOut(answer)
		]);
	},

	device: function(node) {
		return [
			E('strong', {}, [ parts.name(node.name) ]), ' ',
			node.online ? parts.label(_('online'), 'success') : parts.label(_('offline'), 'notice'),
			node.unhealthy ? parts.label(_('not responding'), 'warning') : ''
		];
	},

	// Checkbox of one route. Ticking it applies at once; there is nothing to save.
	box: function(node, route) {
		const exit = isExit(route);
		const has = function(list) {
			return exit ? list.some(isExit) : list.indexOf(route) >= 0;
		};
		const word = !has(node.approved) ? [ _('awaiting approval'), 'warning' ]
			: !has(node.offered) ? [ _('not advertised'), 'notice' ]
			: has(node.serving) ? [ _('active'), 'success' ]
			: [ _('standby'), 'notice' ];
		const box = E('input', {
			'type': 'checkbox',
			'data-route': route,
			'checked': has(node.approved) ? '' : null,
			'disabled': parts.readonly(),
			'change': L.bind(function() { return this.approve(node, route, box); }, this)
		});
		return E('div', { 'style': 'margin:.2em 0' }, [
			E('label', {}, [ box, ' ', exit ? _('all internet traffic') : parts.name(route), ' ' ]),
			parts.label(word[0], word[1])
		]);
	},

	approve: function(node, route, box) {
		const rest = node.approved.filter(function(other) {
			return isExit(route) ? !isExit(other) : other != route;
		});
		// Two concurrent changes of one device would overwrite each other.
		this.place.querySelectorAll('input[type=checkbox]').forEach(function(other) { other.disabled = true; });
		const routes = box.checked ? rest.concat([ route ]) : rest;
		return parts.change(calls.setRoutes(node.id, routes)).then(L.bind(function() {
			return calls.nodes().then(L.bind(this.show, this));
		}, this));
	}
});
