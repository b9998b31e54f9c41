'use strict';
// As much of LuCI's runtime as the pages of hearth use: the loader of modules, the making of nodes, calls on
// ubus, dialogs and forms. Written from LuCI's documentation of its interface. What is dangerous there is
// dangerous here too: a lone text as the child of a node is taken for HTML.

function dom_append(node, children) {
	if (Array.isArray(children)) {
		for (const child of children)
			if (child instanceof Node)
				node.appendChild(child);
			else if (child !== null && child !== undefined)
				node.appendChild(document.createTextNode(String(child)));
	}
	else if (children instanceof Node) {
		node.appendChild(children);
	}
	else if (children !== null && children !== undefined) {
		window.textsAsHtml = (window.textsAsHtml ?? 0) + 1;
		node.innerHTML = String(children);
	}
}

function E(tag, attributes, children) {
	if (!attributes || Array.isArray(attributes) || attributes instanceof Node || typeof attributes != 'object') {
		children = attributes;
		attributes = {};
	}
	let node;
	if (Array.isArray(tag)) {
		node = document.createDocumentFragment();
		// As in LuCI the second list holds the children.
		tag.forEach(one => dom_append(node, [ one ]));
	}
	else if (tag.startsWith('<')) {
		node = document.createElement('template');
		node.innerHTML = tag;
		node = node.content.firstChild;
	}
	else {
		node = document.createElement(tag);
	}
	for (const [ key, value ] of Object.entries(attributes))
		if (typeof value == 'function')
			node.addEventListener(key, value);
		else if (value !== null && value !== undefined)
			node.setAttribute(key, typeof value == 'object' ? JSON.stringify(value) : value);
	dom_append(node, children);
	return node;
}

function _(text) { return window.TR?.[text] ?? text; }

// %s, %d and the sizes of LuCI's %1024.1mB.
String.prototype.format = function(...values) {
	return this.replace(/%(1024\.(\d)mB|[sd%])/g, (whole, kind, digits) => {
		if (kind == '%')
			return '%';
		const value = values.shift();
		if (kind == 's')
			return String(value);
		if (kind == 'd')
			return String(Math.trunc(value));
		let size = Number(value), unit = 0;
		for (; size >= 1024 && unit < 4; unit++)
			size /= 1024;
		return size.toFixed(unit ? digits : 0) + ' ' + [ '', 'Ki', 'Mi', 'Gi', 'Ti' ][unit] + 'B';
	});
};

class LuCI {
	constructor(environment) {
		this.env = environment;
		this.modules = new Map();
		window.L = this;
	}

	bind(fn, self, ...args) { return Function.prototype.bind.apply(fn, [ self, ...args ]); }
	url(...parts) { return [ this.env.scriptname, ...parts ].join('/').replace(/\/+/g, '/'); }
	hasViewPermission() { return this.env.nodespec.satisfied ? !this.env.nodespec.readonly : null; }

	require(name) {
		if (!this.modules.has(name))
			this.modules.set(name, name in BUILTIN ? Promise.resolve(BUILTIN[name](this)) : this.#load(name));
		return this.modules.get(name);
	}

	async #load(name) {
		const path = `${this.env.resource}/${name.replace(/\./g, '/')}.js`;
		const answer = await fetch(path);
		if (!answer.ok)
			throw new Error(`${path}: ${answer.status}`);
		const source = await answer.text();
		const names = [], values = [];
		for (const [ , wanted, alias ] of source.matchAll(/^'require ([\w.-]+)(?: as (\w+))?';$/gm)) {
			names.push(alias ?? wanted.replace(/[^\w]/g, '_'));
			values.push(await this.require(wanted));
		}
		const made = new Function('window', 'document', 'L', ...names, source + `\n//# sourceURL=${path}`)(window, document, this, ...values);
		return new made();
	}
}

const CLASS = {
	extend(members) {
		const parent = this;
		const made = function(...args) {
			if (typeof this.__init__ == 'function')
				this.__init__(...args);
		};
		made.prototype = Object.assign(Object.create(parent.prototype ?? Object.prototype), members);
		made.extend = CLASS.extend;
		return made;
	}
};

const BUILTIN = {
	baseclass: () => CLASS,
	dom: () => ({
		append: dom_append,
		content(node, children) {
			node.textContent = '';
			dom_append(node, children);
		}
	}),
	poll: () => ({
		add(fn, seconds) {
			setInterval(fn, seconds * 1000);
		}
	}),
	rpc: L => ({
		declare: wish => async (...args) => {
			const given = Object.fromEntries((wish.params ?? []).map((name, i) => [ name, args[i] ]).filter(pair => pair[1] !== undefined));
			const answer = await fetch(L.env.ubuspath, { method: 'POST', body: JSON.stringify({
				jsonrpc: '2.0', id: 1, method: 'call', params: [ L.env.sessionid, wish.object, wish.method, given ]
			}) });
			const reply = await answer.json();
			if (reply.error)
				throw new Error(`RPC call to ${wish.object}/${wish.method} failed: ${reply.error.message}`);
			const result = reply.result.length > 1 ? reply.result[1] : reply.result[0];
			const [ key, usual ] = Object.entries(wish.expect ?? { '': {} })[0];
			const value = key == '' ? result : result?.[key];
			return typeof value == typeof usual && value !== null ? value : usual;
		}
	}),
	ui: L => {
		const overlay = E('div', { id: 'modal_overlay' }, [ E('div', { class: 'modal', role: 'dialog' }) ]);
		document.body.appendChild(overlay);
		const ui = {
			createHandlerFn(self, fn, ...args) {
				fn = typeof fn == 'string' ? self[fn] : fn;
				return function(event) {
					const button = event.currentTarget;
					button.disabled = true;
					Promise.resolve(fn.apply(self, [ ...args, event ])).finally(() => { button.disabled = false; });
				};
			},
			showModal(title, children) {
				const dialog = overlay.firstElementChild;
				dialog.textContent = '';
				dom_append(dialog, [ E('h4', {}, title) ]);
				dom_append(dialog, children);
				document.body.classList.add('modal-overlay-active');
			},
			hideModal() { document.body.classList.remove('modal-overlay-active'); },
			addNotification(title, children, ...classes) {
				const box = E('div', { class: 'alert-message ' + classes.join(' ') });
				if (title !== null)
					box.appendChild(E('h4', {}, title));
				dom_append(box, children);
				document.getElementById('maincontent').prepend(box);
			},
			async instantiateView(name) {
				await L.require('view.' + name.replace(/\//g, '.'));
			}
		};
		return ui;
	},
	view: () => {
		const made = CLASS.extend({
			async __init__() {
				const place = document.getElementById('view');
				place.textContent = 'Loading view…';
				try {
					const node = await this.render(await this.load?.());
					place.textContent = '';
					dom_append(place, [ node ]);
					if (this.handleSave !== null)
						place.appendChild(E('div', { class: 'cbi-page-actions' }, [
							E('button', { class: 'cbi-button cbi-button-save', click: () => document.querySelector('.cbi-map').save() }, [ 'Save' ])
						]));
				}
				catch (error) {
					console.error(error.stack);
					place.textContent = String(error);
				}
			}
		});
		return made;
	},
	uci: L => {
		const values = {}, changes = [];
		const call = async (method, args) => {
			const rpc = await L.require('rpc');
			return rpc.declare({ object: 'uci', method, params: Object.keys(args) })(...Object.values(args));
		};
		return {
			async load(config) { values[config] ??= (await call('get', { config })).values; },
			get: (config, section, option) => option ? values[config]?.[section]?.[option] : values[config]?.[section] ?? null,
			sections: (config, type) => Object.values(values[config] ?? {}).filter(one => one['.type'] == type),
			add(config, type, name) {
				values[config][name] = { '.type': type, '.name': name };
				changes.push([ 'add', { config, type, name } ]);
				return name;
			},
			set(config, section, option, value) {
				values[config][section][option] = value;
				changes.push([ 'set', { config, section, values: { [option]: value } } ]);
			},
			unset(config, section, option) {
				delete values[config][section][option];
				changes.push([ 'delete', { config, section, options: [ option ] } ]);
			},
			async save() {
				for (const [ method, args ] of changes.splice(0))
					await call(method, args);
			}
		};
	},
	form: async L => {
		const uci = await L.require('uci'), ui = await L.require('ui');

		class Option {
			enabled = '1';
			disabled = '0';
			constructor(section, name, title, description) {
				Object.assign(this, { section, name, title, description, choices: [] });
			}
			value(key, label) { this.choices.push([ key, label ?? key ]); }
			depends() { }
			get place() { return [ this.section.map.config, this.ucisection ?? this.section.name, this.ucioption ?? this.name ]; }
			get now() { return uci.get(...this.place); }
			render() {
				this.field = this.input();
				return E('div', { class: 'cbi-value', 'data-name': this.name }, [
					E('label', { class: 'cbi-value-title' }, [ this.title ]),
					E('div', { class: 'cbi-value-field' }, [ this.field, E('div', { class: 'cbi-value-description' }, [ this.description ?? '' ]) ])
				]);
			}
			save() {
				const value = this.read(), verdict = this.validate?.(this.place[1], value) ?? true;
				if (verdict !== true)
					throw new Error(`${this.title}: ${verdict}`);
				if (String(value) == String(this.now ?? (this.rmempty ? this.default ?? '' : '')))
					return;
				if (value == '' || (this.rmempty && value === this.default))
					uci.unset(...this.place);
				else
					uci.set(...this.place, value);
			}
		}
		class Value extends Option {
			input() { return E('input', { type: 'text', class: 'cbi-input-text', placeholder: this.placeholder ?? '', value: this.now ?? '' }); }
			read() { return this.field.value; }
		}
		class Flag extends Option {
			input() { return E('input', { type: 'checkbox', checked: (this.now ?? this.default) == this.enabled ? '' : null }); }
			read() { return this.field.checked ? this.enabled : this.disabled; }
		}
		class ListValue extends Option {
			input() {
				return E('select', {}, this.choices.map(([ key, label ]) => E('option', { value: key, selected: key == (this.now ?? '') ? '' : null }, [ label ])));
			}
			read() { return this.field.value; }
		}
		class DynamicList extends Option {
			input() { return E('textarea', { rows: 2, placeholder: this.placeholder ?? '' }, [ [].concat(this.now ?? []).join('\n') ]); }
			read() {
				const lines = this.field.value.split('\n').filter(line => line);
				return lines.length ? lines : '';
			}
		}
		class Section {
			constructor(map, name) { Object.assign(this, { map, name, tabs: [], options: [] }); }
			tab(name, title) { this.tabs.push([ name, title ]); }
			option(type, ...args) {
				const option = new type(this, ...args);
				this.options.push(option);
				return option;
			}
			taboption(tab, ...args) { return Object.assign(this.option(...args), { tab }); }
			render() {
				return E('div', { class: 'cbi-section' }, this.tabs.map(([ name, title ]) => E('fieldset', { 'data-tab': name }, [
					E('legend', {}, [ title ]), ...this.options.filter(option => option.tab == name).map(option => option.render())
				])));
			}
		}
		class GridSection extends Section {
			render() {
				return E('table', { class: 'table' }, [
					E('tr', {}, this.options.map(option => E('th', {}, [ option.title ]))),
					...uci.sections(this.map.config, this.name).map(one => E('tr', {}, this.options.map(option => E('td', {}, [ [].concat(one[option.name] ?? '').join(', ') ]))))
				]);
			}
		}
		class SectionValue extends Option {
			constructor(section, name, type, sectiontype, title, description) {
				super(section, name, title, description);
				this.subsection = new type(section.map, sectiontype);
			}
			input() { return this.subsection.render(); }
			save() { }
		}
		class Map {
			constructor(config, title, description) { Object.assign(this, { config, title, description, sections: [] }); }
			section(type, name) {
				const section = new type(this, name);
				this.sections.push(section);
				return section;
			}
			async render() {
				await uci.load(this.config);
				const node = E('div', { class: 'cbi-map' }, [
					E('h2', {}, [ this.title ]), E('div', { class: 'cbi-map-descr' }, [ this.description ?? '' ]), ...this.sections.map(section => section.render())
				]);
				node.save = async () => {
					try {
						this.sections.forEach(section => section.options.forEach(option => option.save()));
						await uci.save();
					}
					catch (error) {
						ui.addNotification(null, [ E('p', {}, [ error.message ]) ], 'error');
					}
				};
				return node;
			}
		}
		return { Map, NamedSection: Section, GridSection, SectionValue, Value, Flag, ListValue, DynamicList };
	}
};
