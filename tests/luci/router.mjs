// A router as far as LuCI's pages see it: serves the files, and answers /ubus with canned answers.
//
// With `resources` (a folder luci-static/resources of a real LuCI, see tests/luci/run) its own runtime is
// served instead of the stub in stub/.

import { readFileSync, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const app = join(here, '../../openwrt/luci-app-hearth/htdocs');
const types = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.gif': 'image/gif', '.png': 'image/png' };

export const views = [ 'overview', 'devices', 'invite', 'routes', 'dns', 'audit', 'settings' ];

export class Router {
	// Calls of the pages: [ object, method, arguments ].
	calls = [];
	// Translations for the stub's `_()`; a real LuCI brings its own.
	translations = {};

	constructor(resources, theme) {
		this.resources = resources;
		this.theme = theme;
	}

	// `scenario` answers the backend's methods: objects, or functions of the arguments.
	async start(scenario) {
		this.scenario = scenario;
		this.readonly = false;
		this.server = createServer((request, response) => this.#answer(request, response));
		await new Promise(resolve => this.server.listen(0, '127.0.0.1', resolve));
		this.url = `http://127.0.0.1:${this.server.address().port}`;
	}

	play(scenario, readonly = false) {
		this.scenario = scenario;
		this.readonly = readonly;
		this.calls = [];
	}

	view(name) {
		return `${this.url}/cgi-bin/luci/admin/services/hearth/${name}`;
	}

	// Waits until `is` holds of the calls so far.
	until(is, what) {
		if (is())
			return Promise.resolve();
		return new Promise((resolve, reject) => {
			const late = setTimeout(() => reject(new Error(`timed out waiting for ${what}; got ${JSON.stringify(this.calls)}`)), 60000);
			this.waiting = () => {
				if (is()) {
					clearTimeout(late);
					this.waiting = null;
					resolve();
				}
			};
		});
	}

	stop() {
		this.server.closeAllConnections();
		return new Promise(resolve => this.server.close(resolve));
	}

	#answer(request, response) {
		const path = new URL(request.url, this.url).pathname;
		const send = (type, body, status = 200) => {
			response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
			response.end(body);
		};

		if (request.method == 'POST') {
			let body = '';
			request.setEncoding('utf8').on('data', text => body += text).on('end', () => {
				const asked = JSON.parse(body);
				const answers = [ asked ].flat().map(one => this.#ubus(one));
				send('application/json', JSON.stringify(Array.isArray(asked) ? answers : answers[0]));
			});
			return;
		}
		const view = path.match(/^\/cgi-bin\/luci\/admin\/services\/hearth\/([a-z]+)$/)?.[1];
		if (view)
			return send('text/html; charset=utf-8', this.#page(view));
		const file = this.#file(normalize(path));
		if (file)
			return send(types[extname(file)] ?? 'application/octet-stream', readFileSync(file));
		send('text/plain', 'not found', 404);
	}

	#file(path) {
		const wanted = path.replace(/^\/luci-static\//, '');
		if (wanted == path)
			return null;
		const places = [ join(app, 'luci-static', wanted) ];
		const resource = wanted.replace(/^resources\//, '');
		if (this.resources && resource != wanted)
			places.push(join(this.resources, resource));
		if (this.theme && wanted.startsWith('bootstrap/'))
			places.push(join(this.theme, wanted));
		if (wanted.startsWith('stub/'))
			places.push(join(here, wanted));
		return places.find(place => existsSync(place) && extname(place));
	}

	#page(view) {
		const environment = JSON.stringify({
			media: '/luci-static/bootstrap', resource: '/luci-static/resources', scriptname: '/cgi-bin/luci',
			pathinfo: `/admin/services/hearth/${view}`, documentroot: '/www', requestpath: [ 'admin', 'services', 'hearth', view ],
			dispatchpath: [ 'admin', 'services', 'hearth', view ], pollinterval: 5, ubuspath: '/ubus/', sessionid: '0'.repeat(32),
			token: '0'.repeat(32), nodespec: { satisfied: true, readonly: this.readonly, action: { type: 'view' } },
			apply_rollback: 90, apply_holdoff: 4, apply_timeout: 5, apply_display: 1.5, rollback_token: null
		});
		const tabs = views.map(name => `<li class="${name == view ? 'active' : ''}"><a href="${name}">${name}</a></li>`).join('');
		const scripts = this.resources
			? `<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
				<link rel="stylesheet" media="only screen and (max-device-width: 854px)" href="/luci-static/bootstrap/mobile.css">
				<script src="/luci-static/resources/cbi.js"></script>
				<script src="/luci-static/resources/luci.js"></script>`
			: `<link rel="stylesheet" href="/luci-static/stub/theme.css">
				<script>window.TR = ${JSON.stringify(this.translations).replaceAll('<', '\\u003c')};</script>
				<script src="/luci-static/stub/luci.js"></script>`;
		return `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>${view}</title>
			<meta name="viewport" content="width=device-width, initial-scale=1">${scripts}
			<script>L = new LuCI(${environment});</script></head>
			<body><header><a class="brand" href="/">OpenWrt</a></header>
			<div id="maincontent" class="container"><ul class="tabs">${tabs}</ul><div id="view"></div></div>
			<script>L.require('ui').then(function(ui) { ui.instantiateView('hearth/${view}'); });</script></body></html>`;
	}

	#note(object, name, given) {
		this.calls.push([ object, name, JSON.parse(JSON.stringify(given)) ]);
		this.waiting?.();
	}

	// Source of the codes: enum ubus_msg_status in ubus ubusmsg.h.
	#ubus({ id, method, params }) {
		const frame = result => ({ jsonrpc: '2.0', id, result });
		if (method != 'call')
			return frame([ 0, {} ]);
		const [ , object, name, args ] = params;
		// LuCI adds the session to what it calls.
		const given = { ...args, ubus_rpc_session: undefined };

		if (object == 'luci.hearth') {
			const answer = this.scenario[name];
			this.#note(object, name, given);
			if (answer === undefined)
				return frame([ 3 ]);
			if (answer === null)
				return { jsonrpc: '2.0', id, error: { code: -32002, message: 'Access denied' } };
			return frame([ 0, typeof answer == 'function' ? answer(given) : answer ]);
		}
		if (object == 'uci' && name == 'get')
			return frame([ 0, { values: this.scenario.uci ?? {} } ]);
		if (object == 'uci') {
			this.#note(object, name, given);
			return frame([ 0, name == 'changes' ? { changes: {} } : name == 'add' ? { section: 'cfg000001' } : {} ]);
		}
		if (object == 'session')
			return frame([ 0, { access: true } ]);
		return frame([ 0, {} ]);
	}
}
