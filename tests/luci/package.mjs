// What can be said of the app without running it: node --test package.mjs

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { faults } from './catalogue.mjs';
import { views } from './router.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const app = join(root, 'openwrt/luci-app-hearth');
const text = path => readFileSync(join(app, path), 'utf8');
const resources = 'htdocs/luci-static/resources';
const scripts = readdirSync(join(app, resources), { recursive: true }).filter(name => name.endsWith('.js')).map(name => join(resources, name));
const backend = 'root/usr/share/rpcd/ucode/luci.hearth.uc';

test('each entry of the menu leads to a page, and each page has an entry', () => {
	const menu = JSON.parse(text('root/usr/share/luci/menu.d/luci-app-hearth.json'));
	const paths = Object.values(menu).map(entry => entry.action.path).filter(path => path);
	assert.deepEqual(paths.sort(), views.map(view => `hearth/${view}`).sort());
	for (const path of paths)
		assert.ok(existsSync(join(app, resources, 'view', `${path}.js`)), path);
	const top = menu['admin/services/hearth'];
	assert.deepEqual(top.depends, { acl: [ 'luci-app-hearth' ], uci: { hearth: true } });
});

// Methods of the backend with the names of their arguments.
function methods() {
	const source = text(backend);
	const found = [ ...source.slice(source.indexOf('const methods = {')).matchAll(/^\t(\w+): \{\n(?:\t\targs: \{([^}]*)\},\n)?\t\tcall: function/gm) ];
	return new Map(found.map(([ , name, args ]) => [ name, [ ...(args ?? '').matchAll(/(\w+):/g) ].map(([ , name ]) => name) ]));
}

test('the pages may call exactly the methods that there are, with their arguments', () => {
	const declared = new Map([ ...text(`${resources}/hearth/calls.js`).matchAll(/declare\('(\w+)'(?:, \[([^\]]*)\])?\)/g) ]
		.map(([ , name, args ]) => [ name, [ ...(args ?? '').matchAll(/'(\w+)'/g) ].map(([ , name ]) => name) ]));
	assert.ok(declared.size > 15);
	assert.deepEqual(declared, methods());
});

test('reading and changing are apart in the access list, which names nothing else', () => {
	const { 'luci-app-hearth': list } = JSON.parse(text('root/usr/share/rpcd/acl.d/luci-app-hearth.json'));
	assert.deepEqual(Object.keys(list).sort(), [ 'description', 'read', 'write' ]);
	for (const half of [ list.read, list.write ]) {
		assert.deepEqual(Object.keys(half), [ 'ubus', 'uci' ]);
		assert.deepEqual(Object.keys(half.ubus), [ 'luci.hearth' ]);
		assert.deepEqual(half.uci, [ 'hearth' ]);
	}
	const source = text(backend);
	const changes = name => /\b(post|remove|checked)\(|\.commit\(/.test(
		source.slice(source.search(new RegExp(`^\t${name}: \\{`, 'm'))).split(/^\t\},?$/m)[0]);
	const all = [ ...methods().keys() ];
	assert.deepEqual(list.read.ubus['luci.hearth'].slice().sort(), all.filter(name => !changes(name)).sort());
	assert.deepEqual(list.write.ubus['luci.hearth'].slice().sort(), all.filter(changes).sort());
});

test('the backend runs no program and builds no code', () => {
	assert.ok(!/\b(system|popen|loadstring|loadfile|render|include|require)\s*\(/.test(text(backend)));
	const imported = [ ...text(backend).matchAll(/^import .* from '(\w+)';$/gm) ].map(([ , name ]) => name);
	const depends = text('Makefile').match(/LUCI_DEPENDS:=(.*)/)[1].split(' ');
	for (const name of imported)
		assert.ok(depends.includes(`+ucode-mod-${name}`), `${name} is missing in the dependencies`);
});

test('the pages make nodes and no HTML', () => {
	for (const script of scripts) {
		const source = text(script);
		assert.ok(!/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|rawhtml/.test(source), script);
		// Text that is not in a list is HTML to LuCI; views.mjs watches the children of nodes in the same way.
		for (const [ whole ] of source.matchAll(/(?:showModal|addNotification)\((?!null|\[)[^\n]*/g))
			assert.fail(`${script}: ${whole}`);
		for (const letter of source)
			assert.ok(letter.codePointAt(0) < 128 || '“”…–→⚠›'.includes(letter), `${script}: ${letter}`);
	}
});

test('all strings of the pages can be translated, and are in German', () => {
	assert.deepEqual(faults(), []);
});

// What stands in grey in an empty field applies: an example there would be taken for it.
test('the settings show defaults in grey and examples in words', () => {
	const source = text(`${resources}/view/hearth/settings.js`);
	assert.ok(!/placeholder = (?!this\.known\[path\] \|\| '')/.test(source));
	const shown = new Map([ ...source.match(/const DEFAULTS = \{([^}]*)\}/)[1].matchAll(/'([\w.]+)': '([^']*)'/g) ].map(([ , path, value ]) => [ path, value ]));
	assert.ok(shown.size > 15);
	const example = new Map(), member = new Map();
	let section = 'server';
	for (const line of readFileSync(join(root, 'hearth.example.toml'), 'utf8').split('\n')) {
		const [ , key, value ] = line.match(/^#([\w.]+) = (.*)$/) ?? [];
		if (key)
			example.set(key.includes('.') ? key : `server.${key}`, value.replace(/^"(.*)"$/, '$1').replace(/^\[::\]:/, ''));
	}
	for (const line of readFileSync(join(root, 'openwrt/hearth/files/hearth.config'), 'utf8').split('\n')) {
		section = line.match(/^config \w+ '(\w+)'/)?.[1] ?? section;
		const [ , key, value ] = line.match(/^\t#?option (\w+) '(.*)'$/) ?? [];
		if (key)
			member.set(`${section}.${key}`, value);
	}
	for (const [ path, value ] of shown) {
		// These two are the package's own; the example shows an address for metrics.
		const own = path.startsWith('member.') || path == 'server.data_dir';
		const expected = path == 'metrics.listen' ? 'off' : (own ? member : example).get(path);
		assert.equal(value, expected, path);
	}
});

test('the settings are those of the configuration that the package installs', t => {
	const path = join(root, 'openwrt/hearth/files/hearth.config');
	if (!existsSync(path))
		return t.skip('there is no openwrt/hearth/files/hearth.config');
	const known = new Set();
	let section;
	for (const line of readFileSync(path, 'utf8').split('\n')) {
		const [ , word, type, name, option ] = line.match(/^\s*#?\s*(?:(config) (\w+)(?: '(.*)')?$|(?:option|list) (\w+) ')/) ?? [];
		if (word)
			section = name ?? type;
		else if (option)
			known.add(`${section}.${option}`);
	}
	const source = text(`${resources}/view/hearth/settings.js`);
	const used = [
		...[ ...source.matchAll(/this\.(?:text|list|flag)\(section, '\w+', '([\w.]+)'/g) ].map(([ , path ]) => path),
		...[ ...source.matchAll(/this\.option\(section, '\w+', form\.\w+, '(\w+)', '(\w+)'/g) ].map(([ , section, name ]) => `${section}.${name}`)
	];
	// For experts, or, as a program to run, not for a page.
	const fileOnly = [
		'derp.region_id', 'derp.region_code', 'derp.region_name', 'derp.region_score', 'derp.mesh_with', 'derp.mesh_key_file',
		'derp.stun_lan_as_wan', 'wan.on_change', 'backup.command', 'dns_record.name', 'dns_record.type', 'dns_record.value', 'dns_split.domain',
		'dns_split.nameservers', 'dns_rule.target', 'dns_rule.nameservers'
	];
	assert.ok(used.length > 50);
	assert.deepEqual(used.filter(name => !known.has(name) && name != 'limits.derp_client_rate'), [], 'the file does not know these');
	assert.deepEqual([ ...known ].filter(name => !used.includes(name) && !fileOnly.includes(name)), [], 'the page has no field for these');
});
