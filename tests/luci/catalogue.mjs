// The catalogues of translations.
//
//   node catalogue.mjs           checks them: all strings of the pages are in the template, German is complete
//   node catalogue.mjs --write   rewrites the template and updates the translations
//
// The form is that of gettext as LuCI's po2lmo reads it: one msgid and one msgstr a string.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const app = join(dirname(fileURLToPath(import.meta.url)), '../../openwrt/luci-app-hearth');
const template = join(app, 'po/templates/hearth.pot');
// Languages that have to be whole, and their rule of plurals.
const languages = { de: 'nplurals=2; plural=n != 1;' };
const HEAD = 'Content-Type: text/plain; charset=UTF-8';

const files = (folder, ending) => readdirSync(join(app, folder), { recursive: true })
	.filter(name => name.endsWith(ending)).sort().map(name => join(app, folder, name));

// Every string that is translated, and the files that it is in.
export function strings() {
	const found = new Map();
	const add = (text, file) => found.set(text, (found.get(text) ?? new Set()).add(relative(app, file)));

	for (const file of files('htdocs', '.js')) {
		const source = readFileSync(file, 'utf8');
		for (const [ , rest ] of source.matchAll(/(?<![\w$.])_\((?=(.*))/g)) {
			const literal = rest.match(/^\s*'((?:[^'\\]|\\.)*)'\s*\)/)?.[1];
			if (literal === undefined)
				throw new Error(`${relative(app, file)}: _() takes one text in single quotes, not ${rest.slice(0, 60)}`);
			add(literal.replace(/\\(.)/g, '$1'), file);
		}
	}
	for (const file of files('root/usr/share/luci/menu.d', '.json'))
		for (const entry of Object.values(JSON.parse(readFileSync(file, 'utf8'))))
			add(entry.title, file);
	for (const file of files('root/usr/share/rpcd/acl.d', '.json'))
		for (const entry of Object.values(JSON.parse(readFileSync(file, 'utf8'))))
			add(entry.description, file);
	return new Map([ ...found ].sort(([ one ], [ other ]) => one < other ? -1 : 1));
}

const quoted = text => JSON.stringify(text);

// The template, or the catalogue of a language.
function written(found, translated, language) {
	const head = language
		? [ '""', ...[ `Language: ${language}`, HEAD, 'Content-Transfer-Encoding: 8bit', `Plural-Forms: ${languages[language]}` ]
			.map(line => quoted(line + '\n')) ].join('\n')
		: quoted(HEAD);
	const entries = [ ...found ].map(([ text, places ]) =>
		[ ...[ ...places ].sort().map(place => `#: ${place}`), `msgid ${quoted(text)}`, `msgstr ${quoted(translated(text))}` ].join('\n'));
	return [ `msgid ""\nmsgstr ${head}`, ...entries ].join('\n\n') + '\n';
}

// The translations of a catalogue.
export function read(file) {
	let text;
	try { text = readFileSync(file, 'utf8'); }
	catch { return new Map(); }
	const line = '"(?:[^"\\\\]|\\\\.)*"';
	return new Map([ ...text.matchAll(new RegExp(`^msgid (${line})\\nmsgstr (${line})$`, 'gm')) ]
		.map(([ , id, translation ]) => [ JSON.parse(id), JSON.parse(translation) ]).filter(([ id ]) => id));
}

const placeholders = text => [ ...text.matchAll(/%(?:\d+\.\dm)?[sdB%]/g) ].map(([ one ]) => one).join(' ');

// What is wrong with the catalogues.
export function faults() {
	const found = strings(), wrong = [];
	const expected = written(found, () => '');
	let there = '';
	try { there = readFileSync(template, 'utf8'); }
	catch { /* that is a fault too */ }
	if (there != expected)
		wrong.push(`${relative(app, template)} is not what the pages say: run tests/luci/catalogue.mjs --write`);
	for (const language in languages) {
		const file = join(app, 'po', language, 'hearth.po');
		const known = read(file);
		for (const text of found.keys())
			if (!known.get(text))
				wrong.push(`${relative(app, file)} has no translation of ${quoted(text)}`);
			else if (placeholders(known.get(text)) != placeholders(text))
				wrong.push(`${relative(app, file)}: ${quoted(known.get(text))} has other placeholders than ${quoted(text)}`);
		for (const text of known.keys())
			if (!found.has(text))
				wrong.push(`${relative(app, file)} translates ${quoted(text)}, which no page says`);
	}
	return wrong;
}

if (process.argv[1] == fileURLToPath(import.meta.url)) {
	if (process.argv[2] == '--write') {
		const found = strings();
		writeFileSync(template, written(found, () => ''));
		for (const language in languages) {
			const file = join(app, 'po', language, 'hearth.po'), known = read(file);
			writeFileSync(file, written(found, text => known.get(text) ?? '', language));
		}
	}
	const wrong = faults();
	wrong.forEach(fault => console.error(fault));
	console.log(`${strings().size} strings, ${wrong.length} faults`);
	process.exitCode = wrong.length ? 1 : 0;
}
