// hearth's own page for a new device, in Chromium and from a real hearth: node --test pages.mjs
//
//   CHROMIUM  the browser; chromium
//   HEARTH    the program; target/debug/hearth
//   SHOTS     a folder for screenshots, if they are wanted

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Browser } from './chromium.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const { CHROMIUM = 'chromium', HEARTH = join(root, 'target/debug/hearth'), SHOTS } = process.env;
const key = `hskey-auth-0123456789ab-${'c0ffee00'.repeat(8)}`;
const agents = {
	Android: [ 390, 'Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36' ],
	'iPhone and iPad': [ 390, 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1' ],
	macOS: [ 1000, 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15' ],
	Windows: [ 1000, 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0' ],
	Linux: [ 1000, 'Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0' ]
};
const phones = [ 'Android', 'iPhone and iPad' ];
let browser, hearth, folder, url;

before(async () => {
	folder = mkdtempSync(join(tmpdir(), 'hearth-pages-'));
	hearth = spawn(HEARTH, [ 'serve', '--http', '127.0.0.1:0', '--https', 'off', '--stun', 'off', '--data-dir', join(folder, 'data'),
		'--socket', join(folder, 'hearth.sock') ], { stdio: [ 'ignore', 'pipe', 'ignore' ] });
	url = await new Promise((resolve, reject) => {
		let text = '';
		hearth.stdout.setEncoding('utf8').on('data', piece => {
			text += piece;
			const found = text.match(/http:\/\/127\.0\.0\.1:\d+/);
			if (found)
				resolve(found[0]);
		});
		hearth.on('exit', () => reject(new Error(`hearth does not start: ${text}`)));
	});
	browser = await Browser.start(CHROMIUM);
});

after(async () => {
	await browser?.stop();
	hearth?.kill();
	if (folder)
		rmSync(folder, { recursive: true, force: true });
});

// Opens the page on a system.
async function on(system, fragment, check) {
	const [ width, userAgent ] = agents[system];
	const page = await browser.page(width, 800);
	try {
		await page.send('Emulation.setUserAgentOverride', { userAgent });
		await page.open(`${url}/join${fragment}`);
		await page.until("document.querySelector('details')");
		await page.value('localStorage.length');
		if (SHOTS && (!fragment || fragment == `#${key}`)) {
			mkdirSync(SHOTS, { recursive: true });
			await page.screenshot(join(SHOTS, `join-${system.split(' ')[0]}${fragment ? '' : '-without-key'}.png`));
		}
		await check(page);
		assert.deepEqual(page.faults, [], 'the page keeps to its own policy');
	}
	finally {
		await page.value('localStorage.clear()');
		await page.close();
	}
}

const kept = "JSON.parse(localStorage.getItem('hearth-invitation'))?.key ?? null";

test('the steps of the own system are open, with the key where it can be copied', async () => {
	for (const system of Object.keys(agents))
		await on(system, `#${key}`, async page => {
			assert.equal(await page.value("document.querySelector('details').open && document.querySelector('summary').textContent"), system);
			const texts = await page.value("[...document.querySelectorAll('details[open] code')].filter(code => code.offsetParent).map(code => code.innerText)");
			const known = texts.filter(text => text.includes(key));
			assert.ok(known.length, `${system}: ${texts}`);
			for (const text of known)
				assert.ok(text == key || text.endsWith(` --auth-key=${key}`), text);
			assert.ok(!(await page.value('document.body.innerText')).includes('KEY'), 'no placeholder is left');
			const copied = await page.value(`(() => {
				const button = [ ...document.querySelectorAll('details[open] button') ].find(button => button.previousElementSibling.innerText.includes('${key}'));
				button.click();
				return String(getSelection());
			})()`);
			assert.ok(copied.endsWith(key), copied);
			assert.equal(await page.value(kept), phones.includes(system) ? key : null, 'phones keep it for the page that the app opens');
		});
});

test('without a key nothing speaks of one, and the page says how to go on', async () => {
	for (const system of [ 'Android', 'Linux' ])
		await on(system, '', async page => {
			const text = await page.value('document.body.innerText');
			assert.ok(!text.includes('auth-key') && !text.includes('KEY'), text);
			assert.ok(text.includes('waits for approval by the owner'));
			assert.equal(await page.value(kept), null);
		});
});

test('what is no key is never put into the page', async () => {
	for (const fragment of [ '#<img src=x onerror=alert(1)>', '#hskey-auth-short', `#${key}%20x`, `#${key}"` ])
		await on('Android', fragment, async page => {
			assert.ok(!(await page.value("document.querySelector('main').innerHTML")).includes('hskey-auth-'));
			assert.equal(await page.value(kept), null);
		});
});

// A device that waits needs a client, so this is the script of its page on the page that kept the invitation.
test('the invitation that a phone opened is filled in on the page about its device, for an hour', async () => {
	const [ , source ] = readFileSync(join(root, 'src/web/register.rs'), 'utf8').match(/^const SCRIPT: &str = "\\\n([^"]*)";/m);
	const script = source.replaceAll('\\\n', '');
	const fill = `document.body.innerHTML = '<form><input id="key"></form>'; ${script}; document.getElementById('key').value`;
	const ends = life => `localStorage.setItem('hearth-invitation', JSON.stringify({ key: '${key}', until: Date.now() + ${life} }))`;
	for (const [ prepare, filled ] of [ [ '0', key ], [ ends(60000), key ], [ ends(-1), '' ] ])
		await on('Android', `#${key}`, async page => {
			await page.value(prepare);
			assert.equal(await page.value(fill), filled);
		});
	await on('Android', '', async page => assert.equal(await page.value(fill), ''));
	await on('Android', `#${key}`, async page => {
		await page.value(`document.body.innerHTML = ''; ${script}`);
		assert.equal(await page.value(kept), null, 'a device that is decided needs it no more');
	});
});
