// Stands for the module `uci`: the configuration is a file of JSON.

import { readfile, writefile } from 'fs';

const file = getenv('TEST_UCI');

export function cursor() {
	let all = json(readfile(file) ?? '{}');
	return {
		load: config => exists(all, config),
		get: (config, section, option) => option ? all[config]?.[section]?.[option] : all[config]?.[section]?.['.type'],
		set: (config, section, option, value) => { all[config][section][option] = value; return true; },
		commit: config => !!writefile(file, sprintf('%J', all))
	};
};
