// Renders every page and writes screenshots: `node look.mjs CHROMIUM FOLDER [RESOURCES THEME]`.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Browser } from './chromium.mjs';
import { Router, views } from './router.mjs';
import * as scenarios from './scenarios.mjs';

const [ , , chromium, folder, resources, theme ] = process.argv;
mkdirSync(folder, { recursive: true });
const router = new Router(resources, theme);
await router.start(scenarios.home);
const browser = await Browser.start(chromium);
try {
	for (const name of [ 'home', 'empty', 'stopped', 'clash', 'off', 'many', 'nasty' ]) {
		for (const [ size, width ] of [ [ '', 1280 ], [ '-phone', 390 ] ]) {
			if (size && name != 'home')
				continue;
			for (const view of views) {
				router.play(scenarios[name]);
				const page = await browser.page(width, 800);
				await page.open(router.view(view));
				await page.until("document.querySelector('#view h2, #view .alert-message')");
				if (view == 'overview' && !scenarios[name].doctor.error)
					await page.until("document.querySelector('.hearth-finding')");
				if (view == 'invite' && !scenarios[name].users.error) {
					await page.click('Create invitation', '#view');
					await page.until("document.querySelector('#hearth-invitation svg')");
				}
				await page.screenshot(join(folder, `${name}-${view}${size}.png`));
				if (page.faults.length)
					console.log(`${name} ${view}: ${page.faults.join('; ')}`);
				await page.close();
			}
		}
	}
}
finally {
	await browser.stop();
	await router.stop();
}
