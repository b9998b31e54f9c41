// A headless Chromium, driven over a pipe by the Chrome DevTools Protocol: no package is needed.
// Source of the protocol: https://chromedevtools.github.io/devtools-protocol/

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Longest wait for anything, in milliseconds. A loaded machine is slow to start a browser.
const PATIENCE = 60000;

export class Browser {
	#process; #folder; #waiting = new Map(); #next = 1; #pages = new Map(); #rest = '';

	static async start(program) {
		const browser = new Browser();
		browser.#folder = mkdtempSync(join(tmpdir(), 'hearth-chromium-'));
		browser.#process = spawn(program, [
			'--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
			'--no-first-run', '--disable-extensions', '--disable-background-networking', '--hide-scrollbars',
			'--lang=en-US', `--user-data-dir=${browser.#folder}`, 'about:blank'
		], { stdio: [ 'ignore', 'ignore', 'ignore', 'pipe', 'pipe' ] });
		browser.#process.on('exit', () => browser.#fail(new Error('the browser has ended')));
		browser.#process.on('error', error => browser.#fail(error));
		browser.#process.stdio[4].setEncoding('utf8');
		browser.#process.stdio[4].on('data', text => browser.#hear(text));
		browser.#process.stdio[3].on('error', () => {});
		await browser.send('Browser.getVersion');
		return browser;
	}

	#fail(error) {
		for (const wait of this.#waiting.values())
			wait.reject(error);
		this.#waiting.clear();
	}

	#hear(text) {
		const messages = (this.#rest + text).split('\0');
		this.#rest = messages.pop();
		for (const message of messages.map(text => JSON.parse(text))) {
			const wait = this.#waiting.get(message.id);
			if (wait) {
				this.#waiting.delete(message.id);
				if (message.error)
					wait.reject(new Error(`${wait.method}: ${message.error.message}`));
				else
					wait.resolve(message.result);
			}
			else {
				this.#pages.get(message.sessionId)?.hear(message.method, message.params);
			}
		}
	}

	send(method, params = {}, sessionId) {
		const id = this.#next++;
		return new Promise((resolve, reject) => {
			const late = setTimeout(() => {
				this.#waiting.delete(id);
				reject(new Error(`${method}: no answer`));
			}, PATIENCE);
			const settled = then => value => { clearTimeout(late); then(value); };
			this.#waiting.set(id, { method, resolve: settled(resolve), reject: settled(reject) });
			this.#process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + '\0');
		});
	}

	async page(width = 1100, height = 800) {
		const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
		const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
		const page = new Page(this, targetId, sessionId);
		this.#pages.set(sessionId, page);
		await page.send('Page.enable');
		await page.send('Runtime.enable');
		await page.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });
		return page;
	}

	async stop() {
		const ended = new Promise(resolve => this.#process.once('exit', resolve));
		await this.send('Browser.close').catch(() => this.#process.kill('SIGKILL'));
		await ended;
		// The last of its processes may still write.
		rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
	}
}

class Page {
	// Errors and exceptions that the page did not handle.
	faults = [];

	constructor(browser, targetId, sessionId) {
		this.browser = browser;
		this.targetId = targetId;
		this.sessionId = sessionId;
	}

	send(method, params) {
		return this.browser.send(method, params, this.sessionId);
	}

	hear(method, params) {
		if (method == 'Runtime.exceptionThrown')
			this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
		if (method == 'Runtime.consoleAPICalled' && params.type == 'error')
			this.faults.push(params.args.map(argument => argument.value ?? argument.description).join(' '));
	}

	async open(url) {
		const { errorText } = await this.send('Page.navigate', { url });
		if (errorText)
			throw new Error(`${url}: ${errorText}`);
	}

	// The value of an expression; a promise is waited for.
	async value(expression) {
		const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
			expression, awaitPromise: true, returnByValue: true
		});
		if (exceptionDetails)
			throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
		return result.value;
	}

	// Waits until the expression is true.
	async until(expression) {
		const deadline = Date.now() + PATIENCE;
		let last;
		while (Date.now() < deadline) {
			// While a page loads there may be nothing to ask.
			last = await this.value(`new Promise(resolve => {
				const end = Date.now() + 1000;
				const look = () => {
					let is = false;
					try { is = !!(${expression}); } catch (e) { }
					if (is || Date.now() > end) resolve(is); else setTimeout(look, 20);
				};
				look();
			})`).catch(error => error);
			if (last === true)
				return;
		}
		const text = await this.value('document.body.innerText').catch(() => '');
		throw new Error(`in vain waited for: ${expression}\n${[ ...this.faults, last.message ?? '', text.slice(0, 2000) ].join('\n')}`);
	}

	text(selector = '#view') {
		return this.value(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? null`);
	}

	// Clicks the first button or link with these words in an element.
	async click(words, within = 'body') {
		// At once: between finding and clicking a page may put other nodes in the place of these.
		await this.until(`[...document.querySelectorAll(${JSON.stringify(within)} + ' button, ' + ${JSON.stringify(within)} + ' a')].find(
			one => one.textContent.trim() == ${JSON.stringify(words)} && one.offsetParent && !one.disabled
			&& (one.click(), true))`);
	}

	// Fills a field in, as a person would.
	fill(selector, value) {
		return this.value(`(() => {
			const field = document.querySelector(${JSON.stringify(selector)});
			field.value = ${JSON.stringify(value)};
			field.dispatchEvent(new Event('input', { bubbles: true }));
			field.dispatchEvent(new Event('change', { bubbles: true }));
		})()`);
	}

	async screenshot(path) {
		const { cssContentSize: size } = await this.send('Page.getLayoutMetrics');
		const { data } = await this.send('Page.captureScreenshot', {
			format: 'png', captureBeyondViewport: true,
			clip: { x: 0, y: 0, width: size.width, height: Math.min(size.height, 6000), scale: 1 }
		});
		writeFileSync(path, Buffer.from(data, 'base64'));
	}

	close() {
		return this.browser.send('Target.closeTarget', { targetId: this.targetId });
	}
}
